//! `tidemill doctor`: whether everything that Tidemill rests on is as it has to be, and what to do where it is not.
//! Exit codes: 0 good or warnings only, 1 if anything is bad.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Globals;
use super::out;
use super::out::outln;
use tidemill_config::{Config, check};
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::agreement::Wanted;
use tidemill_runtime::status;
use tidemill_runtime::status::told;
use tidemill_runtime::{build, heartbeat, loading};
use tidemill_storage::{Backend, Error, Finding, Level, Pause, SubscriptionStatus, Wish, finding};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Also read the whole SQLite file and look for damage; takes its time on a large one.
    #[arg(long)]
    deep: bool,
}

pub(super) fn doctor(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("error");
    let config = globals.load()?;
    let mut found = configured(&config);
    found.extend(super::block_on(async { Ok(examined(args, &config).await?) })?);
    if globals.json {
        out::json(&to_json(&found));
    } else {
        print(&found);
    }
    let bad = found.iter().any(|finding| finding.level == Level::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What needs only the file.
fn configured(config: &Config) -> Vec<Finding> {
    let of = |found: check::ConfigFinding| {
        let text = format!("{}: {}", found.key, found.what);
        if found.warning {
            finding::warning("configuration", text, found.hint)
        } else {
            finding::bad("configuration", text, found.hint)
        }
    };
    match build::check(config) {
        Ok(checked) if checked.warnings.is_empty() => {
            let (streams, handlers) = (config.streams.len(), config.handlers.len());
            vec![finding::good("configuration", format!("{handlers} handlers, {streams} streams"))]
        }
        Ok(checked) => checked.warnings.into_iter().map(of).collect(),
        Err(build::Error::Config(wrong)) => wrong.into_iter().map(of).collect(),
        Err(other) => vec![refused("configuration", &other.to_string())],
    }
}

async fn examined(args: &Args, config: &Config) -> Result<Vec<Finding>, Error> {
    let subscriptions: Vec<Subscription> =
        loading::subscriptions(config).into_iter().map(|(subscription, _)| subscription).collect();
    let mut found = match crate::backends::open_backend_to_read(config).await {
        Ok(backend) => match backend.diagnose(&subscriptions, &loading::targets(config)).await {
            Ok(mut found) => {
                found.extend(kept(&*backend, &subscriptions).await);
                found.extend(groups(&*backend, config, &subscriptions).await);
                found
            }
            Err(error) => vec![away(&error, config)],
        },
        // What refuses a host to start is the first thing to mend; more cannot be seen before.
        Err(error) => vec![away(&error, config)],
    };
    if args.deep {
        found.extend(crate::backends::diagnose_deeply(&config.backend_url()).await?);
    }
    Ok(found)
}

/// What live hosts keep because the backend refuses to settle it.
async fn kept(backend: &dyn Backend, subscriptions: &[Subscription]) -> Vec<Finding> {
    let hosts = match heartbeat::hosts(backend, subscriptions).await {
        Ok(hosts) => hosts,
        Err(error) => return vec![refused("refused", &error.to_string())],
    };
    let handlers: BTreeSet<&Arc<str>> = subscriptions.iter().map(|subscription| &subscription.handler).collect();
    let finding = |handler: &Arc<str>| {
        let told = told(&hosts, handler);
        let (text, hint) =
            told.refusal.split_once("\n  hint: ").unwrap_or((&told.refusal, "look at the log of the host"));
        let text =
            format!("{handler}: hosts keep {} deliveries that the backend refuses to settle: {text}", told.refused);
        (told.refused > 0).then(|| finding::bad("refused", text, hint))
    };
    handlers.into_iter().filter_map(finding).collect()
}

/// A backend that cannot be asked.
fn away(error: &Error, config: &Config) -> Finding {
    match error {
        Error::Unavailable { .. } if config.backend_url().sqlite_file().is_some() => finding::bad(
            "backend",
            error.to_string(),
            "is the disk full or broken, and does another program hold the file for long (lsof FILE)?",
        ),
        _ => refused("backend", &error.to_string()),
    }
}

/// Groups that were lost, streams that a handler does not reach any more, and hosts with unlike settings.
async fn groups(backend: &dyn Backend, config: &Config, subscriptions: &[Subscription]) -> Vec<Finding> {
    look_at_groups(backend, config, subscriptions)
        .await
        .unwrap_or_else(|error| vec![refused("groups", &error.to_string())])
}

async fn look_at_groups(
    backend: &dyn Backend,
    config: &Config,
    subscriptions: &[Subscription],
) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    for (subscription, pause) in subscriptions.iter().zip(backend.paused(subscriptions).await?) {
        if pause == Pause::Lost {
            found.push(finding::bad(
                "groups",
                format!("{subscription}: its group was lost, and its position is unknown: nothing is fetched"),
                format!("say where to begin: tidemill plugin resume {} --from ..", subscription.handler),
            ));
        }
        found.extend(strangers(subscription, &backend.status(subscription).await));
        found.extend(unlike(subscription, config, &backend.wishes(subscription).await?));
    }
    for (subscription, status) in status::unreached(backend, config).await? {
        let (waiting, unread, dead) = (status.waiting() - status.lag, status.lag, status.dead);
        found.push(finding::warning(
            "groups",
            format!(
                "{subscription}: the handler's events do not reach this stream any more; {waiting} deliveries, {dead} dead letters and \
                 {unread} entries that it has not read lie there for it: no host runs them"
            ),
            "put the pattern back until they are finished (tidemill dead ls), and only then take it out",
        ));
    }
    Ok(found)
}

/// What other programs have done to a group, by its counters.
fn strangers(subscription: &Subscription, status: &Result<SubscriptionStatus, Error>) -> Option<Finding> {
    let status = status.as_ref().ok()?;
    let text = format!(
        "{subscription}: {} entries went with no settlement, {} deliveries repeated",
        status.strayed, status.repeated
    );
    let hint = "another program acknowledges, deletes or trims (XACK, XDEL, XTRIM), or has moved or destroyed the \
                group (XGROUP): take these rights from it (ACL)";
    (status.strayed + status.repeated > 0).then(|| finding::warning("strangers", text, hint))
}

/// In what live hosts differ from this configuration.
fn unlike(subscription: &Subscription, config: &Config, wishes: &[Wish]) -> Vec<Finding> {
    let Some(handler) = config.handlers.get(&*subscription.handler) else { return Vec::new() };
    let events = config.events_of(&subscription.handler);
    let key = handler.grants.state.then(|| handler.key.clone());
    let ours = Wanted::new(&events, key, config.idempotency.window);
    let theirs: BTreeSet<_> = wishes
        .iter()
        .filter(|wish| wish.alive)
        .filter_map(Wanted::read)
        .flat_map(|theirs| ours.differences(&theirs))
        .collect();
    let hint = "see docs/guides/rolling-changes.md for how to roll such a change out; if it has been, stop the host that still \
                has the old one";
    let finding = |(what, theirs, ours): (&str, String, String)| {
        let text = format!("{subscription}: {what} is {ours} here, and a live host has {theirs}");
        finding::warning("hosts", text, hint)
    };
    theirs.into_iter().map(finding).collect()
}

fn refused(check: &'static str, text: &str) -> Finding {
    let (text, hint) = text.split_once("\n  hint: ").unwrap_or((text, "is it running, and is the address right?"));
    finding::bad(check, text, hint)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Good => "ok",
        Level::Warning => "warning",
        Level::Bad => "bad",
    }
}

/// A line for each finding, what to do under it, and the sum at the end.
fn print(found: &[Finding]) {
    let width = found.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for Finding { level, check, text: what, hint } in found {
        out::lines(&format_args!("{:<7}  {check:<width$}  {what}", word(*level)));
        if !hint.is_empty() {
            out::lines(&format_args!("{:7}  {:width$}  hint: {hint}", "", ""));
        }
    }
    let count = |level| found.iter().filter(|finding| finding.level == level).count();
    outln!("{} bad, {} warnings, {} ok", count(Level::Bad), count(Level::Warning), count(Level::Good));
}

fn to_json(found: &[Finding]) -> Value {
    let row = |Finding { level, check, text, hint }: &Finding| json!({ "level": word(*level), "check": check, "text": text, "hint": hint });
    let worst = found.iter().map(|finding| finding.level).max().unwrap_or(Level::Good);
    json!({ "level": word(worst), "findings": found.iter().map(row).collect::<Vec<_>>() })
}
