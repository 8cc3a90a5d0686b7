//! `wasi:random`: the system's randomness; and the insecure kind, which is the same again when a delivery is tried again.

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::capability::context::Context;
use crate::capability::meter::Stop;
use tidemill_core::limits;
use tidemill_core::model::outcome::Crash;

impl random::Host for Context {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        let mut bytes = vec![0; bounded(len)?];
        SysRng.try_fill_bytes(&mut bytes)?;
        Ok(bytes)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(SysRng.try_next_u64()?)
    }
}

impl insecure::Host for Context {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        let len = bounded(len)?;
        let mut bytes = Vec::with_capacity(len + 32);
        while bytes.len() < len {
            self.attempt.insecure_drawn += 1;
            bytes.extend(self.derived(self.attempt.insecure_drawn));
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        self.attempt.insecure_drawn += 1;
        Ok(halves(self.derived(self.attempt.insecure_drawn)).0)
    }
}

impl insecure_seed::Host for Context {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.enter()?;
        Ok(halves(self.derived(0)))
    }
}

impl Context {
    /// The n-th block of the sequence of this delivery. While an instance starts there is no delivery: then it is the
    /// handler's.
    fn derived(&self, n: u64) -> [u8; 32] {
        let event = self.attempt.event.as_ref().map_or(Uuid::nil(), |event| event.id());
        let mut digest = Sha256::new();
        digest.update(event.as_bytes());
        digest.update(n.to_le_bytes());
        digest.update(self.terms.handler.as_bytes());
        digest.finalize().into()
    }
}

fn halves(block: [u8; 32]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = block;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
}

fn bounded(len: u64) -> Result<usize, Stop> {
    let max = limits::WASI_RANDOM_BYTES.as_u64();
    if len > max {
        let reason =
            format!("wasi:random: it asked for {len} bytes; at most {max} (WASI_RANDOM_BYTES) are given at once");
        return Err(Stop { crash: Crash::WasiBytes, reason });
    }
    Ok(usize::try_from(len).unwrap_or(usize::MAX))
}
