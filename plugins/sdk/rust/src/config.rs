//! The handler's own configuration, `[handlers.NAME.config]`.

use crate::bindings::tidemill::plugin::config as host;

/// The value of a key, if it is configured.
pub fn get(key: &str) -> Option<String> {
    host::get(key)
}
