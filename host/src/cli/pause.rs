//! `tidemill plugin pause` and `plugin resume`: stops the fetching of a handler on every host, or lets it go on.

use std::process::ExitCode;

use serde_json::json;

use super::Globals;
use super::dead::{act_of, unknown_handler};
use super::out::{self, outln};
use crate::backend::Start;
use crate::model::delivery::Source;
use crate::service::build;

#[derive(clap::Args)]
pub struct Args {
    handler: String,

    /// Why, for the audit record (`dead audit`).
    #[arg(long, default_value = "")]
    note: String,
}

pub fn set(args: &Args, paused: bool, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let all = build::sources(&config);
    let wanted: Vec<&(Source, Start)> = all.iter().filter(|(source, _)| *source.handler == *args.handler).collect();
    if wanted.is_empty() {
        let all: Vec<Source> = all.into_iter().map(|(source, _)| source).collect();
        return Err(unknown_handler(&args.handler, &all).into());
    }
    super::block_on(async {
        let backend = build::open_backend(&config).await?;
        let act = act_of(args.note.clone());
        for (source, start) in wanted {
            // A handler can be paused before it has ever run.
            backend.ensure_group(source, *start).await?;
            backend.set_paused(source, paused, &act).await?;
            if globals.json {
                out::json(&json!({ "handler": *source.handler, "stream": *source.stream, "paused": paused }));
            } else {
                outln!("{source}: {}", if paused { "paused" } else { "resumed" });
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
