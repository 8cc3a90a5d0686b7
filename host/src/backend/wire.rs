//! How the records that both backends keep are written: attempt histories, as JSON.

use serde::{Deserialize, Serialize};

use crate::model::dead_letter::AttemptRecord;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    attempt: u32,
    at_ms: u64,
    class: std::borrow::Cow<'a, str>,
    reason: std::borrow::Cow<'a, str>,
    plugin: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
}

/// `[{"attempt":1,"at_ms":..,"class":"failed","reason":"..","plugin":"0123456789ab"}]`
pub fn write_history(history: &[AttemptRecord]) -> String {
    let records: Vec<Record> = history.iter().map(to_wire).collect();
    serde_json::to_string(&records).expect("strings and numbers always serialise")
}

/// Reads what `write_history` wrote. A history that cannot be read is worth less than the delivery it belongs to: it
/// comes back empty rather than stopping anything.
pub fn read_history(text: &[u8]) -> Vec<AttemptRecord> {
    let records: Vec<Record> = serde_json::from_slice(text).unwrap_or_default();
    records.into_iter().map(from_wire).collect()
}

fn to_wire(record: &AttemptRecord) -> Record<'_> {
    Record {
        attempt: record.attempt,
        at_ms: record.at_ms,
        class: (&record.class).into(),
        reason: (&record.reason).into(),
        plugin: (&record.plugin).into(),
        log: record.log.clone(),
    }
}

fn from_wire(record: Record<'_>) -> AttemptRecord {
    AttemptRecord {
        attempt: record.attempt,
        at_ms: record.at_ms,
        class: record.class.into_owned(),
        reason: record.reason.into_owned(),
        plugin: record.plugin.into_owned(),
        log: record.log,
    }
}
