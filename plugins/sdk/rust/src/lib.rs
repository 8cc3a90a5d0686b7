//! Write Tidemill handler plugins in Rust.
//!
//! A handler is a function from an event to "done" or a [`Failure`]. What it requests through [`emit()`], [`state`] and
//! [`timer`] takes effect only if it returns `Ok`, and then all at once, together with the acknowledgement.
//!
//! ```
//! use tidemill_sdk::prelude::*;
//!
//! handler!(handle);
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     order_id: i64,
//! }
//!
//! fn handle(event: &Event) -> Result<(), Failure> {
//!     let order: Order = event.json()?;
//!     emit("Payment.Order.Paid.v1", &json!({ "order_id": order.order_id }))?;
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! Its `Cargo.toml` says `crate-type = ["cdylib"]` and names `tidemill-sdk` and, for the derive, `serde`. The component
//! imports only what the handler calls: without a call of [`state`] it needs no grant `state`.
//!
//! Keep nothing in statics: an instance may live for one event or for many. What must last goes to [`state`].

#[cfg(all(feature = "allocator", target_family = "wasm"))]
mod allocator;
mod emit;
mod event;
mod failure;
mod money;

pub mod config;
pub mod http;
pub mod log;
pub mod secrets;
pub mod state;
pub mod timer;

/// What `wit-bindgen` makes of the world `handler-plugin`; the rest of this crate is the pleasant way to use it.
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/0.1.1",
        world: "handler-plugin",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "tidemill_sdk::bindings",
    });
}

/// More about the delivery being handled. Fetched, not copied: most handlers need none of it.
///
/// ```no_run
/// use tidemill_sdk::delivery;
/// let tenant = delivery::attribute("tenant").unwrap_or_default();
/// let traced = format!("{tenant} {} {}", delivery::correlation_id(), delivery::time());
/// ```
pub mod delivery {
    pub use crate::bindings::tidemill::plugin::delivery::{
        attribute, causation_id, correlation_id, envelope, stream, time,
    };
}

pub use bindings::tidemill::plugin::types::{Event, Failure};
pub use emit::{Emit, emit};
pub use money::Cents;
pub use serde;
pub use serde_json;

/// What almost every handler uses.
pub mod prelude {
    pub use crate::{Emit, Event, Failure, config, delivery, emit, handler, http, log, secrets, state, timer};
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;
}

/// Makes a `fn(&Event) -> Result<(), Failure>` the plugin's handler. Once in a crate.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        const _: () = {
            struct Handler;
            impl $crate::bindings::exports::tidemill::plugin::handler::Guest for Handler {
                fn handle(event: $crate::Event) -> ::core::result::Result<(), $crate::Failure> {
                    $handle(&event)
                }
            }
    $crate::bindings::export!(Handler with_types_in $crate::bindings);
        };
    };
}
