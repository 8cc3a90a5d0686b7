//! `tidemill status`: the counters of every handler.

use std::process::ExitCode;
use std::time::Duration;

use super::Globals;
use super::out;
use super::out::outln;
use super::table::{Table, thousands};
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::heartbeat;
use tidemill_runtime::heartbeat::HostReport;
use tidemill_runtime::loading;
use tidemill_runtime::status::{HandlerSummary, StatusRows, add_versions, collect, to_json, told, total};

pub(super) fn status(globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let (status, backend, rows, hosts) = super::block_on(async {
        let backend = crate::backends::open_backend_to_read(&config).await?;
        let subscriptions: Vec<Subscription> =
            loading::subscriptions(&config).into_iter().map(|(subscription, _)| subscription).collect();
        let hosts = heartbeat::hosts(&*backend, &subscriptions).await?;
        let (about, rows) = (backend.describe().await?, collect(&*backend, &subscriptions).await?);
        let mut status = to_json(&about, &rows, &hosts);
        add_versions(&mut status, &*backend, &subscriptions).await?;
        Ok((status, about, rows, hosts))
    })?;
    if globals.json {
        out::json(&status);
    } else {
        outln!("{backend}");
        outln!("hosts alive: {}", hosts.len());
        out::table(&to_table(&rows, &hosts));
        print_refusals(&rows, &hosts);
        print_odd(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn to_table(rows: &StatusRows, hosts: &[HostReport]) -> Table {
    let mut table = Table::new([
        "handler",
        "published",
        "committed",
        "skipped",
        "(duplicates)",
        "retried",
        "dead",
        "waiting",
        "lag",
        "pending",
        "oldest",
        "rate",
        "breaker",
        "plugin",
        "paused",
        "counters",
    ]);
    for (handler, streams) in rows {
        let total = total(streams);
        let started = streams.iter().any(|row| row.status.is_some());
        let counters = if streams.iter().any(|row| row.lost) {
            "position lost"
        } else if !started {
            "not started yet"
        } else if total.balances() {
            "balance"
        } else {
            "do not balance"
        };
        let paused = match streams.iter().filter(|row| row.paused).count() {
            0 => "no",
            count if count == streams.len() => "yes",
            _ => "in part",
        };
        let counts = [
            total.published,
            total.committed,
            total.skipped,
            total.duplicates,
            total.retried,
            total.dead,
            total.waiting(),
            total.lag,
            total.pending,
        ];
        let age = total.oldest_age.map_or_else(
            || "-".to_owned(),
            |age| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string(),
        );
        let [rate, breaker, plugin] = as_told(told(hosts, handler));
        let end = [age, rate, breaker, plugin, paused.to_owned(), counters.to_owned()];
        table.row(std::iter::once(handler.clone()).chain(counts.map(thousands)).chain(end));
    }
    table
}

/// A line for each handler of which hosts keep what the backend refuses.
fn print_refusals(rows: &StatusRows, hosts: &[HostReport]) {
    for handler in rows.keys() {
        let HandlerSummary { refused, refusal, .. } = told(hosts, handler);
        if refused > 0 {
            let text = format!("{handler}: {refused} kept, because the backend refuses to settle them: {refusal}");
            out::lines(&text);
        }
    }
}

/// A line for each thing that is out of the ordinary with a group.
fn print_odd(rows: &StatusRows) {
    for row in rows.values().flatten() {
        let (subscription, handler) = (&row.subscription, &row.subscription.handler);
        if row.lost {
            outln!(
                "{subscription}: its group was lost, and its position is unknown; nothing is fetched until you say \
                 where to begin: tidemill plugin resume {handler} --from .."
            );
        }
        let status = row.status.unwrap_or_default();
        if status.left > 0 {
            outln!("{subscription}: {} deliveries are left for hosts with other events that want them", status.left);
        }
        if status.strayed > 0 {
            outln!(
                "{subscription}: {} entries went with no settlement: another program acknowledged, deleted or trimmed \
                 them, or moved the group on",
                status.strayed
            );
        }
        if status.repeated > 0 {
            outln!("{subscription}: {} deliveries repeated: the group was lost or moved back", status.repeated);
        }
    }
}

/// Rate, breaker and plugin; unknown where no host lives.
fn as_told(told: HandlerSummary) -> [String; 3] {
    if told.hosts == 0 {
        return ["-"; 3].map(str::to_owned);
    }
    [format!("{:.0}/s", told.rate), told.breaker, told.plugins.join(",")]
}
