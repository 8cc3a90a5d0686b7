//! What toolchains import and no plugin gets anything from: arguments, variables, files, errors of files, and the end of
//! the process.

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtxView};
use wasmtime_wasi::p2::IoError;
use wasmtime_wasi::p2::bindings::cli::{environment, exit};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::sync::filesystem::types;

use crate::capability::context::Context;

impl environment::Host for Context {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.enter()?;
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        self.enter()?;
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(None)
    }
}

impl exit::Host for Context {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        self.enter()?;
        let status = if status.is_ok() { "ok" } else { "error" };
        Err(wasmtime::format_err!("it called wasi:cli/exit with {status}; a handler returns"))
    }

    fn exit_with_code(&mut self, code: u8) -> wasmtime::Result<()> {
        self.enter()?;
        Err(wasmtime::format_err!("it called wasi:cli/exit with code {code}; a handler returns"))
    }
}

impl Context {
    /// The library's files, without a folder to begin at: no function of theirs can be reached without a descriptor.
    fn files(&mut self) -> WasiFilesystemCtxView<'_> {
        let wasi = self.wasi();
        WasiFilesystemCtxView { ctx: &mut wasi.files, table: &mut wasi.table }
    }
}

pub(crate) fn link_types(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, WasiFilesystem>(linker, Context::files)
}

pub(crate) fn link_preopens(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<_, WasiFilesystem>(linker, Context::files)
}

/// No stream of ours fails, so there never is an error to look at.
pub(crate) fn link_error(linker: &mut Linker<Context>) -> wasmtime::Result<()> {
    let mut interface = linker.instance("wasi:io/error@0.2.0")?;
    interface.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    interface.func_wrap("[method]error.to-debug-string", |_, (_,): (Resource<IoError>,)| Ok((String::new(),)))
}
