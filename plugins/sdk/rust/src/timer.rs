//! Being called again later. Needs the grant `timer`.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tidemill_sdk::prelude::*;
//! # fn example(event: &Event) -> Result<(), Failure> {
//! if timer::name(event).as_deref() == Some("unpaid") {
//!     emit("Order.Cancelled.v1", &json!({ "order_id": event.key }))?;
//! } else {
//!     timer::after(Duration::from_secs(1800), "unpaid", &json!({}))?;
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use serde::Serialize;

use crate::bindings::tidemill::plugin::timer as host;
use crate::{Event, Failure, delivery};

/// The kind of the event that a due timer delivers.
pub const KIND: &str = "Tidemill.Timer";

/// After at least this long, the handler is called with an event of kind [`KIND`] that has the key of this delivery and
/// this data. It is set when this attempt commits; each call sets one more. A refused timer rejects the delivery.
pub fn after(wait: Duration, name: &str, data: &impl Serialize) -> Result<(), Failure> {
    after_raw(wait, name, &serde_json::to_vec(data)?)
}

/// With data that is JSON already; it is delivered byte for byte.
pub fn after_raw(wait: Duration, name: &str, data: &[u8]) -> Result<(), Failure> {
    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    host::after(ms, name, data).map_err(Failure::reject)
}

/// The name of the timer whose event this is; none for any other event. Only for the event being handled.
pub fn name(event: &Event) -> Option<String> {
    if event.kind == KIND { delivery::attribute("timer") } else { None }
}
