//! `tidemill dead edit`: one dead letter, replayed with another event in its place. That one is an event of its own: a
//! new id, caused by the old one. Where it is routed to stays.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::act::Consent;
use super::select::{find, full_id};
use crate::cli::out;
use crate::cli::out::errln;
use crate::cli::{Globals, UsageError};
use tidemill_config::Config;
use tidemill_core::model::delivery::{Body, Subscription};
use tidemill_core::model::outcome::NotRun;
use tidemill_core::model::plain_text::PlainText;
use tidemill_process::fault;
use tidemill_runtime::build;
use tidemill_schema::admit::{AdmitOptions, admit, admit_timer};
use tidemill_storage::Backend;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// As `ls --flat` prints it, for example payment-service/order-events/1700000000000-0
    id: String,
    /// The event that takes its place, or - for standard input. `dead show` prints the old one.
    #[arg(long)]
    file: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

/// What of an event's envelope matters here.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    event_id: &'a RawValue,
    event_type: String,
    version: String,
    #[serde(default, borrow, deserialize_with = "present")]
    causation_id: Option<&'a RawValue>,
}

/// A `null` that is there has a place, too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

pub(super) async fn edit(
    backend: &dyn Backend,
    config: &Config,
    globals: &Globals,
    subscriptions: &[Subscription],
    args: &Args,
) -> anyhow::Result<ExitCode> {
    if !config.dead_letters.edit {
        let hint = "hint: edit = true in [dead_letters] allows it; who edits what is recorded (`dead audit`)";
        return Err(UsageError(format!("editing dead letters is not allowed here\n  {hint}")).into());
    }
    let (subscription, letter) = find(backend, subscriptions, &args.id).await?;
    let (id, event) = replacement(&letter.body, &read(&args.file)?, Uuid::now_v7()).map_err(UsageError)?;
    valid(config, globals, &letter.body, &event)?;
    errln!("{} would be replayed as event {id}", full_id(&subscription, letter.id));
    let mut edited = false;
    if !args.consent.dry_run {
        args.consent.ask("replay it so")?;
        let act = super::act_of(format!("event_id={id}"));
        fault::point("replaying");
        edited = backend.edit_dead(&subscription, letter.id, event.clone(), &act).await?;
        if !edited {
            return Err(UsageError(format!("{} is gone: another command was quicker", args.id)).into());
        }
    }
    if globals.json {
        out::json(&json!({ "edited": edited, "event_id": id }));
    } else {
        out::quoted(&String::from_utf8_lossy(&event));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
    } else {
        bytes = std::fs::read(file).map_err(|error| UsageError(format!("{}: {error}", file.display())))?;
    }
    Ok(bytes)
}

/// The event as it will be replayed: as it was given, byte for byte, but with an id of its own and the old one as its
/// cause. The old one is the dead letter's where that can be read, else the one that was given.
fn replacement(old: &Body, new: &[u8], id: Uuid) -> Result<(Uuid, Bytes), String> {
    let new = new.trim_ascii();
    let text = std::str::from_utf8(new).map_err(|error| format!("the new event is not UTF-8: {error}"))?;
    let head: Head = serde_json::from_str(text).map_err(|error| {
        format!(
            "the new event is no envelope: {error}\n  hint: `tidemill dead show ID` prints the old one to start from"
        )
    })?;
    let given: Uuid = serde_json::from_str(head.event_id.get())
        .map_err(|_| format!("/event_id: {} is not a UUID", head.event_id.get()))?;
    let mut cause = given;
    if let Body::Event(bytes) | Body::Timer(bytes) = old
        && let Ok(before) = serde_json::from_slice::<Head>(bytes)
    {
        let routing = [("event_type", before.event_type, &head.event_type), ("version", before.version, &head.version)];
        if let Some((field, was, is)) = routing.iter().find(|(_, was, is)| was != *is) {
            let (is, was) = (PlainText::from(is.as_str()), PlainText::from(was.as_str()));
            return Err(format!(
                "/{field}: \"{is}\" was \"{was}\"\n  hint: publish another kind of event as a new one"
            ));
        }
        cause = serde_json::from_str(before.event_id.get()).unwrap_or(given);
    }
    let place = |raw: &RawValue| {
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        start..start + raw.get().len()
    };
    let mut edits = vec![(place(head.event_id), format!("\"{id}\""))];
    match head.causation_id {
        Some(raw) => edits.push((place(raw), format!("\"{cause}\""))),
        None => edits[0].1.push_str(&format!(",\"causation_id\":\"{cause}\"")),
    }
    // From the back, so that the places stay true.
    edits.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut event = text.to_owned();
    edits.iter().for_each(|(place, by)| event.replace_range(place.clone(), by));
    Ok((id, event.into()))
}

/// An event that its schema refuses would only die again.
fn valid(config: &Config, globals: &Globals, old: &Body, event: &Bytes) -> anyhow::Result<()> {
    let checked = build::check(config).map_err(|error| globals.refused(error))?;
    let payload_bytes_max = config.host.payload_bytes_max.as_u64() as usize;
    let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max };
    let admitted = match old {
        Body::Timer(_) => admit_timer(event, payload_bytes_max),
        Body::Event(_) | Body::Fields(_) | Body::Large(_) => admit(&checked.schemas, event, &terms),
    };
    let why = match admitted {
        Ok(_) => return Ok(()),
        Err(NotRun::Undecodable(text) | NotRun::Invalid(text) | NotRun::Unknown(text)) => text.into(),
        Err(other) => format!("{other:?}"),
    };
    Err(UsageError(format!("the new event would die again: {why}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"event_id":"0191d3a0-0000-7000-8000-000000000001","event_type":"A.B","version":"1"}"#;
    const NEW_ID: Uuid = Uuid::from_u128(7);

    fn replaced(old: &[u8], new: &str) -> Result<String, String> {
        let old = Body::Event(Bytes::copy_from_slice(old));
        replacement(&old, new.as_bytes(), NEW_ID).map(|(_, event)| String::from_utf8(event.to_vec()).unwrap())
    }

    #[test]
    fn only_the_id_and_the_cause_are_changed() {
        let new = r#" { "data":{"n":1.0e2, "big":9007199254740993}, "event_id" : "0191d3a0-0000-7000-8000-000000000001" ,"event_type":"A.B","version":"1" } "#;
        let wanted = r#"{ "data":{"n":1.0e2, "big":9007199254740993}, "event_id" : "00000000-0000-0000-0000-000000000007","causation_id":"0191d3a0-0000-7000-8000-000000000001" ,"event_type":"A.B","version":"1" }"#;
        assert_eq!(replaced(OLD.as_bytes(), new).unwrap(), wanted);
        let caused = new.replace("\"data\"", "\"causation_id\": null, \"data\"");
        let event = replaced(OLD.as_bytes(), &caused).unwrap();
        assert!(event.starts_with(r#"{ "causation_id": "0191d3a0-0000-7000-8000-000000000001", "data""#), "{event}");
        assert!(event.contains(r#""event_id" : "00000000-0000-0000-0000-000000000007" ,"#), "{event}");
    }

    #[test]
    fn the_cause_of_an_unreadable_letter_is_what_was_given() {
        let event = replaced(b"\xff broken", OLD).unwrap();
        assert!(event.contains(r#""causation_id":"0191d3a0-0000-7000-8000-000000000001""#), "{event}");
    }

    #[test]
    fn what_cannot_stand_in_its_place_is_refused() {
        for (new, said) in [
            ("nonsense", "no envelope"),
            (r#"{"event_type":"A.B","version":"1"}"#, "missing field `event_id`"),
            (&*OLD.replace("0191", "x"), "/event_id: "),
            (&*OLD.replace("A.B", "A.C"), "/event_type: \"A.C\" was \"A.B\""),
            (&*OLD.replace("\"1\"", "\"2\""), "/version: \"2\" was \"1\""),
        ] {
            let refused = replaced(OLD.as_bytes(), new).unwrap_err();
            assert!(refused.contains(said), "wanted {said}\n found {refused}");
        }
    }
}
