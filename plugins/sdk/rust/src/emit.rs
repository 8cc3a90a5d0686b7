//! Publishing events. Needs the grant `emit`, which names the types that may be emitted.

use serde::Serialize;

use crate::Failure;
use crate::bindings::tidemill::plugin::{emit as host, types::NewEvent};

/// Emits an event with the key of the event being handled, and returns its id, which is the same if the delivery is
/// retried. It is published by the commit. A refused event rejects the delivery.
///
/// ```no_run
/// # use tidemill_sdk::prelude::*;
/// # fn example() -> Result<(), Failure> {
/// emit("Payment.Order.Paid.v1", &json!({ "order_id": 7 }))?;
/// # Ok(())
/// # }
/// ```
pub fn emit(name: &str, data: &impl Serialize) -> Result<String, Failure> {
    Emit::new(name).send(data)
}

/// An event with a key or attributes of its own.
///
/// ```no_run
/// # use tidemill_sdk::prelude::*;
/// # fn example() -> Result<(), Failure> {
/// let reserved = Emit::new("Inventory.SKU.Reserved.v1").key("85123A").attribute("warehouse", "west");
/// reserved.send(&json!({ "sku_code": "85123A", "quantity": 6 }))?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is emitted before `send`"]
pub struct Emit<'a> {
    name: &'a str,
    key: Option<String>,
    attributes: Vec<(String, String)>,
}

impl<'a> Emit<'a> {
    /// `name` is a full name: `Payment.Order.Paid.v1`.
    pub fn new(name: &'a str) -> Self {
        Self { name, key: None, attributes: Vec::new() }
    }

    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// See [`emit`].
    pub fn send(self, data: &impl Serialize) -> Result<String, Failure> {
        let data = serde_json::to_vec(data)?;
        self.send_raw(data)
    }

    /// With data that is JSON already; it is published byte for byte.
    pub fn send_raw(self, data: Vec<u8>) -> Result<String, Failure> {
        let Self { name, key, attributes } = self;
        let Some((kind, version)) = split(name) else {
            return Err(Failure::reject(format!(
                "\"{name}\" is not an event's full name, such as Payment.Order.Paid.v1"
            )));
        };
        let event = NewEvent { kind: kind.to_owned(), version, key, attributes, data };
        host::emit(&event).map_err(Failure::reject)
    }
}

/// Only splits; the host checks whether the kind is a good name.
fn split(name: &str) -> Option<(&str, u32)> {
    let (kind, version) = name.rsplit_once(".v")?;
    Some((kind, version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_full_name_is_a_kind_and_a_version() {
        assert_eq!(split("Payment.Order.Paid.v12"), Some(("Payment.Order.Paid", 12)));
        assert_eq!(split("Payment.Order.Paid"), None);
        assert_eq!(split("Payment.Order.Paid.v"), None);
    }
}
