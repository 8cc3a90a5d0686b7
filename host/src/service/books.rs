//! The books of every handler, gathered from the backend: what `status`, the API and the demo show.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::backend::{Backend, Error, SourceStatus};
use crate::model::delivery::Source;

/// A handler's streams, each with its books; none where the handler has not been started yet.
pub type Rows = BTreeMap<String, Vec<(Source, Option<SourceStatus>)>>;

pub async fn collect(backend: &dyn Backend, sources: &[Source]) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    for source in sources {
        let status = match backend.status(source).await {
            Ok(status) => Some(status),
            Err(Error::GroupGone { .. }) => None,
            Err(error) => return Err(error),
        };
        rows.entry(source.handler.to_string()).or_default().push((source.clone(), status));
    }
    Ok(rows)
}

/// The books of a handler over all its streams.
pub fn total(streams: &[(Source, Option<SourceStatus>)]) -> SourceStatus {
    let mut total = SourceStatus::default();
    for status in streams.iter().filter_map(|(_, status)| status.as_ref()) {
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
            value["started"] = streams.iter().all(|(_, status)| status.is_some()).into();
            let streams = streams.iter().map(|(source, status)| {
                let mut value = status.as_ref().map(books).unwrap_or_else(|| json!({}));
                value["stream"] = (&*source.stream).into();
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
