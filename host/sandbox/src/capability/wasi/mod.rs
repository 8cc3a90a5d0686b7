//! WASI 0.2, for plugins whose toolchain imports it: `[handlers.NAME.grants] wasi`. The types are the library's, the
//! answers are ours, because its answers may block a thread, and a worker must never wait for a guest.
//!
//! | file | answers | with |
//! |---|---|---|
//! | `clocks` | `wasi:clocks`, `wasi:io/poll` | real time; short waits, bounded in sum |
//! | `random` | `wasi:random` | the system's randomness; `insecure` repeats when a delivery does |
//! | `stdio` | `wasi:cli/std*`, `wasi:io/streams` | lines of the attempt's log; an input that is at its end |
//! | `empty` | the rest of `wasi:cli`, `wasi:filesystem`, `wasi:io/error` | no arguments, no variables, no files |

mod clocks;
pub(crate) mod empty;
mod random;
mod stdio;

use std::collections::BTreeMap;
use std::time::Instant;

use wasmtime_wasi::ResourceTable;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use super::context::Context;
use super::meter::Stop;
use tidemill_core::limits;
use tidemill_core::model::outcome::Crash;

/// What WASI keeps for one instance. Made at its first call, so that other plugins pay nothing for it.
pub(crate) struct Wasi {
    began: Instant,
    /// When each pollable is ready; none: never.
    pollables: BTreeMap<u32, Option<Instant>>,
    last_pollable: u32,
    /// Handles of standard streams that the guest holds.
    streams: usize,
    /// The line that was begun on standard output, and the one on standard error.
    lines: [Vec<u8>; 2],
    files: WasiFilesystemCtx,
    /// Stays empty: what we hand out is named by numbers of our own.
    table: ResourceTable,
}

impl Default for Wasi {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            pollables: BTreeMap::new(),
            last_pollable: 0,
            streams: 0,
            lines: Default::default(),
            // No folder is opened in advance, and a path alone opens nothing in WASI.
            files: WasiFilesystemCtx::default(),
            table: ResourceTable::new(),
        }
    }
}

impl Wasi {
    fn handles(&self) -> usize {
        self.pollables.len() + self.streams
    }

    /// Asked before a handle is given out.
    fn room_for_a_handle(&self) -> Result<(), Stop> {
        if self.handles() < limits::WASI_HANDLES {
            return Ok(());
        }
        let reason = format!("wasi: an instance may hold {} handles (WASI_HANDLES)", limits::WASI_HANDLES);
        Err(Stop { crash: Crash::Handles, reason })
    }
}

impl Context {
    fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_default()
    }

    /// Whether the guest left so many handles open that a fresh instance should take its place.
    pub(crate) fn leaks(&self) -> bool {
        self.wasi.as_ref().is_some_and(|wasi| wasi.handles() > limits::WASI_HANDLES_KEPT)
    }
}
