//! `tidemill completions SHELL`

use std::process::ExitCode;

use clap::CommandFactory;

#[derive(clap::Args)]
pub(super) struct Args {
    shell: clap_complete::Shell,
}

pub(crate) fn completions(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "tidemill", &mut script);
    super::out::exact(&script);
    Ok(ExitCode::SUCCESS)
}
