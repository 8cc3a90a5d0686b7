//! `tidemill dead audit`: what people did to the subscriptions, a page at a time.

use std::process::ExitCode;

use serde_json::json;

use super::time;
use crate::cli::out;
use crate::cli::table::Table;
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::{AuditRecord, Backend};

/// Records read in one step.
const PAGE: usize = 500;

pub(super) async fn audit(
    backend: &dyn Backend,
    subscriptions: &[Subscription],
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    // At most `AUDIT_MAX` rows for each subscription.
    let mut table = Table::new(["when", "who", "did", "letters", "handler", "stream", "note"]);
    for subscription in subscriptions {
        let mut after = None;
        loop {
            let page = backend.audit(subscription, after, PAGE).await?;
            for record in &page {
                if as_json {
                    out::json(&to_json(subscription, record));
                } else {
                    table.row(row(subscription, record));
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id),
                _ => break,
            }
        }
    }
    if !as_json {
        out::table(&table);
    }
    Ok(ExitCode::SUCCESS)
}

fn row(subscription: &Subscription, record: &AuditRecord) -> [String; 7] {
    let AuditRecord { at_ms, verb, count, operator: act, .. } = record;
    let (handler, stream) = (subscription.handler.to_string(), subscription.stream.to_string());
    [time(*at_ms), act.name.clone(), verb.clone(), count.to_string(), handler, stream, act.reason.clone()]
}

fn to_json(subscription: &Subscription, record: &AuditRecord) -> serde_json::Value {
    json!({
        "id": record.id.to_string(), "handler": &*subscription.handler, "stream": &*subscription.stream, "at_ms": record.at_ms,
        "who": record.operator.name, "verb": record.verb, "count": record.count,
        "ids": record.ids.iter().map(EntryId::to_string).collect::<Vec<_>>(), "note": record.operator.reason,
    })
}
