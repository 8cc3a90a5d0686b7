//! Reading an event.

use serde::Deserialize;

use crate::{Event, Failure};

impl Event {
    /// The event's data as a type of yours. What does not fit is rejected: the same bytes will never fit.
    /// Fields of a borrowed type, such as `&RawValue`, point into the event.
    ///
    /// ```
    /// # use tidemill_sdk::prelude::*;
    /// #[derive(Deserialize)]
    /// struct Order {
    ///     order_id: i64,
    /// }
    /// # let order = |data: &str| Event {
    /// #     id: String::new(), kind: "Order.Created".into(), version: 1, key: String::new(), attempt: 1,
    /// #     data: data.into(),
    /// # };
    /// let read: Order = order(r#"{"order_id":7,"status":"pending"}"#).json().unwrap();
    /// assert_eq!(read.order_id, 7);
    /// assert!(order(r#"{"order_id":"7"}"#).json::<Order>().is_err());
    /// ```
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.data).map_err(|error| Failure::reject(format!("data of {}: {error}", self.name())))
    }

    /// The full name, for example `Order.Created.v1`.
    pub fn name(&self) -> String {
        format!("{}.v{}", self.kind, self.version)
    }

    /// For the last arm of a `match` on [`Event::name`]: the handler was given a type of event that it does not know.
    pub fn unknown(&self) -> Failure {
        Failure::reject(format!(
            "this plugin does not know {}: see `events` in its handler's configuration",
            self.name()
        ))
    }
}
