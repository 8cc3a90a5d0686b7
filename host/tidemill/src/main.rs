//! The command `tidemill`: parse, run, exit code. Plugins are compiled in child processes, which are this program too.

use std::process::ExitCode;

/// An event's parts are made on one thread and let go on another, which the system's allocator is slow at (decision 0022).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidemill_sandbox::component::compile_child::run_if_asked().unwrap_or_else(tidemill::cli::main)
}
