//! What a plugin may ask of the host: one row for each interface. A component that imports anything else is refused.
//!
//! The plugin asks by importing, the operator grants by configuration; both are needed. What needs no grant shows the
//! handler nothing but its own delivery, its own configuration and its own log.

pub mod context;
pub mod delivery;
pub mod emit;
pub mod http;
pub mod log;
pub mod secrets;
pub mod settings;
pub mod state;

use wasmtime::component::{HasSelf, Linker};

use crate::plugin::abi::latest::tidemill::plugin as api;
use context::{Context, Terms};

pub struct Capability {
    /// As it is written in `[handlers.NAME.grants]`.
    pub name: &'static str,
    /// The interface without its version.
    pub interface: &'static str,
    /// The version of `wit/` that it came with.
    pub since: &'static str,
    /// How a grant is written; empty where none is needed.
    pub example: &'static str,
    pub granted: fn(&Terms) -> bool,
    pub link: fn(&mut Linker<Context>) -> wasmtime::Result<()>,
}

/// Every interface that the host can link. `docs/guides/capabilities.md` shows the same rows; a test compares them.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "types",
        interface: "tidemill:plugin/types",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        link: |linker| api::types::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "delivery",
        interface: "tidemill:plugin/delivery",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        link: |linker| api::delivery::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "emit",
        interface: "tidemill:plugin/emit",
        since: "0.1.0",
        example: "emit = [\"Order.Confirmed\"]",
        granted: |terms| terms.emit.is_some(),
        link: |linker| api::emit::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "state",
        interface: "tidemill:plugin/state",
        since: "0.1.0",
        example: "state = true",
        granted: |terms| terms.state,
        link: |linker| api::state::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "log",
        interface: "tidemill:plugin/logging",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        link: |linker| api::logging::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "config",
        interface: "tidemill:plugin/config",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        link: |linker| api::config::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "secrets",
        interface: "tidemill:plugin/secrets",
        since: "0.1.1",
        example: "secrets = [\"api-key\"]",
        granted: |terms| terms.secrets.readable(),
        link: |linker| api::secrets::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "http",
        interface: "tidemill:plugin/http",
        since: "0.1.1",
        example: "http = [\"POST https://api.example.com/v1/payments/*\"]",
        granted: |terms| terms.http.is_some(),
        link: |linker| api::http::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
];
