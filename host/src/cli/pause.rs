//! `tidemill plugin pause` and `plugin resume`: stops the fetching of a handler on every host, or lets it go on; also where
//! its group was lost, and a person has to say where to begin.

use std::process::ExitCode;

use serde_json::json;

use super::dead::{act_of, unknown_handler};
use super::{Globals, Refused};
use crate::backend::{Act, Group, Place, Start};
use crate::model::delivery::Source;
use crate::service::build;

#[derive(clap::Args)]
pub struct Args {
    handler: String,

    /// Why, for the audit record (`dead audit`).
    #[arg(long, default_value = "")]
    note: String,
}

#[derive(clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    pause: Args,

    /// Where to begin, if the handler's group was lost: `beginning`, `now` (what lies there already is left out), or the id of
    /// the last entry that is not to be handled again.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    from: Option<Place>,

    /// Only on this stream.
    #[arg(long)]
    stream: Option<String>,
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "beginning" => Ok(Place::Beginning),
        "now" => Ok(Place::Now),
        id => id
            .parse()
            .map(Place::After)
            .map_err(|_| format!("\"{id}\" is neither `beginning` nor `now` nor an entry's id")),
    }
}

pub fn pause(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    set(args, true, None, None, globals)
}

pub fn resume(args: &ResumeArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    set(&args.pause, false, args.from, args.stream.as_deref(), globals)
}

fn set(
    args: &Args,
    paused: bool,
    from: Option<Place>,
    stream: Option<&str>,
    globals: &Globals,
) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let all = build::sources(&config);
    let is_wanted = |source: &Source| stream.is_none_or(|stream| *source.stream == *stream);
    let wanted: Vec<&(Source, Start)> =
        all.iter().filter(|(source, _)| *source.handler == *args.handler && is_wanted(source)).collect();
    if wanted.is_empty() {
        if let Some(stream) = stream.filter(|_| all.iter().any(|(source, _)| *source.handler == *args.handler)) {
            return Err(Refused(format!(
                "{} does not read {stream}\n  hint: see `tidemill status --json`",
                args.handler
            ))
            .into());
        }
        let all: Vec<Source> = all.into_iter().map(|(source, _)| source).collect();
        return Err(unknown_handler(&args.handler, &all).into());
    }
    super::block_on(async {
        let backend = build::open_backend(&config).await?;
        let act = act_of(args.note.clone());
        // A handler can be paused before it has ever run.
        let mut lost = Vec::new();
        for (source, start) in &wanted {
            if backend.ensure_group(source, *start).await? == Group::Lost {
                lost.push(source);
            }
        }
        refuse_unclear(&args.handler, paused, from, &lost)?;
        for (source, _) in wanted {
            let mut begun = "";
            if let Some(place) = from.filter(|_| lost.contains(&source)) {
                backend.begin_at(source, place, &Act { note: begins(&act.note, place), ..act.clone() }).await?;
                begun = ", and begins where you said";
            }
            if !lost.contains(&source) || from.is_some() {
                backend.set_paused(source, paused, &act).await?;
            }
            if globals.json {
                println!("{}", json!({ "handler": *source.handler, "stream": *source.stream, "paused": paused }));
            } else {
                println!("{source}: {}{begun}", if paused { "paused" } else { "resumed" });
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// For the audit record.
fn begins(note: &str, place: Place) -> String {
    let from = match place {
        Place::Beginning => "from the beginning".to_owned(),
        Place::Now => "from now on".to_owned(),
        Place::After(id) => format!("from behind {id}"),
    };
    if note.is_empty() { from } else { format!("{from}: {note}") }
}

/// Where to begin is asked where that is not known, and nowhere else.
fn refuse_unclear(handler: &str, paused: bool, from: Option<Place>, lost: &[&Source]) -> Result<(), Refused> {
    let names = || lost.iter().map(|source| &*source.stream).collect::<Vec<_>>().join(", ");
    match from {
        None if !paused && !lost.is_empty() => Err(Refused(format!(
            "{handler} has lost its group on {}, and nobody knows where it was\n  hint: say where to begin: --from beginning (what \
             was handled longer ago than idempotency.window is handled again), --from now (what lies there is left out), or \
             --from ID, the last entry that was handled",
            names()
        ))),
        Some(_) if lost.is_empty() => Err(Refused(format!(
            "{handler} has its group, and goes on where it is\n  hint: --from is for a handler whose group was lost; resume it \
             without"
        ))),
        Some(Place::After(_)) if lost.len() > 1 => Err(Refused(format!(
            "an entry's id is of one stream, and {handler} has lost its group on {}\n  hint: say which with --stream",
            names()
        ))),
        _ => Ok(()),
    }
}
