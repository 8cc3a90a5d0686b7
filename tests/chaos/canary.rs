//! `canary`: how soon is a canary found out that fails one event in five, and what does it cost? Runs with a backlog of
//! events; for each it tells how many met the canary before the rollback, how many of those failed, and how long it took.
//!
//! The last line says `lost: N`, events that did not take effect exactly once; the exit code is 1 if N > 0, or if a canary
//! that fails was not rolled back.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tidemill_testkit::beside::{self, Trial};
use tidemill_testkit::server::RedisServer;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Events in each run, on as many keys.
    #[arg(long, default_value_t = 5000)]
    events: usize,
    #[arg(long, default_value_t = 0.1)]
    share: f64,
    /// What the canary is: `some` fails one event in five; `fail`, `trap`, `deny`, `slow`, `same`.
    #[arg(long, default_value = "some")]
    edition: String,
    /// redis or sqlite.
    #[arg(long, value_parser = ["redis", "sqlite"], default_value = "redis")]
    backend: String,
    /// JSON Lines: one document a run.
    #[arg(long)]
    json: bool,
}

struct Figures {
    rolled_back: bool,
    /// Events that met the canary, and of those the ones that it failed.
    exposed: u64,
    failed: u32,
    ended: Option<Duration>,
    lost: u64,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut lost, mut missed) = (0, 0);
    for number in 1..=args.runs {
        let figures = runtime.block_on(measure(args));
        print(args, number, &figures);
        lost += figures.lost;
        missed += u32::from(!figures.rolled_back && args.edition != "same");
    }
    if missed > 0 {
        eprintln!("{missed} of {} canaries were not rolled back", args.runs);
    }
    println!("lost: {lost}");
    if lost > 0 || missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn measure(args: &Args) -> Figures {
    let url = if args.backend == "redis" { RedisServer::shared().url() } else { "sqlite::memory:".to_owned() };
    let retry = r#"retry = { max = 1, base = "10ms", factor = 1, cap = "10ms" }"#;
    let world = beside::world(&url, &format!("canary = {{ share = {:?} }}\n{retry}", args.share)).await;
    // Other keys in each run, so that other events meet the canary.
    let name = format!("{:x}-", rand::random::<u32>());
    beside::ask_on(&world, args.events, args.events, &name).await;
    let trial: Trial = beside::run(&world, &args.edition).await;
    let status = world.status().await;
    let emitted = world.emitted_count().await;
    let events = args.events as u64;
    Figures {
        rolled_back: trial.rolled_back(),
        exposed: trial.facts.canary.calls,
        failed: trial.facts.canary.bad,
        ended: trial.ended,
        lost: events.abs_diff(status.committed).max(events.abs_diff(emitted)) + status.dead,
    }
}

fn print(args: &Args, number: u32, figures: &Figures) {
    let Figures { rolled_back, exposed, failed, ended, lost } = figures;
    let share = *exposed as f64 / args.events as f64;
    let ended_ms = ended.map(|time| time.as_secs_f64() * 1000.0);
    if args.json {
        println!(
            "{}",
            json!({
                "run": number, "backend": args.backend, "edition": args.edition, "share": args.share,
                "events": args.events, "rolled_back": rolled_back, "exposed": exposed, "exposed_share": share,
                "failed": failed, "ended_ms": ended_ms, "lost": lost,
            })
        );
        return;
    }
    let end = if *rolled_back { "rolled back" } else { "not rolled back" };
    let time = ended_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    println!(
        "run {number}: {end} after {time}; {exposed} of {} events met it ({:.2} %), {failed} failed on it, lost: {lost}",
        args.events,
        share * 100.0
    );
}
