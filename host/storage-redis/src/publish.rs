//! Publishing events, and reading what is known of events and keys before they are handled.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::Value;
use uuid::Uuid;

use super::error::odd_answer;
use super::keys;
use super::keys::Keys;
use super::script::{Arguments, LookUpArgs, PublishArgs};
use super::{Redis, value};
use tidemill_core::model::delivery::{KeyState, Subscription};
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{LOOK_UP_BYTES_MAX, LookUp, NewEntry, Published, Result};

/// A script holds up the server while it runs: no call appends more than this.
const CALL_ENTRIES_MAX: usize = 500;
const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Redis {
    pub(super) async fn publish_all(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>> {
        let mut published = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(call_len(rest));
            let bytes = now.iter().map(|entry| entry.body.len() + 64).sum();
            let arguments = PublishArgs {
                stream: stream.to_owned(),
                inbox: keys::published_ids(stream),
                window_ms: self.inbox_window_ms(),
            };
            let mut call = arguments.call_with::<&str>(&[], 3 * now.len(), bytes);
            for entry in now {
                call.cmd.arg(&entry.body[..]);
                match &entry.dedup_key {
                    Some((id, hash)) => call.cmd.arg(id.as_bytes().as_slice()).arg(hash.as_slice()),
                    None => call.cmd.arg("").arg(""),
                };
            }
            for answer in value::array(self.run_script(&call, &stream).await?)? {
                published.push(to_published(&answer)?);
            }
            rest = later;
        }
        Ok(published)
    }

    pub(super) async fn read_inbox_and_state(
        &self,
        subscription: &Subscription,
        ids: &[Uuid],
        state_keys: &[Arc<str>],
    ) -> Result<LookUp> {
        let names = Keys::of(subscription);
        let prefix = names.state_prefix();
        let states: Vec<String> = state_keys.iter().map(|key| format!("{prefix}{key}")).collect();
        let arguments =
            LookUpArgs { inbox: names.seen(), window_ms: self.inbox_window_ms(), bytes_max: LOOK_UP_BYTES_MAX };
        let mut call = arguments.call_with(&states, ids.len(), 32 + 16 * ids.len());
        for id in ids {
            call.cmd.arg(id.as_bytes().as_slice());
        }
        let [seen, states] = value::tuple(self.run_script(&call, subscription).await?)?;
        let seen = value::array(seen)?.into_iter().map(payload_hash).collect::<Result<_>>()?;
        let states = value::array(states)?.into_iter().map(key_state).collect::<Result<_>>()?;
        Ok(LookUp { seen, states })
    }
}

fn call_len(entries: &[NewEntry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&NewEntry| {
        bytes += entry.body.len();
        bytes <= CALL_BYTES_MAX
    };
    // At least one: an event that is too large alone is not made smaller by waiting.
    entries.iter().take(CALL_ENTRIES_MAX).take_while(fits).count().max(1)
}

fn to_published(answer: &Value) -> Result<Published> {
    match answer {
        Value::BulkString(letter) if letter == b"U" => Ok(Published::Duplicate),
        Value::BulkString(letter) if letter == b"X" => Ok(Published::Conflict),
        id => Ok(Published::Added(value::entry_id(id)?)),
    }
}

fn payload_hash(answer: Value) -> Result<Option<PayloadHash>> {
    match answer {
        Value::Nil => Ok(None),
        found => Ok(Some(value::bytes(found)?.try_into().map_err(|_| odd_answer("a payload hash"))?)),
    }
}

/// The fields of a state key: `v` is its version, `=<name>` a value.
pub(super) fn key_state(answer: Value) -> Result<KeyState> {
    let mut state = KeyState { version: 0, values: BTreeMap::new() };
    let mut fields = value::array(answer)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let name = value::text(name)?;
        if let Some(name) = name.strip_prefix('=') {
            state.values.insert(name.to_owned(), value::bytes(value)?.into());
        } else if name == "v" {
            state.version = value::count(&value)?;
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `CALL_ENTRIES_MAX` and `CALL_BYTES_MAX`.
    #[test]
    fn a_call_appends_no_more_than_its_bounds() {
        let entries =
            |count: usize, bytes: usize| vec![NewEntry { body: vec![b'x'; bytes].into(), dedup_key: None }; count];
        let taken = [CALL_ENTRIES_MAX, CALL_ENTRIES_MAX + 1].map(|count| call_len(&entries(count, 1)));
        assert_eq!(taken, [CALL_ENTRIES_MAX; 2]);
        let quarter = CALL_BYTES_MAX / 4;
        assert_eq!((call_len(&entries(4, quarter)), call_len(&entries(5, quarter))), (4, 4));
        assert_eq!(call_len(&entries(4, quarter + 1)), 3);
        assert_eq!(call_len(&entries(2, CALL_BYTES_MAX + 1)), 1, "one that is too large goes alone");
    }
}
