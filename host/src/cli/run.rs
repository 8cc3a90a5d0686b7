//! `tidemill run`: the host.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use super::Globals;
use crate::service::{Quiet, Switch, build};
use crate::web;

#[derive(clap::Args)]
pub struct Args {
    /// Leave with 0 when nothing is left to do, waiting retries included.
    #[arg(long)]
    until_idle: bool,
}

pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("info");
    let (config, checked) = globals.load_checked()?;
    globals.warn(&checked);
    let plugins = build::plugins(&config, &checked).map_err(|error| globals.refused(error))?;
    super::block_on(async {
        let listener = match &config.http {
            Some(http) => Some(web::listen(http.listen).await?),
            None => None,
        };
        let backend = build::open_backend(&config).await?;
        let host = build::host(&config, &checked, plugins, backend.clone())?;
        let (switch, quiet) = Switch::new();
        let switch = Arc::new(switch);
        stop_on_signal(switch.clone())?;
        if let Some(listener) = listener {
            let sources = build::sources(&config).into_iter().map(|(source, _)| source).collect();
            tokio::spawn(web::serve(listener, backend, sources, quiet.clone()));
        }
        until_stopped(host, switch, quiet, args.until_idle).await
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn until_stopped(
    host: crate::service::Host,
    switch: Arc<Switch>,
    quiet: Quiet,
    until_idle: bool,
) -> anyhow::Result<()> {
    host.run(switch, quiet, until_idle).await.context("the host ended")
}

/// The first signal stops fetching and lets what is in hand be settled; the second one ends at once. Nothing is lost
/// by that: what was not settled is still pending.
pub fn stop_on_signal(switch: Arc<Switch>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            if first {
                tracing::info!("stopping: finishing what is in hand; a second signal ends at once");
                switch.quiet();
            } else {
                std::process::exit(1);
            }
        }
    });
    Ok(())
}
