//! Keeps each product exactly as it came, for readers who ask for it by its key.
//!
//! State `product` = the event's data, byte for byte.

use tidemill_sdk::prelude::*;

handler!(handle);

fn handle(event: &Event) -> Result<(), Failure> {
    match event.name().as_str() {
        "Product.Created.v1" => state::set_raw("product", &event.data),
        _ => Err(event.unknown()),
    }
}
