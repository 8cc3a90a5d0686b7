//! What two versions of a plugin made of the same event: where they differ, and how that is shown.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use tidemill_core::model::delivery::{Effects, Emitted, Timer};
use tidemill_core::model::outcome::Outcome;

/// In what two outcomes can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// One is done and the other failed, or they failed in different ways.
    Outcome,
    /// Other events, in another order, or to another stream.
    Emits,
    /// Other names, or other values.
    Writes,
    /// Other timers, or at other times.
    Timers,
}

impl Difference {
    pub const ALL: [Self; 4] = [Self::Outcome, Self::Emits, Self::Writes, Self::Timers];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Emits => "emits",
            Self::Writes => "writes",
            Self::Timers => "timers",
        }
    }
}

/// In what they differ; nothing if they are the same. The words of a failure do not count, only its class.
pub(crate) fn differ(current: &Outcome, candidate: &Outcome) -> Vec<Difference> {
    match (current, candidate) {
        (Outcome::Done(current), Outcome::Done(candidate)) => {
            let kinds = [
                (same_emits(current, candidate), Difference::Emits),
                (same_writes(current, candidate), Difference::Writes),
                (same_timers(current, candidate), Difference::Timers),
            ];
            kinds.into_iter().filter(|(same, _)| !same).map(|(_, kind)| kind).collect()
        }
        _ if class(current) == class(candidate) => Vec::new(),
        _ => vec![Difference::Outcome],
    }
}

fn same_emits(current: &Effects, candidate: &Effects) -> bool {
    let same = |(one, other): (&Emitted, &Emitted)| one.stream == other.stream && same_bytes(&one.body, &other.body);
    current.emits.len() == candidate.emits.len() && current.emits.iter().zip(&candidate.emits).all(same)
}

fn same_writes(current: &Effects, candidate: &Effects) -> bool {
    let same = |one: &Option<Bytes>, other: &Option<Bytes>| match (one, other) {
        (Some(one), Some(other)) => same_bytes(one, other),
        _ => one == other,
    };
    current.writes.len() == candidate.writes.len()
        && current
            .writes
            .iter()
            .zip(&candidate.writes)
            .all(|((name, one), (other_name, other))| name == other_name && same(one, other))
}

fn same_timers(current: &Effects, candidate: &Effects) -> bool {
    let same = |(one, other): (&Timer, &Timer)| one.after == other.after && same_bytes(&one.body, &other.body);
    current.timers.len() == candidate.timers.len() && current.timers.iter().zip(&candidate.timers).all(same)
}

/// The same bytes, or the same JSON: the order of members and white space say nothing.
fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    one == other || json(one).is_some_and(|value| Some(value) == json(other))
}

/// As the records of attempts name it.
pub(super) fn class(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Failed { .. } => "failed",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Looped { .. } => "looped",
        Outcome::Crashed { crash, .. } => crash.as_str(),
    }
}

/// For people and scripts: the outcome with its effects, long values truncated.
pub(super) fn shown(outcome: &Outcome) -> Value {
    let class = class(outcome);
    match outcome {
        Outcome::Done(effects) => {
            let event = |emitted: &Emitted| json!({ "stream": *emitted.stream, "event": value(&emitted.body) });
            let emits: Vec<Value> = effects.emits.iter().take(EMITS_SHOWN).map(event).collect();
            let written = |bytes: &Option<Bytes>| bytes.as_ref().map_or(Value::Null, |bytes| value(bytes));
            let writes: Map<String, Value> =
                effects.writes.iter().take(WRITES_SHOWN).map(|(name, bytes)| (name.clone(), written(bytes))).collect();
            json!({ "outcome": class, "emitted": effects.emits.len(), "emits": emits, "writes": writes, "timers": effects.timers.len() })
        }
        Outcome::Failed { reason, .. }
        | Outcome::Rejected { reason, .. }
        | Outcome::Looped { reason, .. }
        | Outcome::Crashed { reason, .. } => {
            json!({ "outcome": class, "reason": truncate(reason) })
        }
    }
}

/// What is shown of one outcome at most: events, written values, and bytes of each.
const EMITS_SHOWN: usize = 5;
const WRITES_SHOWN: usize = 20;
const VALUE_BYTES_SHOWN: usize = 1024;

/// Short JSON as JSON, other text as text, other bytes by their length.
fn value(bytes: &[u8]) -> Value {
    let text = || std::str::from_utf8(bytes).map(|text| Value::from(truncate(text)));
    if bytes.len() <= VALUE_BYTES_SHOWN
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return value;
    }
    text().unwrap_or_else(|_| json!({ "bytes": bytes.len() }))
}

fn truncate(text: &str) -> String {
    let end = text.floor_char_boundary(VALUE_BYTES_SHOWN);
    if end < text.len() { format!("{}... ({} bytes)", &text[..end], text.len()) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::model::outcome::Crash;

    fn done(emits: &[(&str, &str)], writes: &[(&str, Option<&str>)]) -> Outcome {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Outcome::Done(Effects {
            emits: emits.iter().map(|(stream, body)| Emitted { stream: (*stream).into(), body: bytes(body) }).collect(),
            writes: writes.iter().map(|(name, value)| ((*name).to_owned(), value.map(bytes))).collect(),
            ..Effects::default()
        })
    }

    fn rejected(reason: &str) -> Outcome {
        Outcome::Rejected { reason: reason.to_owned(), log: vec![] }
    }

    #[test]
    fn what_counts_as_a_difference() {
        let crashed = |crash| Outcome::Crashed { crash, reason: "x".to_owned(), log: vec![] };
        let rows = [
            (done(&[], &[]), done(&[], &[]), vec![]),
            (done(&[("s", r#"{"a":1,"b":2}"#)], &[]), done(&[("s", r#"{ "b": 2, "a": 1 }"#)], &[]), vec![]),
            (done(&[("s", "{}")], &[]), done(&[("t", "{}")], &[]), vec![Difference::Emits]),
            (done(&[("s", "{}")], &[]), done(&[("s", "{}"), ("s", "{}")], &[]), vec![Difference::Emits]),
            (done(&[("s", "1"), ("s", "2")], &[]), done(&[("s", "2"), ("s", "1")], &[]), vec![Difference::Emits]),
            (done(&[], &[("n", Some("1"))]), done(&[], &[("n", Some("2"))]), vec![Difference::Writes]),
            (done(&[], &[("n", Some("1"))]), done(&[], &[("n", None)]), vec![Difference::Writes]),
            (done(&[], &[("n", Some("1"))]), done(&[], &[("m", Some("1"))]), vec![Difference::Writes]),
            (done(&[], &[("n", Some("\u{1}x"))]), done(&[], &[("n", Some("\u{1}y"))]), vec![Difference::Writes]),
            (done(&[("s", "1")], &[("n", None)]), done(&[], &[]), vec![Difference::Emits, Difference::Writes]),
            (rejected("one reason"), rejected("another reason"), vec![]),
            (done(&[], &[]), rejected("no"), vec![Difference::Outcome]),
            (crashed(Crash::Trap), crashed(Crash::Deadline), vec![Difference::Outcome]),
        ];
        for (current, candidate, wanted) in rows {
            assert_eq!(differ(&current, &candidate), wanted, "{current:?} and {candidate:?}");
            assert_eq!(differ(&candidate, &current), wanted, "the other way round");
        }
    }

    /// Reaches `EMITS_SHOWN`, `WRITES_SHOWN` and `VALUE_BYTES_SHOWN`.
    #[test]
    fn what_is_shown_is_bounded() {
        let counts = |emits: usize, writes: usize| {
            let names: Vec<String> = (0..writes).map(|n| format!("n{n}")).collect();
            let writes: Vec<(&str, Option<&str>)> = names.iter().map(|name| (&**name, Some("1"))).collect();
            let shown = shown(&done(&vec![("s", "{}"); emits], &writes));
            (shown["emits"].as_array().map(Vec::len), shown["writes"].as_object().map(Map::len))
        };
        let most = (Some(EMITS_SHOWN), Some(WRITES_SHOWN));
        assert_eq!(counts(EMITS_SHOWN, WRITES_SHOWN), most);
        assert_eq!(counts(EMITS_SHOWN + 1, WRITES_SHOWN + 1), most);
        let text = "x".repeat(VALUE_BYTES_SHOWN);
        assert_eq!((truncate(&text), truncate(&format!("{text}y"))), (text.clone(), format!("{text}... (1025 bytes)")));
        let long = "ä".repeat(100_000);
        let outcome = done(&[("s", long.as_str()); 100], &[("n", Some(&long))]);
        let shown = shown(&outcome);
        assert_eq!((&shown["emitted"], shown["emits"].as_array().map(Vec::len)), (&json!(100), Some(EMITS_SHOWN)));
        assert!(shown.to_string().len() < (EMITS_SHOWN + 1) * 2 * VALUE_BYTES_SHOWN, "{}", shown.to_string().len());
        assert!(super::shown(&rejected(&long)).to_string().len() < 2 * VALUE_BYTES_SHOWN);
    }
}
