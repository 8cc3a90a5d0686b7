//! `tidemill:plugin/state`: named values of this handler for this delivery's key. Reads see this attempt's own writes;
//! writes take effect with the ack or not at all.

use bytes::Bytes;

use super::context::{Context, bytes_of};
use crate::abi::latest::tidemill::plugin::state;
use tidemill_core::model::outcome::Crash;

/// The longest name of a value, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl state::Host for Context {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.enter()?;
        self.attempt.state_touched = true;
        let value = self.attempt.value(&name);
        Ok(value.map(|bytes| bytes.to_vec()))
    }

    fn set(&mut self, name: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.enter()?;
        self.attempt.state_touched = true;
        if let Err((crash, reason)) = self.room_for_write(&name, Some(value.len())) {
            return Ok(Err(self.refuse(crash, reason)));
        }
        self.attempt.effects.writes.insert(name, Some(Bytes::from(value)));
        Ok(Ok(()))
    }

    fn delete(&mut self, name: String) -> wasmtime::Result<()> {
        self.enter()?;
        self.attempt.state_touched = true;
        // There is no way to tell the guest; the attempt does not commit all the same.
        match self.room_for_write(&name, None) {
            Ok(()) => drop(self.attempt.effects.writes.insert(name, None)),
            Err((crash, reason)) => drop(self.refuse(crash, reason)),
        }
        Ok(())
    }
}

impl Context {
    /// A deletion is a write, too: its name is kept until the attempt is settled.
    fn room_for_write(&mut self, name: &str, value: Option<usize>) -> Result<(), (Option<Crash>, String)> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err((None, format!("state: a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len())));
        }
        let max = bytes_of(self.terms.limits.state);
        self.attempt.state_bytes += name.len() + value.unwrap_or(0);
        if self.attempt.state_bytes > max {
            let reason = format!("state: an attempt may write {max} bytes (limits.state), \"{name}\" goes beyond that");
            return Err((Some(Crash::StateBytes), reason));
        }
        let values = self.attempt.values.as_deref().into_iter().flatten();
        let held =
            self.attempt.state_held.unwrap_or_else(|| values.map(|(name, value)| name.len() + value.len()).sum());
        let before = self.attempt.value(name).map_or(0, |value| name.len() + value.len());
        let after = held - before + value.map_or(0, |bytes| name.len() + bytes);
        let max = bytes_of(self.terms.limits.state_total);
        if after > max && after > held {
            let reason = format!("state: a key may hold {max} bytes (limits.state_total), \"{name}\" goes beyond that");
            return Err((Some(Crash::StateTotal), reason));
        }
        self.attempt.state_held = Some(after);
        Ok(())
    }
}
