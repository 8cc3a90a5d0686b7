//! How deliveries and their bodies stand in rows.

use bytes::Bytes;
use rusqlite::Row;

use super::pack::{pack, unpack};
use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Queue, Replayed, Timer};
use tidemill_storage::wire;

pub(crate) const EVENT: i64 = 0;
const FIELDS: i64 = 1;
const TIMER: i64 = 2;
const LARGE: i64 = 3;

/// A delivery that leaves its queue, with everything that a redelivery needs: the columns that `due`, `redelivery` and
/// `dead` have in common.
pub(crate) struct DeliveryRow {
    pub origin: i64,
    pub kind: i64,
    pub body: Bytes,
    pub attempts: u32,
    pub crashes: u32,
    pub history: String,
    pub replayed: String,
}

impl DeliveryRow {
    /// With a record, its attempt is counted.
    pub(crate) fn of(delivery: &Delivery, record: Option<&AttemptRecord>) -> Self {
        let (kind, body) = columns(&delivery.body);
        let history = wire::write_history(delivery.history.iter().chain(record));
        let attempts = delivery.attempts.saturating_add(u32::from(record.is_some()));
        let replayed = write_replayed(delivery.replayed);
        Self { origin: number(delivery.origin), kind, body, attempts, crashes: delivery.crashes, history, replayed }
    }
}

impl DeliveryRow {
    /// The delivery that a timer will be.
    pub(crate) fn of_timer(origin: EntryId, timer: &Timer) -> Self {
        let (kind, body) = columns(&Body::Timer(timer.body.clone()));
        let (history, replayed) = (wire::write_history([]), write_replayed(None));
        Self { origin: number(origin), kind, body, attempts: 0, crashes: 0, history, replayed }
    }
}

/// The columns `kind` and `body`.
pub(crate) fn columns(body: &Body) -> (i64, Bytes) {
    match body {
        Body::Event(bytes) => (EVENT, bytes.clone()),
        Body::Timer(bytes) => (TIMER, bytes.clone()),
        Body::Fields(fields) => (FIELDS, pack(fields.iter().map(|(name, value)| (&name[..], &value[..]))).into()),
        Body::Large(large) => (LARGE, wire::write_large(large).into()),
    }
}

/// Reads the columns `kind` and `body`, which stand side by side from `at`.
pub(crate) fn body(row: &Row<'_>, at: usize) -> rusqlite::Result<Body> {
    let bytes = Bytes::from(row.get::<_, Vec<u8>>(at + 1)?);
    Ok(match row.get(at)? {
        EVENT => Body::Event(bytes),
        TIMER => Body::Timer(bytes),
        LARGE => wire::read_large(&bytes).map_or_else(|bytes| Body::Fields(vec![(Bytes::new(), bytes)]), Body::Large),
        // Written by another program in our format: not an event, and kept as it is.
        _ => Body::Fields(unpack(&bytes).unwrap_or_else(|| vec![(Bytes::new(), bytes)])),
    })
}

/// A row of `redelivery`, read as `id, kind, body, origin, attempts, crashes, history, replayed`.
pub(crate) fn from_redelivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        queue: Queue::Redelivery,
        entry: id(row.get(0)?),
        origin: id(row.get(3)?),
        body: body(row, 1)?,
        attempts: row.get(4)?,
        crashes: row.get(5)?,
        died_alone: false,
        isolated: false,
        history: wire::read_history(row.get_ref(6)?.as_bytes()?),
        replayed: read_replayed(row.get_ref(7)?.as_str()?),
    })
}

/// The column `replayed`: `12 1`, or nothing.
fn write_replayed(replayed: Option<Replayed>) -> String {
    replayed.map(|replayed| format!("{} {}", number(replayed.letter), replayed.times)).unwrap_or_default()
}

pub(crate) fn read_replayed(text: &str) -> Option<Replayed> {
    let (letter, times) = text.split_once(' ')?;
    Some(Replayed { letter: id(letter.parse().ok()?), times: times.parse().ok()? })
}

/// A row number as the contract's id.
pub(crate) fn id(number: i64) -> EntryId {
    EntryId(number.unsigned_abs(), 0)
}

/// The row number of an id; one that no row can have for an id that is none of ours.
pub(crate) fn number(id: EntryId) -> i64 {
    if id.1 == 0 { i64::try_from(id.0).unwrap_or(-1) } else { -1 }
}

/// The row number after which to go on when `id` was the last one.
pub(crate) fn after(id: Option<EntryId>) -> i64 {
    id.map_or(0, |id| i64::try_from(id.0).unwrap_or(i64::MAX))
}

/// `LIMIT` in SQL; a negative one would mean "no limit".
pub(crate) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(crate) fn queue_of(number: i64) -> Queue {
    if number == queue_number(Queue::Stream) { Queue::Stream } else { Queue::Redelivery }
}

pub(crate) fn queue_number(queue: Queue) -> i64 {
    match queue {
        Queue::Stream => 0,
        Queue::Redelivery => 1,
    }
}
