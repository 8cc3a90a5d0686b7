//! `tidemill plugin pause` and `plugin resume`: pauses or resumes consumption for a handler on all hosts; also where
//! its group was lost, and an operator has to say where to begin.

use std::process::ExitCode;

use serde_json::json;

use super::dead::{act_of, unknown_handler};
use super::out;
use super::out::outln;
use super::{Globals, UsageError};
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::loading;
use tidemill_storage::{Group, Operator, Position, Start};

#[derive(clap::Args)]
pub(super) struct Args {
    handler: String,

    /// Why, for the audit record (`dead audit`).
    #[arg(long, default_value = "")]
    note: String,
}

#[derive(clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pause: Args,

    /// Where to begin, if the handler's group was lost: `beginning`, `now` (what lies there already is left out), or the id of
    /// the last entry that is not to be handled again.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    from: Option<Position>,

    /// Only on this stream.
    #[arg(long)]
    stream: Option<String>,
}

fn place(text: &str) -> Result<Position, String> {
    match text {
        "beginning" => Ok(Position::Beginning),
        "now" => Ok(Position::Now),
        id => id
            .parse()
            .map(Position::After)
            .map_err(|_| format!("\"{id}\" is neither `beginning` nor `now` nor an entry's id")),
    }
}

pub(super) fn pause(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    set(args, true, None, None, globals)
}

pub(crate) fn resume(args: &ResumeArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    set(&args.pause, false, args.from, args.stream.as_deref(), globals)
}

fn set(
    args: &Args,
    paused: bool,
    from: Option<Position>,
    stream: Option<&str>,
    globals: &Globals,
) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let all = loading::subscriptions(&config);
    let is_wanted = |subscription: &Subscription| stream.is_none_or(|stream| *subscription.stream == *stream);
    let wanted: Vec<&(Subscription, Start)> = all
        .iter()
        .filter(|(subscription, _)| *subscription.handler == *args.handler && is_wanted(subscription))
        .collect();
    if wanted.is_empty() {
        if let Some(stream) =
            stream.filter(|_| all.iter().any(|(subscription, _)| *subscription.handler == *args.handler))
        {
            return Err(UsageError(format!(
                "{} does not read {stream}\n  hint: see `tidemill status --json`",
                args.handler
            ))
            .into());
        }
        let all: Vec<Subscription> = all.into_iter().map(|(subscription, _)| subscription).collect();
        return Err(unknown_handler(&args.handler, &all).into());
    }
    super::block_on(async {
        let backend = crate::backends::open_backend(&config).await?;
        let act = act_of(args.note.clone());
        // A handler can be paused before it has ever run.
        let mut lost = Vec::new();
        for (subscription, start) in &wanted {
            if backend.ensure_group(subscription, *start).await? == Group::Lost {
                lost.push(subscription);
            }
        }
        refuse_unclear(&args.handler, paused, from, &lost)?;
        for (subscription, _) in wanted {
            let mut begun = "";
            if let Some(place) = from.filter(|_| lost.contains(&subscription)) {
                backend
                    .begin_at(subscription, place, &Operator { reason: begins(&act.reason, place), ..act.clone() })
                    .await?;
                begun = ", and begins where you said";
            }
            if !lost.contains(&subscription) || from.is_some() {
                backend.set_paused(subscription, paused, &act).await?;
            }
            if globals.json {
                out::json(
                    &json!({ "handler": *subscription.handler, "stream": *subscription.stream, "paused": paused }),
                );
            } else {
                outln!("{subscription}: {}{begun}", if paused { "paused" } else { "resumed" });
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// For the audit record.
fn begins(note: &str, place: Position) -> String {
    let from = match place {
        Position::Beginning => "from the beginning".to_owned(),
        Position::Now => "from now on".to_owned(),
        Position::After(id) => format!("from behind {id}"),
    };
    if note.is_empty() { from } else { format!("{from}: {note}") }
}

/// Where to begin is asked where that is not known, and nowhere else.
fn refuse_unclear(
    handler: &str,
    paused: bool,
    from: Option<Position>,
    lost: &[&Subscription],
) -> Result<(), UsageError> {
    let names = || lost.iter().map(|subscription| &*subscription.stream).collect::<Vec<_>>().join(", ");
    match from {
        None if !paused && !lost.is_empty() => Err(UsageError(format!(
            "{handler} has lost its group on {}, and its position is unknown\n  hint: say where to begin: --from \
             beginning (what was handled longer ago than idempotency.window is handled again), --from now (what lies \
             there is left out), or --from ID, the last entry that was handled",
            names()
        ))),
        Some(_) if lost.is_empty() => Err(UsageError(format!(
            "{handler} has its group, and goes on where it is\n  hint: --from is for a handler whose group was lost; resume it \
             without"
        ))),
        Some(Position::After(_)) if lost.len() > 1 => Err(UsageError(format!(
            "an entry's id is of one stream, and {handler} has lost its group on {}\n  hint: say which with --stream",
            names()
        ))),
        _ => Ok(()),
    }
}
