//! `tidemill plugin shadow HANDLER --plugin FILE`: what would be different with another version of a plugin.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::dead::unknown_handler;
use super::out;
use super::out::outln;
use super::{Globals, UsageError};
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::loading::Loader;
use tidemill_runtime::shadow::{Error, Shadow, ShadowReport};
use tidemill_runtime::{build, loading};
use tidemill_sandbox::engine;
use tidemill_sandbox::executor::io_pool::IoPool;

#[derive(clap::Args)]
pub(super) struct Args {
    handler: String,

    /// The candidate: a component.
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,

    /// How many of the newest entries of each stream to run.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    last: usize,

    /// Only this stream of the handler.
    #[arg(long)]
    stream: Option<String>,
}

/// 0: the same, 1: different, 2: refused.
pub(super) fn shadow(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let (mut config, checked) = globals.load_checked()?;
    let all: Vec<Subscription> =
        loading::subscriptions(&config).into_iter().map(|(subscription, _)| subscription).collect();
    let of_handler = all.iter().filter(|subscription| *subscription.handler == *args.handler);
    let is_wanted =
        |subscription: &&Subscription| args.stream.as_ref().is_none_or(|stream| *stream == *subscription.stream);
    let subscriptions: Vec<Subscription> = of_handler.clone().filter(is_wanted).cloned().collect();
    if subscriptions.is_empty() {
        let streams: Vec<&str> = of_handler.map(|subscription| &*subscription.stream).collect();
        return match (&args.stream, streams.is_empty()) {
            (Some(stream), false) => {
                let (handler, streams) = (&args.handler, streams.join(", "));
                Err(UsageError(format!("\"{handler}\" reads no stream \"{stream}\"\n  hint: it reads {streams}"))
                    .into())
            }
            _ => Err(unknown_handler(&args.handler, &all).into()),
        };
    }
    let refused = |error| globals.refused(build::Error::Plugins(vec![error]));
    let loader = Loader::new(&config).map_err(refused)?;
    let current = loader.load(&config, &checked, &args.handler).map_err(refused)?;
    // A file that is named on the command line lies where the command was typed.
    let file = std::env::current_dir()?.join(&args.plugin);
    config.handlers.entry(args.handler.clone()).and_modify(|handler| handler.plugin = file);
    let candidate = loader.load(&config, &checked, &args.handler).map_err(refused)?;
    let workers = IoPool::start("shadow", 1, engine::thread_stack_bytes(config.plugins.stack.as_u64() as usize))?;
    let shadow = Shadow { config: &config, checked: &checked, current, candidate, workers };
    let report = super::block_on(async {
        let backend = crate::backends::open_backend(&config).await?;
        shadow.run(&*backend, &subscriptions, args.last).await.map_err(|error| match error {
            Error::Outside { .. } | Error::State { .. } => UsageError(error.to_string()).into(),
            other => other.into(),
        })
    })?;
    print(&shadow, &report, globals.json);
    Ok(ExitCode::from(u8::from(report.different > 0)))
}

fn print(shadow: &Shadow<'_>, report: &ShadowReport, as_json: bool) {
    let ShadowReport { events, skipped, different, kinds, differences, .. } = report;
    let (current, candidate) = (&shadow.current.digest, &shadow.candidate.digest);
    let (current_median, candidate_median) = report.medians();
    let same = events - different;
    if as_json {
        let kinds: Map<String, Value> =
            kinds.iter().map(|(kind, count)| (kind.as_str().to_owned(), json!(count))).collect();
        let side = |digest: &str, median: std::time::Duration| json!({ "plugin": digest, "median_us": median.as_micros() as u64 });
        out::json(&json!({
            "handler": *shadow.current.handler, "current": side(current, current_median),
            "candidate": side(candidate, candidate_median), "events": events, "skipped": skipped, "same": same,
            "different": different, "by_kind": kinds, "differences": differences,
        }));
        return;
    }
    outln!("{events} events: {same} the same, {different} different; {skipped} entries skipped");
    for (kind, count) in kinds.iter().filter(|(_, count)| **count > 0) {
        outln!("  {} differs in {count}", kind.as_str());
    }
    outln!("median call: {current_median:?} ({current}), candidate {candidate_median:?} ({candidate})");
    for difference in differences {
        let text = |name: &str| difference[name].as_str().unwrap_or_default();
        outln!("");
        outln!("{} {} on {} {}", text("event_type"), text("event_id"), text("stream"), text("entry"));
        outln!("  current    {}", difference["current"]);
        outln!("  candidate  {}", difference["candidate"]);
    }
    if *different > differences.len() as u64 {
        outln!("");
        outln!("... and {} more", different - differences.len() as u64);
    }
}
