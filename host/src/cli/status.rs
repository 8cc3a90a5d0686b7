//! `tidemill status`: the books of every handler.

use std::process::ExitCode;
use std::time::Duration;

use super::Globals;
use super::table::{Table, thousands};
use crate::model::delivery::Source;
use crate::service::books::{Rows, Told, add_versions, collect, to_json, told, total};
use crate::service::build;
use crate::service::heart::{self, Note};

pub fn status(globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let (status, backend, rows, hosts) = super::block_on(async {
        let backend = build::open_backend(&config).await?;
        let sources: Vec<Source> = build::sources(&config).into_iter().map(|(source, _)| source).collect();
        let hosts = heart::hosts(&*backend, &sources).await?;
        let (about, rows) = (backend.describe().await?, collect(&*backend, &sources).await?);
        let mut status = to_json(&about, &rows, &hosts);
        add_versions(&mut status, &*backend, &sources).await?;
        Ok((status, about, rows, hosts))
    })?;
    if globals.json {
        println!("{status}");
    } else {
        println!("{backend}\nhosts alive: {}", hosts.len());
        print!("{}{}{}", to_table(&rows, &hosts), refusals(&rows, &hosts), odd(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn to_table(rows: &Rows, hosts: &[Note]) -> Table {
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
        "books",
    ]);
    for (handler, streams) in rows {
        let total = total(streams);
        let started = streams.iter().any(|row| row.status.is_some());
        let books = if streams.iter().any(|row| row.lost) {
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
        let end = [age, rate, breaker, plugin, paused.to_owned(), books.to_owned()];
        table.row(std::iter::once(handler.clone()).chain(counts.map(thousands)).chain(end));
    }
    table
}

/// A line for each handler of which hosts keep what the backend refuses.
fn refusals(rows: &Rows, hosts: &[Note]) -> String {
    let line = |handler: &String| {
        let Told { refused, refusal, .. } = told(hosts, handler);
        (refused > 0)
            .then(|| format!("{handler}: {refused} kept, because the backend refuses to settle them: {refusal}\n"))
    };
    rows.keys().filter_map(line).collect()
}

/// A line for each thing that is out of the ordinary with a group.
fn odd(rows: &Rows) -> String {
    let mut text = String::new();
    for row in rows.values().flatten() {
        let (source, handler) = (&row.source, &row.source.handler);
        if row.lost {
            text += &format!(
                "{source}: its group was lost, and nobody knows where it was; nothing is fetched until you say where to begin: \
                 tidemill plugin resume {handler} --from ..\n"
            );
        }
        let status = row.status.unwrap_or_default();
        if status.left > 0 {
            text +=
                &format!("{source}: {} deliveries are left for hosts with other events that want them\n", status.left);
        }
        if status.strayed > 0 {
            text += &format!(
                "{source}: {} entries went with no settlement: somebody else acknowledged, deleted or trimmed them, or moved \
                 the group on\n",
                status.strayed
            );
        }
        if status.repeated > 0 {
            text +=
                &format!("{source}: {} deliveries came once more: the group was lost or moved back\n", status.repeated);
        }
    }
    text
}

/// Rate, breaker and plugin; nobody says anything of them where no host lives.
fn as_told(told: Told) -> [String; 3] {
    if told.hosts == 0 {
        return ["-"; 3].map(str::to_owned);
    }
    [format!("{:.0}/s", told.rate), told.breaker, told.plugins.join(",")]
}
