//! Streams: appending, listing, trimming.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::Result;
use super::inbox::{Inbox, scope_of_stream};
use super::job::Durability;
use super::millis::millis;
use super::row::{after, columns, id, limit};
use super::subscriptions;
use super::tx::Tx;
use super::worker::Db;
use tidemill_core::model::delivery::{Body, EntryId};
use tidemill_storage::{Bounds, NewEntry, Overflow, Published, Trimmed};

/// How many entries one transaction removes at most, so that trimming does not block other jobs.
const TRIM_STEP: usize = 1000;
/// Entries that are read to count those that are too old and stay: those beyond are not counted.
const HELD_COUNTED_MAX: i64 = 10_000;

pub(crate) fn publish(
    tx: &mut Tx<'_>,
    name: Arc<str>,
    entries: &[NewEntry],
    window: Duration,
) -> Result<Vec<Published>> {
    let stream = subscriptions::make_stream(tx, &name)?;
    let dedup_keys = entries.iter().any(|entry| entry.dedup_key.is_some());
    let inbox = if dedup_keys { Some(Inbox::open(tx, scope_of_stream(stream), window)?) } else { None };
    let mut answers = Vec::with_capacity(entries.len());
    for entry in entries {
        answers.push(publish_one(tx, stream, inbox.as_ref(), entry)?);
    }
    let count = answers.iter().filter(|answer| matches!(answer, Published::Added(_))).count();
    added(tx, &name, stream, limit(count))?;
    Ok(answers)
}

fn publish_one(tx: &Tx<'_>, stream: i64, inbox: Option<&Inbox>, entry: &NewEntry) -> Result<Published> {
    if let (Some(inbox), Some((id, hash))) = (inbox, entry.dedup_key) {
        match inbox.record(tx, id, hash)? {
            Some(seen) if seen == hash => return Ok(Published::Duplicate),
            Some(_) => return Ok(Published::Conflict),
            None => {}
        }
    }
    Ok(Published::Added(id(append(tx, stream, &entry.body)?)))
}

#[cfg(test)]
pub(crate) fn publish_fields(tx: &mut Tx<'_>, name: Arc<str>, fields: &[(Bytes, Bytes)]) -> Result<EntryId> {
    let stream = subscriptions::make_stream(tx, &name)?;
    let (kind, body) = columns(&Body::Fields(fields.to_vec()));
    let row = insert(tx, stream, kind, &body)?;
    added(tx, &name, stream, 1)?;
    Ok(id(row))
}

/// Appends an event; the caller still has to call `added` with the count.
pub(crate) fn append(tx: &Tx<'_>, stream: i64, body: &Bytes) -> Result<i64> {
    let (kind, body) = columns(&Body::Event(body.clone()));
    insert(tx, stream, kind, &body)
}

fn insert(tx: &Tx<'_>, stream: i64, kind: i64, body: &[u8]) -> Result<i64> {
    let sql = "INSERT INTO entries (stream, at_ms, kind, body) VALUES (?1, ?2, ?3, ?4)";
    Ok(tx.insert(sql, (stream, tx.now_ms, kind, body))?)
}

/// Counts what was appended, and wakes the fetches that wait for it.
pub(crate) fn added(tx: &mut Tx<'_>, name: &Arc<str>, stream: i64, count: i64) -> Result<()> {
    if count > 0 {
        tx.run("UPDATE streams SET added = added + ?2 WHERE id = ?1", (stream, count))?;
        tx.notify(name);
    }
    Ok(())
}

pub(crate) fn entries(tx: &Tx<'_>, stream: &str, last: Option<EntryId>, max: usize) -> Result<Vec<(EntryId, Bytes)>> {
    let Some(stream) = subscriptions::seek_stream(tx, stream)? else { return Ok(Vec::new()) };
    // Entries without an event (kind 1) are no events.
    let sql = "SELECT id, body FROM entries WHERE stream = ?1 AND id > ?2 AND kind = 0 ORDER BY id LIMIT ?3";
    let read = |row: &rusqlite::Row<'_>| Ok((id(row.get(0)?), Bytes::from(row.get::<_, Vec<u8>>(1)?)));
    Ok(tx.all(sql, (stream, after(last), limit(max)), read)?)
}

pub(crate) async fn trim(db: &Db, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
    let (mut removed, mut lost) = (0, 0);
    loop {
        let (stream, bounds) = (stream.to_owned(), bounds.clone());
        let step = db.ask(Durability::Relaxed, "trim", move |tx| trim_step(tx, &stream, &bounds)).await?;
        removed += step.removed;
        lost += step.lost;
        if step.removed < TRIM_STEP as u64 {
            return Ok(Trimmed { removed, lost, ..step });
        }
    }
}

fn trim_step(tx: &Tx<'_>, name: &str, bounds: &Bounds) -> Result<Trimmed> {
    let Some(stream) = subscriptions::seek_stream(tx, name)? else { return Ok(Trimmed::default()) };
    let there = tx.number("SELECT added - trimmed FROM streams WHERE id = ?1", [stream])?;
    let over = bounds.maxlen.map_or(0, |max| there.saturating_sub(i64::try_from(max).unwrap_or(i64::MAX)));
    let too_old = bounds.retention.map_or(i64::MIN, |age| tx.now_ms.saturating_sub(millis(age)));
    let spared = match bounds.overflow {
        Overflow::Keep => finished_before(tx, stream)?,
        Overflow::Drop => i64::MAX,
    };
    let sql = "SELECT id, at_ms FROM entries WHERE stream = ?1 AND id < ?2 ORDER BY id LIMIT ?3";
    let oldest =
        tx.all(sql, (stream, spared, limit(TRIM_STEP)), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let goes = |at: usize, at_ms: i64| limit(at) < over || at_ms < too_old;
    let count = oldest.iter().enumerate().take_while(|(at, (_, at_ms))| goes(*at, *at_ms)).count();
    let mut lost = 0;
    if let Some((last, _)) = count.checked_sub(1).and_then(|at| oldest.get(at)) {
        if bounds.overflow == Overflow::Drop {
            lost = count_lost(tx, stream, *last)?;
        }
        tx.run("DELETE FROM entries WHERE stream = ?1 AND id <= ?2", (stream, last))?;
        tx.run("UPDATE streams SET trimmed = trimmed + ?2 WHERE id = ?1", (stream, limit(count)))?;
    }
    let sql = "SELECT at_ms FROM entries WHERE stream = ?1 ORDER BY id LIMIT 1";
    let oldest_ms: Option<i64> = tx.get(sql, [stream], |row| row.get(0))?;
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Trimmed {
        removed: count as u64,
        lost,
        length: unsigned(there - limit(count)),
        oldest_age: oldest_ms.map(|at_ms| Duration::from_millis(unsigned(tx.now_ms - at_ms))),
        held: unsigned((over - limit(count)).max(count_older(tx, stream, too_old)?)),
    })
}

/// How many of the oldest entries came before a time, as far as `HELD_COUNTED_MAX`.
fn count_older(tx: &Tx<'_>, stream: i64, at_ms: i64) -> Result<i64> {
    let sql = "SELECT count(*) FROM (SELECT at_ms FROM entries WHERE stream = ?1 ORDER BY id LIMIT ?3)
               WHERE at_ms < ?2";
    Ok(tx.number(sql, (stream, at_ms, HELD_COUNTED_MAX))?)
}

/// Counts for every group what it loses when all entries up to `last` go: what it has not read counts as read, and as
/// dropped. What is pending is counted when it is settled; without its body it becomes a dead letter. Returns how many
/// of the entries some group had not finished.
fn count_lost(tx: &Tx<'_>, stream: i64, last: i64) -> Result<u64> {
    let sql = "SELECT count(*) FROM entries e WHERE e.stream = ?1 AND e.id <= ?2 AND EXISTS (
                 SELECT 1 FROM subscriptions g WHERE g.stream = e.stream AND (g.last_id < e.id OR EXISTS (
                   SELECT 1 FROM pending p WHERE p.subscription = g.id AND p.queue = 0 AND p.entry = e.id)))";
    let lost = tx.number(sql, (stream, last))?;
    let sql =
        "SELECT g.id, (SELECT count(*) FROM entries e WHERE e.stream = g.stream AND e.id > g.last_id AND e.id <= ?2)
               FROM subscriptions g WHERE g.stream = ?1 AND g.last_id < ?2";
    let behind = tx.all(sql, (stream, last), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    for (group, unread) in behind {
        let sql =
            "UPDATE subscriptions SET dropped = dropped + ?2, delivered = delivered + ?2, last_id = ?3 WHERE id = ?1";
        tx.run(sql, (group, unread, last))?;
    }
    Ok(lost.unsigned_abs())
}

/// The first entry that some group has not finished: pending, or not read yet. A stream that no group reads has none.
fn finished_before(tx: &Tx<'_>, stream: i64) -> Result<i64> {
    let sql = "SELECT coalesce(min(coalesce(
                 (SELECT min(p.entry) FROM pending p WHERE p.subscription = g.id AND p.queue = 0), g.last_id + 1)), ?2)
               FROM subscriptions g WHERE g.stream = ?1";
    Ok(tx.number(sql, (stream, i64::MAX))?)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    /// A stream of so many entries that are a second old, without a group.
    fn database(entries: i64) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema.sql")).unwrap();
        let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
                   INSERT INTO entries (stream, at_ms, kind, body) SELECT 1, ?2, 0, x'' FROM n";
        conn.execute("INSERT INTO streams (id, name, added) VALUES (1, 's', ?1)", [entries]).unwrap();
        conn.execute(sql, (entries, NOW - 1000)).unwrap();
        conn
    }

    fn step(conn: &Connection, bounds: &Bounds) -> Trimmed {
        let mut to_notify: Vec<Arc<str>> = Vec::new();
        trim_step(&Tx::at(conn, NOW, &mut to_notify), "s", bounds).unwrap()
    }

    /// Reaches `TRIM_STEP`.
    #[test]
    fn a_step_removes_so_many_and_the_next_one_the_rest() {
        let conn = database(TRIM_STEP as i64 + 1);
        let bounds = Bounds { maxlen: Some(0), overflow: Overflow::Drop, ..Bounds::default() };
        let removed = [(); 3].map(|()| step(&conn, &bounds).removed);
        assert_eq!(removed, [TRIM_STEP as u64, 1, 0]);
    }

    /// Reaches `HELD_COUNTED_MAX`.
    #[test]
    fn what_is_held_is_counted_up_to_a_bound() {
        let second = Bounds { retention: Some(Duration::from_millis(500)), ..Bounds::default() };
        for (entries, counted) in [(HELD_COUNTED_MAX, HELD_COUNTED_MAX), (HELD_COUNTED_MAX + 1, HELD_COUNTED_MAX)] {
            let conn = database(entries);
            // A group that has read nothing.
            let sql = "INSERT INTO subscriptions (stream, handler, last_id, base) VALUES (1, 'h', 0, 0)";
            conn.execute(sql, []).unwrap();
            let trimmed = step(&conn, &second);
            assert_eq!((trimmed.removed, trimmed.held), (0, counted as u64));
        }
    }
}
