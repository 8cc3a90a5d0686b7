//! `tidemill status`: the books of every handler.

use std::process::ExitCode;
use std::time::Duration;

use super::Globals;
use super::table::{Table, thousands};
use crate::model::delivery::Source;
use crate::service::books::{Rows, collect, to_json, total};
use crate::service::build;

pub fn status(globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let (backend, rows) = super::block_on(async {
        let backend = build::open_backend(&config).await?;
        let sources: Vec<Source> = build::sources(&config).into_iter().map(|(source, _)| source).collect();
        Ok((backend.describe().await?, collect(&*backend, &sources).await?))
    })?;
    if globals.json {
        println!("{}", to_json(&backend, &rows));
    } else {
        println!("{backend}");
        print!("{}", to_table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn to_table(rows: &Rows) -> Table {
    let mut table = Table::new([
        "handler",
        "published",
        "committed",
        "skipped",
        "(duplicates)",
        "retried",
        "dead",
        "waiting",
        "oldest",
        "paused",
        "books",
    ]);
    for (handler, streams) in rows {
        let total = total(streams);
        let started = streams.iter().any(|row| row.status.is_some());
        let books = if !started {
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
        ];
        let age = total.oldest_age.map_or_else(
            || "-".to_owned(),
            |age| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string(),
        );
        table.row(std::iter::once(handler.clone()).chain(counts.map(thousands)).chain([
            age,
            paused.to_owned(),
            books.to_owned(),
        ]));
    }
    table
}
