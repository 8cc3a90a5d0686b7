//! The command `tidemill`: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::cli::main()
}
