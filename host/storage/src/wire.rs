//! How the records that both backends keep are written: attempt histories, as JSON, within bounds, and what is known of
//! entries that are too large to be held.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::delivery::Large;

/// Attempts whose records are kept: so many of the first, and so many of the last. Their numbers say what is missing.
pub const ATTEMPTS_KEPT: usize = 20;
/// What the history of one delivery may take, in bytes as it is written.
pub const HISTORY_BYTES_MAX: usize = 56 << 10;
/// What a reason keeps where the history would be too large, in bytes.
const REASON_BYTES_KEPT: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    attempt: u32,
    at_ms: u64,
    class: std::borrow::Cow<'a, str>,
    reason: std::borrow::Cow<'a, str>,
    plugin: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log: Vec<std::borrow::Cow<'a, str>>,
}

/// `[{"attempt":1,"at_ms":..,"class":"failed","reason":"..","plugin":"0123456789ab"}]`: the first and the last
/// [`ATTEMPTS_KEPT`] records, in [`HISTORY_BYTES_MAX`] bytes.
pub fn write_history<'a>(history: impl IntoIterator<Item = &'a AttemptRecord>) -> String {
    let mut records: Vec<Record> = history.into_iter().map(to_wire).collect();
    if records.len() > 2 * ATTEMPTS_KEPT {
        records.drain(ATTEMPTS_KEPT..records.len() - ATTEMPTS_KEPT);
    }
    let text = to_json(&records);
    if text.len() <= HISTORY_BYTES_MAX { text } else { cut(records) }
}

/// Leaves out what is worth least until the history fits. The last attempt says most, then the first; of those between,
/// the oldest give way first: their log lines, then the ends of their reasons, then they themselves.
fn cut(records: Vec<Record<'_>>) -> String {
    let last = records.len() - 1;
    let sizes = records.iter().map(size).collect();
    let mut history = History { records, sizes };
    let order = (1..last).chain((last > 0).then_some(0));
    for lighten in [drop_log, cut_reason] {
        for at in order.clone() {
            history.change_if_too_large(at, lighten);
        }
    }
    while history.is_too_large() && history.records.len() > 2 {
        history.records.remove(1);
        history.sizes.remove(1);
    }
    let last = history.records.len() - 1;
    while history.is_too_large() && !history.records[last].log.is_empty() {
        history.change_if_too_large(last, drop_oldest_line);
    }
    history.change_if_too_large(last, cut_reason);
    to_json(&history.records)
}

/// Records, and the bytes of each.
struct History<'a> {
    records: Vec<Record<'a>>,
    sizes: Vec<usize>,
}

impl History<'_> {
    fn is_too_large(&self) -> bool {
        self.sizes.iter().sum::<usize>() >= HISTORY_BYTES_MAX
    }

    fn change_if_too_large(&mut self, at: usize, change: fn(&mut Record<'_>)) {
        if self.is_too_large() {
            change(&mut self.records[at]);
            self.sizes[at] = size(&self.records[at]);
        }
    }
}

fn drop_log(record: &mut Record<'_>) {
    record.log.clear();
}

fn drop_oldest_line(record: &mut Record<'_>) {
    record.log.remove(0);
}

fn cut_reason(record: &mut Record<'_>) {
    if record.reason.len() > REASON_BYTES_KEPT {
        let end = record.reason.floor_char_boundary(REASON_BYTES_KEPT);
        record.reason = format!("{}...", &record.reason[..end]).into();
    }
}

/// Its bytes, with the comma behind it.
fn size(record: &Record<'_>) -> usize {
    to_json(std::slice::from_ref(record)).len() - 1
}

fn to_json(records: &[Record<'_>]) -> String {
    serde_json::to_string(records).expect("strings and numbers always serialise")
}

/// Reads what `write_history` wrote. A history that cannot be read is worth less than the delivery it belongs to: it
/// reads as empty and stops nothing.
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
        log: record.log.iter().map(Into::into).collect(),
    }
}

fn from_wire(record: Record<'_>) -> AttemptRecord {
    AttemptRecord {
        attempt: record.attempt,
        at_ms: record.at_ms,
        class: record.class.into_owned(),
        reason: record.reason.into_owned(),
        plugin: record.plugin.into_owned(),
        log: record.log.into_iter().map(Into::into).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(attempt: u32, reason: &str, log: &[&str]) -> AttemptRecord {
        AttemptRecord {
            attempt,
            at_ms: 1_700_000_000_000,
            class: "failed".into(),
            reason: reason.into(),
            plugin: "0123456789ab".into(),
            log: log.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    fn written(history: &[AttemptRecord]) -> Vec<AttemptRecord> {
        let text = write_history(history);
        assert!(text.len() <= HISTORY_BYTES_MAX, "{} bytes", text.len());
        read_history(text.as_bytes())
    }

    /// Reaches `ATTEMPTS_KEPT`.
    #[test]
    fn the_first_and_the_last_attempts_are_kept() {
        let history: Vec<_> = (1..=2000).map(|attempt| record(attempt, "no", &["line"])).collect();
        let kept: Vec<u32> = written(&history).iter().map(|record| record.attempt).collect();
        assert_eq!(kept, (1..=20).chain(1981..=2000).collect::<Vec<_>>());
        assert_eq!(written(&history[..40]), history[..40], "what is within the bound is whole");
        assert_eq!(written(&history[..41]).len(), 40);
        assert_eq!(written(&[]), []);
    }

    #[test]
    fn a_history_grown_attempt_by_attempt_is_the_same() {
        let mut history = Vec::new();
        for attempt in 1..=100 {
            let new = record(attempt, "no", &[]);
            history = read_history(write_history(history.iter().chain(Some(&new))).as_bytes());
        }
        let kept: Vec<u32> = history.iter().map(|record| record.attempt).collect();
        assert_eq!(kept, (1..=20).chain(81..=100).collect::<Vec<_>>());
    }

    #[test]
    fn log_lines_of_the_middle_go_first() {
        let line = "x".repeat(1700);
        let history: Vec<_> = (1..=10).map(|attempt| record(attempt, "no", &[line.as_str(); 10])).collect();
        let lines: Vec<usize> = written(&history).iter().map(|record| record.log.len()).collect();
        assert_eq!(lines, [10, 0, 0, 0, 0, 0, 0, 0, 10, 10], "the oldest of the middle first, and no more than has to");
    }

    /// Reaches `HISTORY_BYTES_MAX` and `REASON_BYTES_KEPT`.
    #[test]
    fn a_history_is_whole_up_to_its_bound() {
        let around = write_history(&[record(1, "", &[""]), record(2, "", &[])]).len();
        let of = |bytes: usize| [record(1, "", &[&"x".repeat(bytes - around)]), record(2, "", &[])];
        assert_eq!(written(&of(HISTORY_BYTES_MAX)), of(HISTORY_BYTES_MAX));
        assert_eq!(written(&of(HISTORY_BYTES_MAX + 1)), [record(1, "", &[]), record(2, "", &[])]);
        let long = |bytes: usize| vec![record(1, &"x".repeat(bytes), &[&"y".repeat(HISTORY_BYTES_MAX)]); 1];
        let kept = |bytes: usize| written(&long(bytes)).remove(0).reason.len();
        assert_eq!(kept(REASON_BYTES_KEPT), REASON_BYTES_KEPT);
        assert_eq!(kept(60_000), REASON_BYTES_KEPT + 3, "cut where the history would be too large");
    }

    #[test]
    fn reasons_are_cut_next_and_then_attempts_left_out() {
        let reason = "é".repeat(2048);
        let history: Vec<_> = (1..=40).map(|attempt| record(attempt, &reason, &[])).collect();
        let kept = written(&history);
        assert_eq!((kept.len(), &kept[39].reason), (40, &reason), "the last one has its reason");
        assert_eq!(kept[1].reason.len(), REASON_BYTES_KEPT + 3);
        // Each of these bytes takes six as it is written.
        let reason = "\u{1}".repeat(4096);
        let history: Vec<_> = (1..=40).map(|attempt| record(attempt, &reason, &[])).collect();
        let kept: Vec<u32> = written(&history).iter().map(|record| record.attempt).collect();
        assert!(kept.len() < 40 && kept[0] == 1 && kept[kept.len() - 1] == 40, "{kept:?}");
        assert_eq!(kept[1] as usize, 40 + 2 - kept.len(), "the oldest of the middle went: {kept:?}");
    }

    #[test]
    fn one_record_keeps_its_last_lines() {
        let lines: Vec<String> = (0..10).map(|n| format!("{n}").repeat(30_000)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let kept = written(&[record(1, &"\u{1}".repeat(4096), &lines)]);
        assert_eq!(kept[0].log, [lines[9]]);
        let kept = written(&[record(1, &"\u{1}".repeat(100_000), &[&"y".repeat(100_000)])]);
        assert!(kept[0].log.is_empty() && kept[0].reason.len() == REASON_BYTES_KEPT + 3);
    }
}
