//! What a plugin may ask of the host: one row for each capability. A component that imports anything else is refused.
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
mod log;
pub mod log_rate;
pub(crate) mod meter;
pub mod secret;
mod secrets;
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
    /// The version of `wit/` that it came with; for interfaces of WASI, of WASI.
    pub since: &'static str,
    /// How a grant is written; empty where none is needed.
    pub example: &'static str,
    pub granted: fn(&Permissions) -> bool,
    pub interfaces: &'static [Interface],
}

pub struct Interface {
    /// Without its version.
    pub name: &'static str,
    pub(crate) link: fn(&mut Linker<Context>) -> wasmtime::Result<()>,
}

impl Interface {
    /// Whether the host links this version of the interface.
    pub(crate) fn supports(&self, version: &str) -> bool {
        if self.name.starts_with("wasi:") {
            // A version that only adds has the same first two numbers. What it adds and the host lacks is found at linking.
            version.strip_prefix("0.2.").is_some_and(|patch| patch.parse::<u16>().is_ok())
        } else {
            abi::VERSIONS.contains(&version)
        }
    }

    /// The versions that `supports` takes, for people.
    pub(crate) fn spoken(&self) -> String {
        if self.name.starts_with("wasi:") { "0.2.0 and later 0.2s".to_owned() } else { abi::VERSIONS.join(", ") }
    }
}

/// `tidemill:plugin/emit@0.1.0` -> its row, and the interface there.
pub fn of_import(import: &str) -> Option<(&'static Capability, &'static Interface)> {
    let name = import.split_once('@').map_or(import, |(name, _)| name);
    let mut all = CAPABILITIES.iter().flat_map(|row| row.interfaces.iter().map(move |interface| (row, interface)));
    all.find(|(_, interface)| interface.name == name)
}

/// Every capability, with the interfaces that the host links for it. `docs/guides/capabilities.md` shows the same rows; a
/// test compares them.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "types",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        interfaces: &[Interface {
            name: "tidemill:plugin/types",
            link: |linker| api::types::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "delivery",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        interfaces: &[Interface {
            name: "tidemill:plugin/delivery",
            link: |linker| api::delivery::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "emit",
        since: "0.1.0",
        example: "emit = [\"Order.Confirmed\"]",
        granted: |terms| terms.emit.is_some(),
        interfaces: &[Interface {
            name: "tidemill:plugin/emit",
            link: |linker| api::emit::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "state",
        since: "0.1.0",
        example: "state = true",
        granted: |terms| terms.state,
        interfaces: &[Interface {
            name: "tidemill:plugin/state",
            link: |linker| api::state::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "log",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        interfaces: &[Interface {
            name: "tidemill:plugin/logging",
            link: |linker| api::logging::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "config",
        since: "0.1.0",
        example: "",
        granted: |_| true,
        interfaces: &[Interface {
            name: "tidemill:plugin/config",
            link: |linker| api::config::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "timer",
        since: "0.1.1",
        example: "timer = true",
        granted: |terms| terms.timer,
        interfaces: &[Interface {
            name: "tidemill:plugin/timer",
            link: |linker| api::timer::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "wasi-clocks",
        since: "0.2.0",
        example: "wasi = [\"clocks\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Clocks),
        interfaces: &[
            Interface {
                name: "wasi:clocks/wall-clock",
                link: |linker| clocks::wall_clock::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:clocks/monotonic-clock",
                link: |linker| clocks::monotonic_clock::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
        ],
    },
    Capability {
        name: "wasi-random",
        since: "0.2.0",
        example: "wasi = [\"random\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Random),
        interfaces: &[
            Interface {
                name: "wasi:random/random",
                link: |linker| random::random::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:random/insecure",
                link: |linker| random::insecure::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:random/insecure-seed",
                link: |linker| random::insecure_seed::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
        ],
    },
    Capability {
        name: "wasi-stdio",
        since: "0.2.0",
        example: "wasi = [\"stdio\"]",
        granted: |terms| terms.wasi.contains(&WasiGrant::Stdio),
        interfaces: &[
            Interface {
                name: "wasi:cli/stdin",
                link: |linker| cli::stdin::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/stdout",
                link: |linker| cli::stdout::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/stderr",
                link: |linker| cli::stderr::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/terminal-input",
                link: |linker| cli::terminal_input::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/terminal-output",
                link: |linker| cli::terminal_output::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/terminal-stdin",
                link: |linker| cli::terminal_stdin::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/terminal-stdout",
                link: |linker| cli::terminal_stdout::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/terminal-stderr",
                link: |linker| cli::terminal_stderr::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
        ],
    },
    Capability {
        name: "wasi-io",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        interfaces: &[
            Interface {
                name: "wasi:io/poll",
                link: |linker| io::poll::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:io/streams",
                link: |linker| io::streams::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface { name: "wasi:io/error", link: wasi::empty::link_error },
        ],
    },
    Capability {
        name: "wasi-cli",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        interfaces: &[
            Interface {
                name: "wasi:cli/environment",
                link: |linker| cli::environment::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
            Interface {
                name: "wasi:cli/exit",
                link: |linker| cli::exit::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
            },
        ],
    },
    Capability {
        name: "wasi-files",
        since: "0.2.0",
        example: "wasi = [\"clocks\", \"random\", \"stdio\"]",
        granted: |terms| !terms.wasi.is_empty(),
        interfaces: &[
            Interface { name: "wasi:filesystem/types", link: wasi::empty::link_types },
            Interface { name: "wasi:filesystem/preopens", link: wasi::empty::link_preopens },
        ],
    },
    Capability {
        name: "secrets",
        since: "0.1.1",
        example: "secrets = [\"api-key\"]",
        granted: |terms| terms.secrets.readable(),
        interfaces: &[Interface {
            name: "tidemill:plugin/secrets",
            link: |linker| api::secrets::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
    Capability {
        name: "http",
        since: "0.1.1",
        example: "http = [\"POST https://api.example.com/v1/payments/*\"]",
        granted: |terms| terms.http.is_some(),
        interfaces: &[Interface {
            name: "tidemill:plugin/http",
            link: |linker| api::http::add_to_linker::<_, HasSelf<Context>>(linker, |context| context),
        }],
    },
];
