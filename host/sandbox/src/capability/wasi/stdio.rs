//! `wasi:cli/std*` and `wasi:io/streams`: what a guest prints becomes lines of its attempt's log, under the bounds of the
//! log. There is nothing to read. No stream ever makes a guest wait.

use std::time::Instant;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::cli::{
    stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin, terminal_stdout,
};
use wasmtime_wasi::p2::bindings::sync::io::streams;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};

use crate::abi::latest::tidemill::plugin::logging::Level;
use crate::capability::context::{Context, bytes_of};
use crate::capability::meter::Stop;
use tidemill_core::model::outcome::Crash;

/// What names the streams: an output's number is its place in `Wasi::lines`.
const STDOUT: u32 = 0;
const STDERR: u32 = 1;
const STDIN: u32 = 2;

/// What a guest is told that it may write at once.
const PERMIT_BYTES: u64 = 64 << 10;

impl stdin::Host for Context {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        self.enter()?;
        self.hand_out().map(|()| Resource::new_own(STDIN))
    }
}

impl stdout::Host for Context {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.enter()?;
        self.hand_out().map(|()| Resource::new_own(STDOUT))
    }
}

impl stderr::Host for Context {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.enter()?;
        self.hand_out().map(|()| Resource::new_own(STDERR))
    }
}

impl streams::Host for Context {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        self.enter()?;
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::LastOperationFailed(error) | StreamError::Trap(error) => Err(error),
        }
    }
}

impl streams::HostInputStream for Context {
    fn read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        self.enter().map_err(StreamError::Trap)?;
        Err(StreamError::Closed)
    }

    fn blocking_read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        self.enter().map_err(StreamError::Trap)?;
        Err(StreamError::Closed)
    }

    fn skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        self.enter().map_err(StreamError::Trap)?;
        Err(StreamError::Closed)
    }

    fn blocking_skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        self.enter().map_err(StreamError::Trap)?;
        Err(StreamError::Closed)
    }

    fn subscribe(&mut self, _: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.enter()?;
        self.pollable(Some(Instant::now()))
    }

    fn drop(&mut self, _: Resource<DynInputStream>) -> wasmtime::Result<()> {
        self.enter()?;
        self.take_back()
    }
}

impl streams::HostOutputStream for Context {
    fn check_write(&mut self, _: Resource<DynOutputStream>) -> StreamResult<u64> {
        self.enter().map_err(StreamError::Trap)?;
        Ok(PERMIT_BYTES)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.enter().map_err(StreamError::Trap)?;
        self.print(stream.rep(), &bytes);
        Ok(())
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.enter().map_err(StreamError::Trap)?;
        self.write(stream, bytes)
    }

    fn flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        self.enter().map_err(StreamError::Trap)?;
        Ok(())
    }

    fn blocking_flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        self.enter().map_err(StreamError::Trap)?;
        Ok(())
    }

    fn subscribe(&mut self, _: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.enter()?;
        self.pollable(Some(Instant::now()))
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        self.enter().map_err(StreamError::Trap)?;
        if len > PERMIT_BYTES {
            let reason = format!("wasi:io/streams: {len} zeroes at once; at most {PERMIT_BYTES} may be written");
            return Err(StreamError::Trap(Stop { crash: Crash::WasiBytes, reason }.into()));
        }
        self.write(stream, vec![0; usize::try_from(len).unwrap_or(0)])
    }

    fn blocking_write_zeroes_and_flush(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        self.enter().map_err(StreamError::Trap)?;
        self.write_zeroes(stream, len)
    }

    /// From standard input, which is at its end.
    fn splice(&mut self, _: Resource<DynOutputStream>, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        self.enter().map_err(StreamError::Trap)?;
        Err(StreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        self.enter().map_err(StreamError::Trap)?;
        Err(StreamError::Closed)
    }

    fn drop(&mut self, _: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        self.enter()?;
        self.take_back()
    }
}

/// No stream is a terminal, so none of these is ever handed out.
impl terminal_input::Host for Context {}
impl terminal_output::Host for Context {}

impl terminal_input::HostTerminalInput for Context {
    fn drop(&mut self, _: Resource<terminal_input::TerminalInput>) -> wasmtime::Result<()> {
        self.enter()?;
        Ok(())
    }
}

impl terminal_output::HostTerminalOutput for Context {
    fn drop(&mut self, _: Resource<terminal_output::TerminalOutput>) -> wasmtime::Result<()> {
        self.enter()?;
        Ok(())
    }
}

impl terminal_stdin::Host for Context {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<terminal_input::TerminalInput>>> {
        self.enter()?;
        Ok(None)
    }
}

impl terminal_stdout::Host for Context {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        self.enter()?;
        Ok(None)
    }
}

impl terminal_stderr::Host for Context {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        self.enter()?;
        Ok(None)
    }
}

impl Context {
    fn hand_out(&mut self) -> wasmtime::Result<()> {
        let wasi = self.wasi();
        wasi.room_for_a_handle()?;
        wasi.streams += 1;
        Ok(())
    }

    fn take_back(&mut self) -> wasmtime::Result<()> {
        self.wasi().streams -= 1;
        Ok(())
    }

    fn print(&mut self, stream: u32, bytes: &[u8]) {
        // One byte more than a line may have, so that the log sees that it has to truncate.
        let max = bytes_of(self.terms.limits.log_bytes) + 1;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.log_is_full() {
                return;
            }
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let line = &mut self.wasi().lines[stream as usize];
            let room = max.saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < part.len() {
                self.end_line(stream);
            }
        }
    }

    fn end_line(&mut self, stream: u32) {
        let line = std::mem::take(&mut self.wasi().lines[stream as usize]);
        let level = if stream == STDERR { Level::Warn } else { Level::Info };
        self.say(level, String::from_utf8_lossy(&line).into_owned());
    }

    /// At the end of an attempt: what was printed without an end of line is a line too.
    pub(crate) fn flush_stdio(&mut self) {
        if self.wasi.is_none() {
            return;
        }
        for stream in [STDOUT, STDERR] {
            if !self.wasi().lines[stream as usize].is_empty() {
                self.end_line(stream);
            }
        }
    }
}
