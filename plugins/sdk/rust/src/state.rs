//! The state of this handler for this delivery's key: named values, read-your-writes. Needs the grant `state`.
//!
//! ```no_run
//! # use tidemill_sdk::prelude::*;
//! # fn example() -> Result<(), Failure> {
//! let seen: u64 = state::get("seen")?.unwrap_or(0);
//! state::set("seen", &(seen + 1))?;
//! # Ok(())
//! # }
//! ```

use serde::{Serialize, de::DeserializeOwned};

use crate::Failure;
use crate::bindings::tidemill::plugin::state as host;

/// A value that was [`set`]; `None` if there is none. What does not fit the type rejects the delivery.
pub fn get<T: DeserializeOwned>(name: &str) -> Result<Option<T>, Failure> {
    let Some(value) = host::get(name) else { return Ok(None) };
    serde_json::from_slice(&value).map(Some).map_err(|error| Failure::reject(format!("state \"{name}\": {error}")))
}

/// Keeps the value as JSON. A refused write (a limit) rejects the delivery.
pub fn set(name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
    set_raw(name, &serde_json::to_vec(value)?)
}

/// The value's bytes, whatever they are.
pub fn get_raw(name: &str) -> Option<Vec<u8>> {
    host::get(name)
}

/// Keeps bytes as they are.
pub fn set_raw(name: &str, value: &[u8]) -> Result<(), Failure> {
    host::set(name, value).map_err(Failure::reject)
}

/// Forgets a value; nothing happens if there is none.
pub fn delete(name: &str) {
    host::delete(name);
}
