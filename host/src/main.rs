//! The command `tidemill`: parse, run, exit code. Plugins are compiled in child processes, which are this program too.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::plugin::child::run_if_asked().unwrap_or_else(tidemill::cli::main)
}
