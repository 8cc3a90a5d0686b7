//! `tidemill:plugin/delivery`: more about the event being handled, on request.

use super::context::Context;
use crate::abi::latest::tidemill::plugin::{delivery, types};

impl types::Host for Context {}

impl delivery::Host for Context {
    fn time(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.event()?.time().to_owned())
    }

    fn correlation_id(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.event()?.correlation_id().to_string())
    }

    fn causation_id(&mut self) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(self.event()?.causation_id().map(|id| id.to_string()))
    }

    fn stream(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.attempt.stream.to_string())
    }

    fn attribute(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(self.event()?.attribute(&name).map(str::to_owned))
    }

    fn envelope(&mut self) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        Ok(self.event()?.envelope().to_vec())
    }
}
