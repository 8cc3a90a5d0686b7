//! `tidemill dead show` and `dead export`: whole dead letters, for people and as JSON Lines.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::select::{Selection, find, fingerprint_of, full_id};
use super::time;
use crate::cli::out;
use crate::cli::out::outln;
use crate::cli::table::thousands;
use tidemill_core::model::dead_letter::{AttemptRecord, DeadLetter};
use tidemill_core::model::delivery::{Body, Subscription};
use tidemill_core::units::hex;
use tidemill_storage::Backend;

pub(crate) async fn show(
    backend: &dyn Backend,
    subscriptions: &[Subscription],
    id: &str,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let (subscription, letter) = find(backend, subscriptions, id).await?;
    if as_json {
        out::json(&to_json(&subscription, &letter));
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{}", full_id(&subscription, letter.id));
    outln!("  from entry {} of {}", letter.origin, subscription.stream);
    outln!("  {}: {}", letter.reason.class, letter.reason.text);
    outln!("  attempts {}, crashes {}, dead since {}", letter.attempts, letter.crashes, time(letter.at_ms));
    if let Some(replayed) = letter.replayed {
        outln!("  replayed {} times, the last time as letter {}", replayed.times, replayed.letter);
    }
    let mut before = None;
    for record in &letter.history {
        match record.left_out(before) {
            0 => {}
            count => outln!("    ... {} attempts left out", thousands(count.into())),
        }
        before = Some(record);
        outln!("    attempt {}, plugin {}: {}: {}", record.attempt, record.plugin, record.class, record.reason);
        record.log.iter().for_each(|line| outln!("      log: {line}"));
    }
    match &letter.body {
        Body::Event(bytes) | Body::Timer(bytes) => out::quoted(&String::from_utf8_lossy(bytes)),
        Body::Fields(fields) => {
            for (name, value) in fields {
                outln!("{} = {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            }
        }
        Body::Large(large) => {
            outln!("  too large to be kept: {large}; its first {} bytes:", large.prefix.len());
            out::quoted(&String::from_utf8_lossy(&large.prefix));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn export(backend: &dyn Backend, selection: &Selection) -> anyhow::Result<ExitCode> {
    let mut walk = selection.walk();
    while let Some((subscription, letters)) = walk.next(backend).await? {
        for letter in &letters {
            out::json(&to_json(subscription, letter));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The exact bytes: as text where they are text, else as hex, for which JSON has no other form.
pub(crate) fn to_json(subscription: &Subscription, letter: &DeadLetter) -> Value {
    let record = |record: &AttemptRecord| {
        json!({
            "attempt": record.attempt, "at_ms": record.at_ms, "class": record.class, "reason": record.reason,
            "plugin": record.plugin, "log": record.log,
        })
    };
    let mut value = json!({
        "id": full_id(subscription, letter.id), "handler": &*subscription.handler, "stream": &*subscription.stream,
        "entry": letter.origin.to_string(), "reason": letter.reason.class.as_str(), "text": letter.reason.text,
        "fingerprint": fingerprint_of(letter), "at_ms": letter.at_ms, "attempts": letter.attempts,
        "crashes": letter.crashes, "history": letter.history.iter().map(record).collect::<Vec<_>>(),
    });
    if let Some(replayed) = letter.replayed {
        value["replayed"] = json!({ "letter": replayed.letter.to_string(), "times": replayed.times });
    }
    match &letter.body {
        Body::Event(bytes) | Body::Timer(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => value["event"] = text.into(),
            Err(_) => value["event_hex"] = hex(bytes).into(),
        },
        Body::Fields(fields) => {
            let text = |bytes| std::str::from_utf8(bytes).ok();
            let pairs: Option<Vec<_>> = fields.iter().map(|(n, v)| Some(json!([text(n)?, text(v)?]))).collect();
            match pairs {
                Some(pairs) => value["fields"] = pairs.into(),
                None => value["fields_hex"] = fields.iter().map(|(n, v)| json!([hex(n), hex(v)])).collect(),
            }
        }
        Body::Large(large) => {
            value["large"] = json!({
                "what": if large.event { "event" } else { "fields" }, "bytes": large.bytes,
                "sha256": hex(&large.sha256), "prefix_hex": hex(&large.prefix),
            });
        }
    }
    value
}
