//! Counts, for each key and day: events, and of the orders their number and revenue.
//!
//! What a key is, the handler's configuration says: the country for orders, the event's type for everything else.
//! State `2010-12-01` = `{"events":143,"orders":143,"revenue_cents":5888510}`.

use tidemill_sdk::{Cents, prelude::*};

handler!(handle);

#[derive(Deserialize)]
struct Created {
    created_at: String,
}

#[derive(Deserialize)]
struct Order {
    total_amount: Cents,
}

#[derive(Default, Serialize, Deserialize)]
struct Day {
    events: u64,
    orders: u64,
    revenue_cents: i64,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let Created { created_at } = event.json()?;
    // The day where it happened: the offset of the time stamp is left as the producer chose it.
    let day = created_at.get(..10).ok_or_else(|| Failure::reject(format!("created_at {created_at:?} has no day")))?;
    let mut counts: Day = state::get(day)?.unwrap_or_default();
    counts.events += 1;
    if event.kind == "Order.Created" {
        let Cents(amount) = event.json::<Order>()?.total_amount;
        let too_much = || Failure::reject(format!("the revenue of {day} leaves the range of 64 bits"));
        counts.orders += 1;
        counts.revenue_cents = counts.revenue_cents.checked_add(amount).ok_or_else(too_much)?;
    }
    state::set(day, &counts)
}
