//! Secrets of the handler, `[handlers.NAME.secrets]`. Needs the grant `secrets`, which names those that may be read.
//!
//! A secret that only has to go out in a request need not be read at all: see [`crate::http::Request::header`].

use crate::Failure;
use crate::bindings::tidemill::plugin::secrets as host;

/// The value of a secret. A name that is not granted rejects the delivery.
pub fn get(name: &str) -> Result<String, Failure> {
    host::get(name).map_err(Failure::reject)
}
