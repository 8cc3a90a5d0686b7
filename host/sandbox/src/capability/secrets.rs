//! `tidemill:plugin/secrets`: the values that the plugin may read.

use super::context::Context;
use crate::abi::latest::tidemill::plugin::secrets;

impl secrets::Host for Context {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<String, String>> {
        self.enter()?;
        if let Some(secret) = self.terms.secrets.read(&name) {
            return Ok(Ok(secret.expose().to_owned()));
        }
        let (handler, name) = (&self.terms.handler, name.escape_debug().take(64).collect::<String>());
        let reason = format!(
            "secrets: \"{name}\" is not among the secrets that may be read (hint: [handlers.{handler}.grants] secrets)"
        );
        Ok(Err(self.refuse(None, reason)))
    }
}
