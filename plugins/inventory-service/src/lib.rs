//! Reserves what is ordered: one `Inventory.SKU.Reserved.v1` for each SKU of an order, with the SKU as its key; and
//! then, as it also receives those, a running sum for each SKU.
//!
//! Two steps, because state belongs to one key: the order's delivery cannot write the state of a SKU, but it can emit
//! an event that is delivered there. State `reserved` = `{"quantity":48,"orders":5}`.

use std::collections::BTreeMap;

use tidemill_sdk::prelude::*;

handler!(handle);

#[derive(Deserialize)]
struct Order {
    order_id: i64,
    status: String,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    sku_code: String,
    quantity: u64,
}

#[derive(Serialize, Deserialize)]
struct Reservation {
    sku_code: String,
    quantity: u64,
    order_id: i64,
}

#[derive(Default, Serialize, Deserialize)]
struct Reserved {
    quantity: u64,
    orders: u64,
}

fn handle(event: &Event) -> Result<(), Failure> {
    match event.name().as_str() {
        "Order.Created.v1" => reserve(event.json()?),
        "Inventory.SKU.Reserved.v1" => count(&event.json()?),
        _ => Err(event.unknown()),
    }
}

fn reserve(Order { order_id, status, items }: Order) -> Result<(), Failure> {
    if status == "cancelled" {
        return Ok(());
    }
    // Sorted: a second try must emit in the same order, as an emitted event's id comes from its place.
    let mut quantities = BTreeMap::<String, u64>::new();
    for Item { sku_code, quantity } in items {
        let sum = quantities.entry(sku_code).or_default();
        *sum = add(*sum, quantity)?;
    }
    for (sku_code, quantity) in quantities {
        let reserved = Emit::new("Inventory.SKU.Reserved.v1").key(&sku_code);
        reserved.send(&Reservation { sku_code, quantity, order_id })?;
    }
    Ok(())
}

fn count(reservation: &Reservation) -> Result<(), Failure> {
    let mut reserved: Reserved = state::get("reserved")?.unwrap_or_default();
    reserved.quantity = add(reserved.quantity, reservation.quantity)?;
    reserved.orders += 1;
    state::set("reserved", &reserved)
}

fn add(sum: u64, quantity: u64) -> Result<u64, Failure> {
    sum.checked_add(quantity).ok_or_else(|| Failure::reject("the quantities leave the range of 64 bits"))
}
