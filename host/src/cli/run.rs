//! `tidemill run`: the host.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use super::Globals;
use crate::config::Config;
use crate::service::settings::{self, Control, Seen};
use crate::service::token::Token;
use crate::service::{Switch, build};
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
    let seen = Seen::of(&globals.config, &config);
    let plugins = build::plugins(&config, &checked).map_err(|error| globals.refused(error))?;
    super::block_on(async {
        let listener = match &config.http {
            Some(http) => {
                let listener = web::listen(http.listen).await?;
                make_token(&config);
                Some(listener)
            }
            None => None,
        };
        let backend = build::open_backend(&config).await?;
        let host = build::host(&config, &checked, plugins, backend.clone())?;
        let (switch, quiet) = Switch::new();
        let switch = Arc::new(switch);
        stop_on_signal(switch.clone())?;
        let (control, following) = Control::new(&host, globals.config.clone(), seen, globals.reader());
        reload_on_signal(control.clone())?;
        if let Some(listener) = listener {
            tokio::spawn(web::serve(listener, backend, control.clone(), quiet.clone()));
        }
        if !args.until_idle {
            tokio::spawn(control.clone().watch(quiet.clone()));
        }
        settings::run(host, control, following, switch, quiet, args.until_idle).await.context("the host ended")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Without a token that it can use the host works all the same, and does nothing over HTTP that needs one.
fn make_token(config: &Config) {
    let file = config.token_file();
    match Token::make(&file) {
        Ok(true) => tracing::info!(file = %file.display(), "a token for the API was made"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the API takes no requests that need a token"),
    }
}

/// SIGHUP: the settings are read again, and every plugin with them.
fn reload_on_signal(control: Arc<Control>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // A refusal is logged where it is found.
            let _ = control.reload().await;
        }
    });
    Ok(())
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
