//! `tidemill dead ...`: dead letters looked at, replayed, edited, dropped, exported; and the record of who did that.

mod act;
mod audit;
mod edit;
mod ls;
pub(crate) mod select;
mod show;

use std::process::ExitCode;

use super::Globals;
pub(super) use select::unknown_handler;
use select::{Filter, Selection};
use tidemill_config::Config;
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::{build, loading};
use tidemill_storage::{Backend, Operator};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List dead letters in groups that died of the same cause, the largest first; letter by letter with --flat or ids.
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// Letter by letter, oldest first.
        #[arg(long)]
        flat: bool,
        /// Show at most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one dead letter: reason, attempts, exact bytes.
    Show {
        /// As `ls` prints it, for example payment-service/order-events/1700000000000-0
        id: String,
    },
    /// Redeliver dead letters to their own handler.
    Replay {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        consent: act::Consent,
        /// Letters a second; 0: as fast as it goes.
        #[arg(long, default_value_t = 100, value_name = "N")]
        rate: u32,
    },
    /// Replay one dead letter with another event in its place. Off unless [dead_letters] edit = true.
    Edit(edit::Args),
    /// Remove dead letters for good.
    Drop {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        consent: act::Consent,
    },
    /// Print whole dead letters, one JSON document a line.
    Export {
        #[command(flatten)]
        filter: Filter,
    },
    /// List what people did: replayed, edited, dropped, paused, resumed.
    Audit {
        /// Of this handler.
        #[arg(long)]
        handler: Option<String>,
    },
}

pub(super) fn dead(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    super::block_on(async {
        let backend = match &command {
            Command::Ls { .. } | Command::Show { .. } | Command::Export { .. } | Command::Audit { .. } => {
                crate::backends::open_backend_to_read(&config).await?
            }
            Command::Replay { .. } | Command::Edit(_) | Command::Drop { .. } => {
                crate::backends::open_backend(&config).await?
            }
        };
        run(command, &config, &*backend, globals).await
    })
}

async fn run(command: Command, config: &Config, backend: &dyn Backend, globals: &Globals) -> anyhow::Result<ExitCode> {
    let subscriptions: Vec<Subscription> =
        loading::subscriptions(config).into_iter().map(|(subscription, _)| subscription).collect();
    let as_json = globals.json;
    match command {
        Command::Ls { filter, flat, limit } => {
            let selection = Selection::of(&filter, &subscriptions)?;
            if flat || selection.is_of_ids() {
                ls::flat(backend, &selection, limit, as_json).await
            } else {
                ls::groups(backend, &selection, limit, as_json).await
            }
        }
        Command::Show { id } => show::show(backend, &subscriptions, &id, as_json).await,
        Command::Replay { filter, consent, rate } => {
            let deed = act::DeadLetterOp::Replay { rate };
            act::act(backend, &Selection::of(&filter, &subscriptions)?, deed, &consent, as_json).await
        }
        Command::Edit(args) => edit::edit(backend, config, globals, &subscriptions, &args).await,
        Command::Drop { filter, consent } => {
            act::act(backend, &Selection::of(&filter, &subscriptions)?, act::DeadLetterOp::Drop, &consent, as_json)
                .await
        }
        Command::Export { filter } => show::export(backend, &Selection::of(&filter, &subscriptions)?).await,
        Command::Audit { handler } => {
            let filter = Filter { handler, ..Filter::default() };
            audit::audit(backend, Selection::of(&filter, &subscriptions)?.subscriptions(), as_json).await
        }
    }
}

/// Who does this: for the audit record.
pub(crate) fn act_of(note: String) -> Operator {
    let user =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    Operator { name: format!("{}@{}", user.as_deref().unwrap_or("unknown"), build::host_name()), reason: note }
}

/// Unix milliseconds as RFC 3339, to the second.
fn time(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map(|time| format!("{time:.0}")).unwrap_or_default()
}
