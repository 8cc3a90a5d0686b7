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
pub(crate) mod held;
mod random;
mod stdio;

use super::context::Context;
use held::Wasi;
use tidemill_core::limits;

impl Context {
    fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_default()
    }

    /// Whether the guest left so many handles open that a fresh instance should take its place.
    pub(crate) fn leaks(&self) -> bool {
        self.wasi.as_ref().is_some_and(|wasi| wasi.handles() > limits::WASI_HANDLES_KEPT)
    }
}
