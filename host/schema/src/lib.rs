//! From bytes to an `Event`: the envelope, the schemas, and what is wrong when it does not work out.

pub mod admit;
pub mod event;
pub mod registry;

pub use registry::Registry;
pub use tidemill_json::Json;
