//! Pays each order through a gateway, and tells so with `Payment.Order.Paid.v1`.
//!
//! The gateway is simulated, and so is its trouble. The envelope's attribute `simulate` asks for it:
//!
//! | `simulate` | the gateway |
//! |---|---|
//! | `fail-once` | is busy at the first try |
//! | `fail-always` | is busy at every try |
//! | `reject` | declines the payment for good |

use tidemill_sdk::{prelude::*, serde_json::value::RawValue};

handler!(handle);

#[derive(Deserialize)]
struct Order<'a> {
    order_id: i64,
    order_number: String,
    /// Handed on as it was written: 2.10 stays 2.10.
    #[serde(borrow)]
    total_amount: &'a RawValue,
}

#[derive(Serialize)]
struct Paid<'a> {
    order_id: i64,
    order_number: String,
    amount: &'a RawValue,
    method: String,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let Order { order_id, order_number, total_amount: amount } = event.json()?;
    charge(event.attempt)?;
    let method = config::get("method").unwrap_or_else(|| "card".into());
    emit("Payment.Order.Paid.v1", &Paid { order_id, order_number, amount, method })?;
    Ok(())
}

/// Where a real service would call its gateway, with the event's id as idempotency key.
fn charge(attempt: u32) -> Result<(), Failure> {
    match delivery::attribute("simulate").as_deref() {
        Some("fail-once") if attempt == 1 => Err(Failure::retry("the gateway is busy (simulated, once)")),
        Some("fail-always") => Err(Failure::retry("the gateway is busy (simulated, always)")),
        Some("reject") => Err(Failure::reject("the gateway declined the payment (simulated)")),
        _ => Ok(()),
    }
}
