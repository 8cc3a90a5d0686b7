//! How a delivery is written as fields of a stream entry (when it is delayed, redelivered, or dead-lettered), and how
//! entries of either queue and dead letters are read.
//!
//! `event` (or `timer`, or `fields`, or `large`), `origin`, `attempts`, `crashes`, `history`, `replayed`; a dead letter
//! has `class` and `text` before them.
//! An entry without `event` may have any number of fields of any name, also several of one name: they are packed into
//! one, `fields`, as netstrings (`4:name,5:value,`), so that they cannot meet ours and no script has to unpack them.

use bytes::Bytes;
use redis::{Cmd, RedisWrite, ToRedisArgs, Value};

use super::{replies, value};
use tidemill_core::model::dead_letter::{AttemptRecord, DeadLetter, Reason, ReasonClass};
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Queue, Replayed, Timer};
use tidemill_storage::{Options, Result, wire};

/// How many arguments [`write`] adds.
pub(super) const WRITTEN: usize = 12;

/// Adds the fields of a delivery to a command: with one try more if there is a record of it.
pub(super) fn write(cmd: &mut Cmd, delivery: &Delivery, record: Option<&AttemptRecord>) {
    match &delivery.body {
        Body::Event(bytes) => cmd.arg("event").arg(&bytes[..]),
        Body::Timer(bytes) => cmd.arg("timer").arg(&bytes[..]),
        Body::Fields(fields) => cmd.arg("fields").arg(pack(fields)),
        Body::Large(large) => cmd.arg("large").arg(wire::write_large(large)),
    };
    cmd.arg("origin").arg(WrittenId(delivery.origin));
    cmd.arg("attempts").arg(delivery.attempts + u32::from(record.is_some()));
    cmd.arg("crashes").arg(delivery.crashes);
    cmd.arg("history").arg(wire::write_history(delivery.history.iter().chain(record)));
    // Always there, because the scripts count the fields.
    let replayed = delivery.replayed.map(|replayed| format!("{} {}", replayed.letter, replayed.times));
    cmd.arg("replayed").arg(replayed.unwrap_or_default());
}

/// Adds the fields of the delivery that a timer will be.
pub(super) fn write_timer(cmd: &mut Cmd, origin: EntryId, timer: &Timer) {
    cmd.arg("timer").arg(&timer.body[..]).arg("origin").arg(WrittenId(origin));
    cmd.arg("attempts").arg(0).arg("crashes").arg(0).arg("history").arg("[]").arg("replayed").arg("");
}

/// How many dead letters there may be, and their bytes: in one argument, which only the scripts that add one take
/// apart.
pub(super) struct WrittenBounds {
    letters: u64,
    bytes: u64,
}

impl WrittenBounds {
    pub(crate) fn of(options: &Options) -> Self {
        Self { letters: options.dead_letters_max, bytes: options.dead_letters_bytes_max }
    }
}

impl ToRedisArgs for WrittenBounds {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("{} {}", self.letters, self.bytes));
    }
}

/// Ids go into commands by the hundred: without a string for each.
pub(super) struct WrittenId(pub EntryId);

impl ToRedisArgs for WrittenId {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self.0);
    }
}

/// A delivery from a stream entry. An entry that was deleted while it was pending is returned without fields: it is
/// then dead-lettered like any entry that is no event, which is better than to lose it without a trace.
pub(super) fn delivery(queue: Queue, entry: EntryId, fields: Option<Vec<Value>>) -> Result<Delivery> {
    let fields = fields.unwrap_or_default();
    match queue {
        Queue::Stream => Ok(Delivery::first(queue, entry, input_body(fields)?)),
        Queue::Redelivery => {
            let record = Record::read(fields, entry)?;
            let Record { origin, attempts, crashes, history, replayed, body, .. } = record;
            Ok(Delivery { origin, attempts, crashes, history, replayed, ..Delivery::first(queue, entry, body) })
        }
    }
}

pub(super) fn dead_letter(id: EntryId, fields: Vec<Value>) -> Result<DeadLetter> {
    let Record { class, text, origin, attempts, crashes, history, replayed, body } = Record::read(fields, id)?;
    // A class that this version does not know is that of a newer one. Its text still describes what happened.
    let class = ReasonClass::parse(&class).unwrap_or(ReasonClass::Rejected);
    let reason = Reason { class, text };
    Ok(DeadLetter { id, origin, body, reason, at_ms: id.0, attempts, crashes, history, replayed })
}

/// The event of an entry, if it is one.
pub(super) fn event(fields: Vec<Value>) -> Result<Option<Bytes>> {
    match input_body(fields)? {
        Body::Event(bytes) => Ok(Some(bytes)),
        Body::Fields(_) | Body::Timer(_) | Body::Large(_) => Ok(None),
    }
}

fn input_body(mut fields: Vec<Value>) -> Result<Body> {
    if let Some(large) = replies::large(&fields) {
        return Ok(Body::Large(large));
    }
    let is_event = |pair: &[Value]| matches!(&pair[0], Value::BulkString(name) if name == b"event");
    if let Some(at) = fields.chunks_exact(2).position(is_event) {
        return Ok(Body::Event(value::bytes(fields.swap_remove(2 * at + 1))?.into()));
    }
    let mut all = Vec::with_capacity(fields.len() / 2);
    for_each_pair(fields, |name, value| all.push((name.into(), value.into())))?;
    Ok(Body::Fields(all))
}

/// What [`write`] wrote.
struct Record {
    body: Body,
    origin: EntryId,
    attempts: u32,
    crashes: u32,
    history: Vec<AttemptRecord>,
    replayed: Option<Replayed>,
    class: String,
    text: String,
}

impl Record {
    /// Only Tidemill writes these entries. What another program made of them is read as far as it goes: an entry that
    /// could not be read at all would be redelivered for ever.
    fn read(fields: Vec<Value>, entry: EntryId) -> Result<Self> {
        let (body, history, class, text) = (Body::Fields(Vec::new()), Vec::new(), String::new(), String::new());
        let mut record = Self { body, origin: entry, attempts: 0, crashes: 0, history, replayed: None, class, text };
        for_each_pair(fields, |name, value| match &name[..] {
            b"event" => record.body = Body::Event(value.into()),
            b"timer" => record.body = Body::Timer(value.into()),
            b"fields" => record.body = Body::Fields(unpack(&value.into())),
            b"large" => {
                record.body = wire::read_large(&value.into())
                    .map_or_else(|bytes| Body::Fields(vec![(Bytes::new(), bytes)]), Body::Large)
            }
            b"origin" => record.origin = parse(&value).unwrap_or(entry),
            b"attempts" => record.attempts = parse(&value).unwrap_or(0),
            b"crashes" => record.crashes = parse(&value).unwrap_or(0),
            b"history" => record.history = wire::read_history(&value),
            b"replayed" => record.replayed = parse_replayed(&value),
            b"class" => record.class = String::from_utf8_lossy(&value).into_owned(),
            b"text" => record.text = String::from_utf8_lossy(&value).into_owned(),
            _ => {}
        })?;
        Ok(record)
    }
}

/// `1700000000000-0 2`: the letter, and how often it has been replayed.
fn parse_replayed(bytes: &[u8]) -> Option<Replayed> {
    let (letter, times) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Some(Replayed { letter: letter.parse().ok()?, times: times.parse().ok()? })
}

pub(super) fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub(super) fn for_each_pair(fields: Vec<Value>, mut each: impl FnMut(Vec<u8>, Vec<u8>)) -> Result<()> {
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        each(value::bytes(name)?, value::bytes(value)?);
    }
    Ok(())
}

fn pack(fields: &[(Bytes, Bytes)]) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        packed.extend_from_slice(format!("{}:", part.len()).as_bytes());
        packed.extend_from_slice(part);
        packed.push(b',');
    }
    packed
}

/// Reads what `pack` wrote, up to where it is broken.
fn unpack(packed: &Bytes) -> Vec<(Bytes, Bytes)> {
    let mut at = 0;
    let mut part = || {
        let colon = at + packed[at..].iter().position(|b| *b == b':')?;
        let len: usize = parse(&packed[at..colon])?;
        let end = (colon + 1).checked_add(len).filter(|end| *end < packed.len())?;
        at = end + 1;
        Some(packed.slice(colon + 1..end))
    };
    std::iter::from_fn(|| Some((part()?, part()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_fields_come_back_byte_for_byte() {
        let bytes = |b: &[u8]| Bytes::copy_from_slice(b);
        let fields = vec![
            (bytes(b"event "), bytes(b"1:a,")),
            (bytes(b""), bytes(b"\0\xff,:")),
            (bytes(b"twice"), bytes(b"a")),
            (bytes(b"twice"), bytes(b"")),
        ];
        assert_eq!(unpack(&pack(&fields).into()), fields);
        assert_eq!(unpack(&Bytes::new()), []);
        for broken in ["5:ab", "x:ab,1:a,", "99999999999999999999:a,", "1:a,", "1", "18446744073709551615:a,1:a,"] {
            assert_eq!(unpack(&Bytes::from(broken)), [], "{broken}");
        }
    }
}
