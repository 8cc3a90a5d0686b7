//! `tidemill run`: the host.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Globals;
use tidemill_config::Config;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_runtime::build;
use tidemill_runtime::observe::log_writer;
use tidemill_runtime::reload::settings;
use tidemill_runtime::reload::settings::{Control, FileDigests};
use tidemill_runtime::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_runtime::token::Token;
use tidemill_server::{self as server, Door};

/// Its number on Linux and on macOS.
const SIGXFSZ: i32 = 25;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Exit 0 once the backlog, including scheduled retries, is drained.
    #[arg(long)]
    until_idle: bool,
}

pub(super) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("info");
    super::block_on(async {
        // Signals first: from here on they mean what the guide says, however long the start takes.
        let (trigger, shutdown) = ShutdownTrigger::new();
        let trigger = Arc::new(trigger);
        stop_on_signal(trigger.clone())?;
        // A file that may not grow any more (ulimit -f) fails a write, and does not end the host. No task listens.
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        let hangups = signal(SignalKind::hangup())?;
        serve(args.until_idle, globals, trigger, shutdown, hangups).await
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

async fn serve(
    until_idle: bool,
    globals: &Globals,
    trigger: Arc<ShutdownTrigger>,
    mut shutdown: Shutdown,
    hangups: Signal,
) -> anyhow::Result<()> {
    let (config, checked) = globals.load_checked()?;
    globals.warn(&checked);
    let seen = FileDigests::of(&globals.config, &config);
    // First of all: plugins may take minutes to compile, and no supervisor is to end a host that does that.
    let door = Door::default();
    if let Some(http) = &config.http {
        let listener = server::listen(http.listen).await?;
        make_token(&config);
        let mut served = Some(server::serve(listener, door.clone(), shutdown.clone()));
        // It cannot be restarted: without it the host ends.
        tasks::serve(Task::Http, move || {
            let served = served.take();
            async move { served.unwrap_or_else(|| tasks::die()).await }
        });
    }
    let loading = {
        let (config, checked) = (config.clone(), checked.clone());
        tasks::blocking(Task::Load, move || build::plugins(&config, &checked))
    };
    let plugins = tokio::select! {
        loaded = loading => loaded.context("loading the plugins")?.map_err(|error| globals.refused(error))?,
        () = shutdown.wait() => return Ok(()),
    };
    let Some(backend) = crate::backends::open_backend_for_host(&config, shutdown.clone()).await? else { return Ok(()) };
    let host = build::host(&config, &checked, plugins, backend.clone())?;
    let (control, following) = Control::new(&host, globals.config.clone(), seen, globals.reader());
    reload_on_signal(control.clone(), hangups);
    door.open(backend, control.clone());
    if !until_idle {
        let (control, shutdown) = (control.clone(), shutdown.clone());
        tasks::serve(Task::Files, move || control.clone().watch(shutdown.clone()));
    }
    settings::run(host, control, following, trigger, shutdown, until_idle).await.context("the host ended")
}

/// SIGHUP: the settings are read again, and every plugin with them; also for one that came during the start.
fn reload_on_signal(control: Arc<Control>, hangups: Signal) {
    let mut first = Some(hangups);
    tasks::serve(Task::Hangup, move || {
        let (control, first) = (control.clone(), first.take());
        async move {
            // The system's handler is there, so there is no error.
            let Some(mut hangups) = first.or_else(|| signal(SignalKind::hangup()).ok()) else { return };
            while hangups.recv().await.is_some() {
                // A refusal is logged where it is found.
                let _ = control.reload().await;
            }
        }
    });
}

/// The first signal stops fetching and drains in-flight deliveries; the second one exits at once. Nothing is lost by
/// that: what was not settled is still pending.
pub(crate) fn stop_on_signal(trigger: Arc<ShutdownTrigger>) -> std::io::Result<()> {
    let mut signals = Some((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    tasks::serve(Task::Signals, move || {
        let (signals, trigger) = (signals.take(), trigger.clone());
        async move {
            let (mut interrupt, mut terminate) = signals.unwrap_or_else(|| tasks::die());
            for first in [true, false] {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if first {
                    tracing::info!("shutting down: draining in-flight batches; a second signal exits immediately");
                    trigger.trigger();
                } else {
                    log_writer::flush();
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(())
}
