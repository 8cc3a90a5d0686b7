//! Taking answers of Redis apart by hand: what is large is moved, never copied.

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
