//! How the records that both backends keep are written: attempt histories, as JSON, and what is known of entries that are
//! too large to be held.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::dead_letter::AttemptRecord;
use crate::model::delivery::Large;

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

/// `event 20971520 <SHA-256 in 32 bytes><the beginning>`; `fields` instead of `event` where it is all fields.
pub fn write_large(large: &Large) -> Vec<u8> {
    let what = if large.event { "event" } else { "fields" };
    let mut written = format!("{what} {} ", large.bytes).into_bytes();
    written.extend_from_slice(&large.sha256);
    written.extend_from_slice(&large.prefix);
    written
}

/// Reads what `write_large` wrote; the error is what was not written by it.
pub fn read_large(written: &Bytes) -> Result<Large, Bytes> {
    let read = || {
        let mut parts = written.splitn(3, |byte| *byte == b' ');
        let event = match parts.next()? {
            b"event" => true,
            b"fields" => false,
            _ => return None,
        };
        let bytes = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let (sha256, prefix) = parts.next()?.split_first_chunk()?;
        Some(Large { event, prefix: written.slice_ref(prefix), bytes, sha256: *sha256 })
    };
    read().ok_or_else(|| written.clone())
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
