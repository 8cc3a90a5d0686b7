//! stub to be replaced below
use std::process::ExitCode;
#[derive(clap::Args)]
pub struct Args {
    folder: Option<std::path::PathBuf>,
}
pub fn init(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
