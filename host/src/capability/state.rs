//! `tidemill:plugin/state`: named values of this handler for this delivery's key. Reads see this attempt's own writes;
//! writes take effect with the ack or not at all.

use bytes::Bytes;

use super::context::Context;
use crate::plugin::abi::latest::tidemill::plugin::state;

/// The longest name of a value, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl state::Host for Context {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.attempt.state_touched = true;
        let value = match self.attempt.effects.writes.get(&name) {
            Some(written) => written.as_ref(),
            None => self.attempt.values.get(&name),
        };
        Ok(value.map(|bytes| bytes.to_vec()))
    }

    fn set(&mut self, name: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.attempt.state_touched = true;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let reason = format!("state: a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len());
            return Ok(Err(self.refuse(false, reason)));
        }
        let max = self.terms.limits.state_bytes_max;
        self.attempt.state_bytes += name.len() + value.len();
        if self.attempt.state_bytes > max {
            let reason = format!("state: an attempt may write {max} bytes (limits.state), \"{name}\" goes beyond that");
            return Ok(Err(self.refuse(true, reason)));
        }
        self.attempt.effects.writes.insert(name, Some(Bytes::from(value)));
        Ok(Ok(()))
    }

    fn delete(&mut self, name: String) -> wasmtime::Result<()> {
        self.attempt.state_touched = true;
        self.attempt.effects.writes.insert(name, None);
        Ok(())
    }
}
