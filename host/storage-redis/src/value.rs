//! Taking answers of Redis apart by hand: what is large is moved, never copied.

use std::time::Duration;

use redis::Value;

use super::error::odd_answer;
use tidemill_core::model::delivery::EntryId;
use tidemill_storage::Result;

/// A stream entry: its id and its fields and values in turn; `None` when the entry itself was deleted.
pub(super) type RawEntry = (EntryId, Option<Vec<Value>>);

pub(super) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        _ => Err(odd_answer("a list")),
    }
}

/// A list of exactly `N`.
pub(super) fn tuple<const N: usize>(value: Value) -> Result<[Value; N]> {
    array(value)?.try_into().map_err(|_| odd_answer("a list of another length"))
}

/// An answer of names and values in turn.
pub(super) struct Fields(Vec<(Vec<u8>, Value)>);

impl Fields {
    pub(crate) fn of(value: Value) -> Result<Self> {
        let mut items = array(value)?.into_iter();
        let mut fields = Vec::with_capacity(items.len() / 2);
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            fields.push((bytes(name)?, value));
        }
        Ok(Self(fields))
    }

    /// Takes the value out: what is large is moved.
    pub(crate) fn take(&mut self, name: &str) -> Result<Value> {
        let found = self.0.iter_mut().find(|(known, _)| known == name.as_bytes());
        let (_, value) = found.ok_or_else(|| odd_answer(&format!("`{name}`")))?;
        Ok(std::mem::replace(value, Value::Nil))
    }

    /// A count, or an error that names it. Zero if it is nil: a counter that nothing has raised yet.
    pub(crate) fn count(&mut self, name: &str) -> Result<u64> {
        match self.take(name)? {
            Value::Nil => Ok(0),
            value => count(&value).map_err(|_| odd_answer(&format!("a number as `{name}`"))),
        }
    }

    /// Milliseconds, below zero if there is no such time.
    pub(crate) fn time_if_any(&mut self, name: &str) -> Result<Option<Duration>> {
        let ms = number(&self.take(name)?).map_err(|_| odd_answer(&format!("a number as `{name}`")))?;
        Ok(u64::try_from(ms).ok().map(Duration::from_millis))
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String> {
        text(self.take(name)?).map_err(|_| odd_answer(&format!("text as `{name}`")))
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Vec<Value>> {
        array(self.take(name)?).map_err(|_| odd_answer(&format!("a list as `{name}`")))
    }

    pub(crate) fn id(&mut self, name: &str) -> Result<EntryId> {
        entry_id(&self.take(name)?).map_err(|_| odd_answer(&format!("an entry id as `{name}`")))
    }

    /// An id that is an empty text if there is none.
    pub(crate) fn id_if_any(&mut self, name: &str) -> Result<Option<EntryId>> {
        match self.take(name)? {
            Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
            id => entry_id(&id).map(Some).map_err(|_| odd_answer(&format!("an entry id as `{name}`"))),
        }
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(odd_answer("a string")),
    }
}

pub(super) fn text(value: Value) -> Result<String> {
    String::from_utf8(bytes(value)?).map_err(|_| odd_answer("text"))
}

/// A number, however it was written.
pub(super) fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(bytes) => ascii(bytes).and_then(|s| s.parse().ok()).ok_or_else(|| odd_answer("a number")),
        _ => Err(odd_answer("a number")),
    }
}

/// A count: never below zero, whatever else happened to the key.
pub(super) fn count(value: &Value) -> Result<u64> {
    Ok(number(value)?.max(0).unsigned_abs())
}

pub(super) fn entry_id(value: &Value) -> Result<EntryId> {
    let Value::BulkString(bytes) = value else { return Err(odd_answer("an entry id")) };
    ascii(bytes).and_then(|text| text.parse().ok()).ok_or_else(|| odd_answer("an entry id"))
}

/// The answer of XRANGE, XCLAIM, and of each stream in XREADGROUP.
pub(super) fn entries(value: Value) -> Result<Vec<RawEntry>> {
    array(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<RawEntry> {
    let [id, fields] = tuple(value)?;
    let fields = match fields {
        Value::Nil => None,
        fields => Some(array(fields)?),
    };
    Ok((entry_id(&id)?, fields))
}

/// The answer of XREADGROUP on one stream: nothing, or a list of one pair of the stream's name and its entries.
pub(super) fn read_entries(value: Value) -> Result<Vec<RawEntry>> {
    let mut streams = read_streams(value)?;
    Ok(streams.pop().map(|(_, entries)| entries).unwrap_or_default())
}

/// The answer of XREADGROUP: the streams that had something, with their entries.
pub(super) fn read_streams(value: Value) -> Result<Vec<(Vec<u8>, Vec<RawEntry>)>> {
    let stream = |value| {
        let [name, list] = tuple(value)?;
        Ok((bytes(name)?, entries(list)?))
    };
    array(value)?.into_iter().map(stream).collect()
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub(super) fn to_u32(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_missing_is_named() {
        let text = |text: &str| Value::BulkString(text.into());
        let answer = vec![text("lag"), Value::Int(3), text("base"), Value::Nil, text("due"), text("x")];
        let mut fields = Fields::of(Value::Array(answer)).expect("names and values");
        assert_eq!((fields.count("lag").ok(), fields.count("base").ok()), (Some(3), Some(0)));
        for (name, said) in [("dead", "`dead` was to come"), ("due", "a number as `due` was to come")] {
            let error = fields.count(name).expect_err(name).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
