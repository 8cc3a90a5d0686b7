//! Confirms each order, and counts the orders of each customer.

use tidemill_sdk::prelude::*;

handler!(handle);

#[derive(Deserialize)]
struct Order {
    order_id: i64,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let order: Order = event.json()?;
    let orders = state::get::<u64>("orders")?.unwrap_or(0) + 1;
    state::set("orders", &orders)?;
    emit("Order.Confirmed.v1", &json!({ "order_id": order.order_id, "orders_of_customer": orders }))?;
    Ok(())
}
