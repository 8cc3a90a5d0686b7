//! `tidemill:plugin/config`: the handler's own `[handlers.NAME.config]`, and nothing else.

use super::context::Context;
use crate::abi::latest::tidemill::plugin::config;

impl config::Host for Context {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(self.terms.config.get(&key).cloned())
    }

    fn get_all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.enter()?;
        Ok(self.terms.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
