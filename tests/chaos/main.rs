//! `chaos`: long runs that try the host, a subcommand each. Each names its seed first where it has one, and what went wrong
//! last; the exit code is 1 if something did.

mod bytes;
mod canary;
mod fuzz;
mod hostile;
mod reload;
mod soak;

use std::process::ExitCode;

use clap::Parser;

/// The host's own: what an input costs in memory is what it would cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "chaos", about = "Long runs that try the host")]
enum Run {
    /// Hosts at work, and everything that can happen to them.
    Soak(soak::Args),
    /// The corpus of hostile guests against a host at work.
    Hostile(hostile::Args),
    /// Byte bombs at the bounds against a host with little memory.
    Bytes(bytes::Args),
    /// Good inputs, changed at random, through the host's own functions.
    Fuzz(fuzz::Args),
    /// How soon a canary that fails is found out, and what it costs.
    Canary(canary::Args),
    /// A plugin is replaced again and again while events come in.
    Reload(reload::Args),
}

fn main() -> ExitCode {
    match Run::parse() {
        Run::Soak(args) => soak::main(&args),
        Run::Hostile(args) => hostile::main(&args),
        Run::Bytes(args) => bytes::main(&args),
        Run::Fuzz(args) => fuzz::main(&args),
        Run::Canary(args) => canary::main(&args),
        Run::Reload(args) => reload::main(&args),
    }
}
