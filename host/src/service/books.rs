//! The books of every handler, gathered from the backend: what `status`, the API and the demo show.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::backend::{Backend, Error, SourceStatus};
use crate::model::delivery::Source;

/// A handler's streams.
pub type Rows = BTreeMap<String, Vec<Row>>;

pub struct Row {
    pub source: Source,
    /// The books; none where the handler has not been started yet.
    pub status: Option<SourceStatus>,
    /// Nothing is fetched until somebody resumes it.
    pub paused: bool,
}

pub async fn collect(backend: &dyn Backend, sources: &[Source]) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    let paused = backend.paused(sources).await?;
    for (source, paused) in sources.iter().zip(paused) {
        let status = match backend.status(source).await {
            Ok(status) => Some(status),
            Err(Error::GroupGone { .. }) => None,
            Err(error) => return Err(error),
        };
        rows.entry(source.handler.to_string()).or_default().push(Row { source: source.clone(), status, paused });
    }
    Ok(rows)
}

/// The books of a handler over all its streams.
pub fn total(streams: &[Row]) -> SourceStatus {
    let mut total = SourceStatus::default();
    for status in streams.iter().filter_map(|row| row.status.as_ref()) {
        total.published += status.published;
        total.committed += status.committed;
        total.skipped += status.skipped;
        total.duplicates += status.duplicates;
        total.retried += status.retried;
        total.dead += status.dead;
        total.dropped += status.dropped;
        total.lag += status.lag;
        total.pending += status.pending;
        total.due += status.due;
        total.again += status.again;
        total.oldest_age = total.oldest_age.max(status.oldest_age);
    }
    total
}

pub fn to_json(backend: &str, rows: &Rows) -> Value {
    let handlers: Vec<Value> = rows
        .iter()
        .map(|(handler, streams)| {
            let mut value = books(&total(streams));
            value["handler"] = handler.as_str().into();
            value["started"] = streams.iter().all(|row| row.status.is_some()).into();
            value["paused"] = streams.iter().all(|row| row.paused).into();
            let streams = streams.iter().map(|row| {
                let mut value = row.status.as_ref().map(books).unwrap_or_else(|| json!({}));
                value["stream"] = (&*row.source.stream).into();
                value["paused"] = row.paused.into();
                value
            });
            value["streams"] = streams.collect();
            value
        })
        .collect();
    json!({ "backend": backend, "handlers": handlers })
}

fn books(status: &SourceStatus) -> Value {
    json!({
        "published": status.published, "committed": status.committed, "skipped": status.skipped,
        "duplicates": status.duplicates, "retried": status.retried, "dead": status.dead, "dropped": status.dropped,
        "waiting": status.waiting(), "lag": status.lag, "pending": status.pending, "due": status.due, "again": status.again,
        "oldest_age_ms": status.oldest_age.map(|age| age.as_millis() as u64), "balanced": status.balances(),
    })
}
