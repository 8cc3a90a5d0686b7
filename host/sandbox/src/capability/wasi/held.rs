//! What WASI keeps for one instance.

use std::collections::BTreeMap;
use std::time::Instant;

use wasmtime_wasi::ResourceTable;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use crate::capability::meter::Stop;
use tidemill_core::limits;
use tidemill_core::model::outcome::Crash;

/// Made at its first call, so that other plugins pay nothing for it.
pub(crate) struct Wasi {
    pub(super) began: Instant,
    /// When each pollable is ready; none: never.
    pub(super) pollables: BTreeMap<u32, Option<Instant>>,
    pub(super) last_pollable: u32,
    /// Handles of standard streams that the guest holds.
    pub(super) streams: usize,
    /// The line that was begun on standard output, and the one on standard error.
    pub(super) lines: [Vec<u8>; 2],
    pub(super) files: WasiFilesystemCtx,
    /// Stays empty: what we hand out is named by numbers of our own.
    pub(super) table: ResourceTable,
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
    pub(super) fn handles(&self) -> usize {
        self.pollables.len() + self.streams
    }

    /// Asked before a handle is given out.
    pub(super) fn room_for_a_handle(&self) -> Result<(), Stop> {
        if self.handles() < limits::WASI_HANDLES {
            return Ok(());
        }
        let reason = format!("wasi: an instance may hold {} handles (WASI_HANDLES)", limits::WASI_HANDLES);
        Err(Stop { crash: Crash::Handles, reason })
    }
}
