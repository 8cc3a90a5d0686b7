//! What a plugin may ask of the host: one row for each interface. A component that imports anything else is refused.
//!
//! The plugin asks by importing, the operator grants by configuration; both are needed. What needs no grant shows the
//! handler nothing but its own delivery, its own configuration and its own log.

mod config;
pub mod context;
mod delivery;
mod emit;
mod envelope;
pub mod http;
pub mod ids;
pub mod log;
pub(crate) mod meter;
pub mod secrets;
mod state;
mod timer;
mod wasi;

use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::p2::bindings::{cli, clocks, random, sync::io};

use super::abi;
use super::abi::latest::tidemill::plugin as api;
use context::{Context, Permissions};
use tidemill_config::WasiGrant;

pub struct Capability {
    /// What people call it. Where it needs a grant it is written like this in `[handlers.NAME.grants]`; the parts of WASI
    /// are items of one list, see `example`.
    pub name: &'static str,
    /// The interface without its version.
    pub interface: &'static str,
    /// The version of `wit/` that it came with; for interfaces of WASI, of WASI.
    pub since: &'static str,
    /// How a grant is written; empty where none is needed.
    pub example: &'static str,
    pub granted: fn(&Permissions) -> bool,
    pub link: fn(&mut Linker<Context>) -> wasmtime::Result<()>,
}

impl Capability {
    /// Whether the host links this version of the interface.
    pub(crate) fn supports(&self, version: &str) -> bool {
        if self.interface.starts_with("wasi:") {
            // A version that only adds has the same first two numbers. What it adds and the host lacks is found at linking.
            version.strip_prefix("0.2.").is_some_and(|patch| patch.parse::<u16>().is_ok())
        } else {
            abi::VERSIONS.contains(&version)
        }
    }

    /// The versions that `supports` takes, for people.
    pub(crate) fn spoken(&self) -> String {
        if self.interface.starts_with("wasi:") { "0.2.0 and later 0.2s".to_owned() } else { abi::VERSIONS.join(", ") }
    }
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
        name: "timer",
        interface: "tidemill:plugin/timer",
        since: "0.1.1",
        example: "timer = true",
        granted: |terms| terms.timer,
        link: |linker| api::timer::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-clocks",
        interface: "wasi:clocks/wall-clock",
        since: "0.2.0",
        example: "wasi = [\"clocks\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Clocks),
        link: |linker| clocks::wall_clock::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-clocks",
        interface: "wasi:clocks/monotonic-clock",
        since: "0.2.0",
        example: "wasi = [\"clocks\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Clocks),
        link: |linker| clocks::monotonic_clock::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-random",
        interface: "wasi:random/random",
        since: "0.2.0",
        example: "wasi = [\"random\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Random),
        link: |linker| random::random::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-random",
        interface: "wasi:random/insecure",
        since: "0.2.0",
        example: "wasi = [\"random\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Random),
        link: |linker| random::insecure::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-random",
        interface: "wasi:random/insecure-seed",
        since: "0.2.0",
        example: "wasi = [\"random\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Random),
        link: |linker| random::insecure_seed::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/stdin",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::stdin::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/stdout",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::stdout::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/stderr",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::stderr::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/terminal-input",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::terminal_input::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/terminal-output",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::terminal_output::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/terminal-stdin",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::terminal_stdin::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/terminal-stdout",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::terminal_stdout::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-stdio",
        interface: "wasi:cli/terminal-stderr",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        link: |linker| cli::terminal_stderr::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-io",
        interface: "wasi:io/poll",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: |linker| io::poll::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-io",
        interface: "wasi:io/streams",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: |linker| io::streams::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-io",
        interface: "wasi:io/error",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: wasi::empty::link_error,
    },
    Capability {
        name: "wasi-cli",
        interface: "wasi:cli/environment",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: |linker| cli::environment::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-cli",
        interface: "wasi:cli/exit",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: |linker| cli::exit::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
    },
    Capability {
        name: "wasi-files",
        interface: "wasi:filesystem/types",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: wasi::empty::link_types,
    },
    Capability {
        name: "wasi-files",
        interface: "wasi:filesystem/preopens",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        link: wasi::empty::link_preopens,
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
