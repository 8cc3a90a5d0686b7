//! `tidemill demo`: a made-up shop's events through seven real plugins, with invalid, repeated and failing ones among
//! them; and at the end the question whether every event is accounted for.

mod account;
mod shop;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::demo::account::Account;
use super::demo::shop::{Shop, Truth};
use super::out;
use super::out::outln;
use super::table::{Table, thousands};
use super::{Globals, UsageError, run, status};
use tidemill_config::Config;
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_core::model::delivery::Subscription;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_runtime::observe::Meters;
use tidemill_runtime::pipeline::HostContext;
use tidemill_runtime::publisher::PUBLISH_BATCH;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_runtime::status::{collect, to_json, total};
use tidemill_runtime::{build, loading};
use tidemill_storage::{Backend, NewEntry};

/// Where the demo keeps its events unless told otherwise. It is recreated each time.
const DEMO_FILE: &str = "tidemill-demo.db";
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(super) struct Args {
    /// How many events the shop makes.
    #[arg(long, default_value_t = 20_000)]
    events: u64,

    /// The same seed makes the same events.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Run on this Redis instead of SQLite; its database must not hold the demo's streams yet.
    #[arg(long, value_name = "URL")]
    redis: Option<BackendUrl>,
}

/// How it went, for the closing table.
struct Run {
    truth: Truth,
    account: Account,
    took: Duration,
    context: Arc<HostContext>,
    backend: String,
}

pub(super) fn demo(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("error");
    let (mut config, checked) = globals.load_checked()?;
    config.backend.url = match &args.redis {
        Some(url) => url.clone(),
        None => fresh_file(&config)?.into(),
    };
    let plugins = build::plugins(&config, &checked).map_err(|error| globals.refused(error))?;
    let run = super::block_on(async {
        let backend = crate::backends::open_backend(&config).await?;
        let subscriptions: Vec<Subscription> =
            loading::subscriptions(&config).into_iter().map(|(subscription, _)| subscription).collect();
        refuse_used(&*backend, &config).await?;
        let host = build::host(&config, &checked, plugins, backend.clone())?;
        let context = host.context.clone();
        // The groups first: the counters count from their start.
        for (subscription, start) in loading::subscriptions(&config) {
            backend.ensure_group(&subscription, start).await?;
        }
        let (trigger, shutdown) = ShutdownTrigger::new();
        let trigger = Arc::new(trigger);
        run::stop_on_signal(trigger.clone())?;
        let begun = Instant::now();
        let host = tasks::once(Task::Demo, host.run(trigger.clone(), shutdown, false));
        let truth = fill(&*backend, args).await?;
        watch(&*backend, &subscriptions, &host).await?;
        let took = begun.elapsed();
        trigger.trigger();
        host.await.context("the host")??;
        let account = account::collect(&*backend, &subscriptions).await?;
        Ok(Run { truth, account, took, context, backend: backend.describe().await? })
    })?;
    Ok(report(args, globals, &config, &run))
}

/// Begins with an empty file.
fn fresh_file(config: &Config) -> anyhow::Result<String> {
    let path = config.path(DEMO_FILE.as_ref());
    for suffix in ["", "-wal", "-shm"] {
        let file = path.with_file_name(format!("{DEMO_FILE}{suffix}"));
        if file.exists() {
            std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
    }
    Ok(format!("sqlite:{DEMO_FILE}"))
}

/// The demo counts everything on its streams, so nothing may lie there yet; and it must not mix with real events.
async fn refuse_used(backend: &dyn Backend, config: &Config) -> anyhow::Result<()> {
    for stream in config.streams.keys() {
        if !backend.entries(stream, None, 1).await?.is_empty() {
            let hint = "use an empty database, for example redis://127.0.0.1:6379/9";
            return Err(UsageError(format!("stream \"{stream}\" holds events already\n  hint: {hint}")).into());
        }
    }
    Ok(())
}

/// Plays the shop's producers: plain appends, as any client may do them; validating is the host's business.
async fn fill(backend: &dyn Backend, args: &Args) -> anyhow::Result<Truth> {
    let mut shop = Shop::new(args.seed);
    let mut left = args.events;
    while left > 0 {
        let count = left.min(PUBLISH_BATCH as u64);
        left -= count;
        let mut by_stream = std::collections::BTreeMap::<&str, Vec<NewEntry>>::new();
        for _ in 0..count {
            let made = shop.make();
            by_stream.entry(made.stream).or_default().push(NewEntry { body: made.body, dedup_key: None });
        }
        for (stream, entries) in by_stream {
            backend.publish(stream, &entries).await?;
        }
    }
    Ok(shop.truth)
}

/// Shows the progress until the backlog is drained.
async fn watch<T>(
    backend: &dyn Backend,
    subscriptions: &[Subscription],
    host: &tokio::task::JoinHandle<T>,
) -> anyhow::Result<()> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} deliveries  {per_sec}  {msg}")?);
    loop {
        let rows = collect(backend, subscriptions).await?;
        let totals: Vec<_> = rows.values().map(|streams| total(streams)).collect();
        let (published, waiting) =
            totals.iter().fold((0, 0), |(p, w), total| (p + total.published, w + total.waiting()));
        bar.set_length(published);
        bar.set_position(published - waiting);
        let due: u64 = totals.iter().map(|total| total.due).sum();
        bar.set_message(if due > 0 { format!("{due} waiting for their retry") } else { String::new() });
        if waiting == 0 || host.is_finished() {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
}

fn report(args: &Args, globals: &Globals, config: &Config, run: &Run) -> ExitCode {
    let differences = account::differences(&run.truth, &run.account);
    if globals.json {
        let mut value = to_json(&run.backend, &run.account.rows, &[]);
        value["events"] = args.events.into();
        value["seed"] = args.seed.into();
        value["seconds"] = run.took.as_secs_f64().into();
        value["differences"] = json!(differences);
        out::json(&value);
    } else {
        print_report(args, config, run, &differences);
    }
    ExitCode::from(if differences.is_empty() { 0 } else { 1 })
}

fn print_report(args: &Args, config: &Config, run: &Run, differences: &[String]) {
    let truth = &run.truth;
    outln!("{} events (seed {}) on {}", thousands(args.events), args.seed, run.backend);
    outln!(
        "among them {} invalid, {} repeated, {} whose payment fails once and {} whose payment always fails",
        truth.invalid_users + truth.invalid_products + truth.invalid_orders,
        truth.repeated,
        truth.fail_once,
        truth.fail_always
    );
    outln!("");
    out::table(&status::to_table(&run.account.rows, &[]));
    outln!("");
    outln!("dead letters by reason");
    let mut table = Table::new(["handler", "reason", "count"]);
    for ((handler, class), count) in &run.account.dead {
        table.row([handler.clone(), class.to_string(), thousands(*count)]);
    }
    out::table(&table);
    print_times(run);
    if differences.is_empty() {
        outln!("");
        outln!("every event is accounted for: yes");
        let url = &config.backend.url;
        outln!("look around:");
        for command in ["status", "dead ls", "state inventory-service"] {
            outln!("  tidemill --backend {url} {command}");
        }
    } else {
        outln!("");
        outln!("every event is accounted for: NO");
        differences.iter().for_each(|difference| outln!("  {difference}"));
    }
}

fn print_times(run: &Run) {
    let deliveries: u64 = run.account.rows.values().map(|streams| total(streams).published).sum();
    let meters = &run.context.meters;
    outln!("");
    outln!("time        p50        p90        p99");
    for (what, meter) in
        [("plugin call", &meters.call_us), ("settlement", &meters.settle_us), ("whole batch", &meters.batch_us)]
    {
        let at = |quantile| micros(Meters::quantile(meter, quantile));
        outln!("{what:<12}{:<11}{:<11}{}", at(0.5), at(0.9), at(0.99));
    }
    let seconds = run.took.as_secs_f64();
    outln!("");
    outln!(
        "{} deliveries in {seconds:.1} s ({} a second), waiting for retries included",
        thousands(deliveries),
        thousands((deliveries as f64 / seconds) as u64)
    );
}

fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1000.0),
        _ => format!("{:.1} s", us as f64 / 1_000_000.0),
    }
}
