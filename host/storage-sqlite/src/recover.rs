//! Recovery: a consumer's own lost deliveries, and the orphaned deliveries of dead consumers.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::Row;

use super::error::Result;
use super::millis::millis;
use super::plan::RowKey;
use super::room::Room;
use super::row::{from_redelivery, id, limit, number, queue_number, queue_of};
use super::tx::Tx;
use super::{consumers, subscriptions};
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Queue, Subscription};
use tidemill_storage::group::LEFT_FOR;
use tidemill_storage::{CRASH_WINDOW, CRASHED_WEIGHT, CRASHES_MAX, Options, Recovered};

pub(crate) fn recover(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    consumer: &str,
    held: &HashSet<(Queue, EntryId)>,
    lease: Duration,
    max: usize,
    options: &Options,
) -> Result<Recovered> {
    let subscription = subscriptions::find(tx, subscription)?.id;
    let me = consumers::make(tx, consumer)?;
    let (mut deliveries, mut room) = (Vec::new(), Room::new(options));
    let mut places = lost(tx, subscription, me, held, max)?;
    places.extend(released(tx, subscription, max - places.len())?);
    let mut more = places.len() == max;
    for place in places {
        if room.is_full() {
            more = true;
            break;
        }
        deliveries.extend(take_over(tx, subscription, me, place, &mut room)?);
    }
    let (mut left, mut quarantined) = (max - deliveries.len(), Vec::new());
    for behind in left_behind(tx, subscription, me, lease, left)? {
        // Deliveries that several hosts crashed with come a few at a time: one more crash then narrows the suspects.
        let suspect = behind.crashes >= CRASHES_MAX && !behind.alone;
        let takes = if suspect {
            0
        } else if behind.crashes > 1 {
            CRASHED_WEIGHT
        } else {
            1
        };
        if room.is_full() || takes > left && !deliveries.is_empty() {
            more = true;
            break;
        }
        left = left.saturating_sub(takes);
        note_crash(tx, subscription, &behind)?;
        if suspect {
            set_aside(tx, subscription, behind.place)?;
            quarantined.push((queue_of(behind.place.0), id(behind.place.1)));
        } else if let Some(mut delivery) = take_over(tx, subscription, me, behind.place, &mut room)? {
            delivery.died_alone = behind.alone;
            deliveries.push(delivery);
        }
    }
    consumers::forget_some(tx)?;
    let sql = "SELECT count(*) FROM pending WHERE subscription = ?1 AND consumer = ?2";
    let suspects = tx.number(sql, (subscription, consumers::QUARANTINE))?.unsigned_abs();
    Ok(Recovered { deliveries, more: more || room.is_full() || left == 0, quarantined, suspects })
}

pub(crate) fn take_suspect(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    consumer: &str,
    options: &Options,
) -> Result<Option<Delivery>> {
    let subscription = subscriptions::find(tx, subscription)?.id;
    let sql =
        "SELECT queue, entry FROM pending WHERE subscription = ?1 AND consumer = ?2 ORDER BY queue, entry LIMIT 1";
    let Some(place) = tx.get(sql, (subscription, consumers::QUARANTINE), place)? else { return Ok(None) };
    let me = consumers::make(tx, consumer)?;
    let delivery = take_over(tx, subscription, me, place, &mut Room::for_one(options))?;
    let sql = "UPDATE pending SET alone = 1 WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
    tx.run(sql, (subscription, place.0, place.1))?;
    Ok(delivery)
}

/// Takes deliveries that were left for other hosts. One that was just left waits: another host may be about to take it.
pub(crate) fn take_left(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    consumer: &str,
    max: usize,
    options: &Options,
) -> Result<Vec<Delivery>> {
    let subscription = subscriptions::find(tx, subscription)?.id;
    let me = consumers::make(tx, consumer)?;
    let sql = "SELECT queue, entry FROM pending WHERE subscription = ?1 AND consumer = ?2 AND delivered_ms <= ?3
               ORDER BY queue, entry LIMIT ?4";
    let since = tx.now_ms.saturating_sub(millis(LEFT_FOR));
    let (mut taken, mut room) = (Vec::new(), Room::new(options));
    for place in tx.all(sql, (subscription, consumers::ELSEWHERE, since, limit(max)), place)? {
        if room.is_full() {
            break;
        }
        taken.extend(take_over(tx, subscription, me, place, &mut room)?);
    }
    Ok(taken)
}

fn place(row: &Row<'_>) -> rusqlite::Result<RowKey> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Pending under `me`, but not in flight there.
fn lost(tx: &Tx<'_>, subscription: i64, me: i64, held: &HashSet<(Queue, EntryId)>, max: usize) -> Result<Vec<RowKey>> {
    let held: HashSet<RowKey> = held.iter().map(|(queue, entry)| (queue_number(*queue), number(*entry))).collect();
    // Held ones are skipped after the limit: a consumer that holds many still sees all of its own.
    let sql =
        "SELECT queue, entry FROM pending WHERE subscription = ?1 AND consumer = ?2 ORDER BY queue, entry LIMIT ?3";
    let own = tx.all(sql, (subscription, me, limit(max.saturating_add(held.len()))), place)?;
    Ok(own.into_iter().filter(|place| !held.contains(place)).take(max).collect())
}

fn released(tx: &Tx<'_>, subscription: i64, max: usize) -> Result<Vec<RowKey>> {
    let sql =
        "SELECT queue, entry FROM pending WHERE subscription = ?1 AND consumer = ?2 ORDER BY queue, entry LIMIT ?3";
    Ok(tx.all(sql, (subscription, consumers::RELEASED, limit(max)), place)?)
}

/// A delivery that a dead consumer had in flight.
struct Behind {
    place: RowKey,
    /// It was running in isolation.
    alone: bool,
    /// Hosts that have died with it, this one counted.
    crashes: u32,
}

/// Pending under dead consumers, and idle for the lease. Crashes of long ago are no evidence any more.
fn left_behind(tx: &Tx<'_>, subscription: i64, me: i64, lease: Duration, max: usize) -> Result<Vec<Behind>> {
    let sql = "SELECT queue, entry, alone, iif(crashed_ms < ?6, 1, crashes + 1) FROM pending
               WHERE subscription = ?1 AND consumer > 0 AND consumer <> ?2 AND delivered_ms <= ?3
                 AND consumer NOT IN (SELECT id FROM consumers WHERE until_ms > ?4)
               LIMIT ?5";
    let idle_since = tx.now_ms.saturating_sub(millis(lease));
    let window_began = tx.now_ms.saturating_sub(millis(CRASH_WINDOW));
    let params = (subscription, me, idle_since, tx.now_ms, limit(max), window_began);
    let read = |row: &Row<'_>| Ok(Behind { place: place(row)?, alone: row.get(2)?, crashes: row.get(3)? });
    Ok(tx.all(sql, params, read)?)
}

fn note_crash(tx: &Tx<'_>, subscription: i64, behind: &Behind) -> Result<()> {
    let sql = "UPDATE pending SET crashes = ?5, crashed_ms = ?4, alone = 0
               WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
    let (queue, entry) = behind.place;
    tx.run(sql, (subscription, queue, entry, tx.now_ms, behind.crashes))?;
    Ok(())
}

/// Moves it into quarantine, before any host reads it: its bytes may be what crashes hosts.
fn set_aside(tx: &Tx<'_>, subscription: i64, (queue, entry): RowKey) -> Result<()> {
    let sql = "UPDATE pending SET consumer = ?4 WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
    tx.run(sql, (subscription, queue, entry, consumers::QUARANTINE))?;
    Ok(())
}

/// Makes a delivery pending under `me`. If it does not fit, it stays pending there, and the next recovery finds it.
fn take_over(
    tx: &Tx<'_>,
    subscription: i64,
    me: i64,
    (queue, entry): RowKey,
    room: &mut Room,
) -> Result<Option<Delivery>> {
    let sql = "UPDATE pending SET consumer = ?4, delivered_ms = ?5
               WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
    tx.run(sql, (subscription, queue, entry, me, tx.now_ms))?;
    let sql = "SELECT crashes FROM pending WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
    let crashes = u32::try_from(tx.number(sql, (subscription, queue, entry))?).unwrap_or(u32::MAX);
    let found = if queue == queue_number(Queue::Stream) {
        let sql = "SELECT id, kind, iif(length(body) <= ?2, body, NULL), length(body) FROM entries WHERE id = ?1";
        tx.get(sql, (entry, room.entry_bytes_max()), |row| room.entry(tx, row))?
            .unwrap_or_else(|| Some(without_body(Queue::Stream, entry)))
    } else {
        let sql = "SELECT id, kind, body, origin, attempts, crashes, history, replayed FROM redelivery WHERE id = ?1";
        let found = tx.get(sql, [entry], from_redelivery)?.unwrap_or_else(|| without_body(Queue::Redelivery, entry));
        room.takes(found.bytes()).then_some(found)
    };
    Ok(found.map(|delivery| Delivery { crashes: delivery.crashes.saturating_add(crashes), ..delivery }))
}

/// Another program deleted the entry. It is delivered all the same, without any field: so it ends as a visible dead
/// letter, not as a row that is never settled.
fn without_body(queue: Queue, entry: i64) -> Delivery {
    Delivery::first(queue, id(entry), Body::Fields(Vec::new()))
}
