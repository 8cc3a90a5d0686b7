//! Recovery: what a consumer lost sight of, and what the dead left behind.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::Row;

use super::parcel::{fresh, from_again, from_input, id, lane_number, limit, number};
use super::plan::Place;
use super::tx::{Tx, millis};
use super::{consumers, sources};
use crate::backend::{CRASH_WINDOW, Recovered, Result};
use crate::model::delivery::{Body, Delivery, EntryId, Lane, Source};

pub fn recover(
    tx: &mut Tx<'_>,
    source: &Source,
    consumer: &str,
    held: &HashSet<(Lane, EntryId)>,
    lease: Duration,
    max: usize,
) -> Result<Recovered> {
    let source = sources::find(tx, source)?.id;
    let me = consumers::make(tx, consumer)?;
    let mut deliveries = Vec::new();
    for place in lost(tx, source, me, held, max)? {
        deliveries.push(take_over(tx, source, me, place)?);
    }
    for place in released(tx, source, max - deliveries.len())? {
        deliveries.push(take_over(tx, source, me, place)?);
    }
    for (place, alone) in left_behind(tx, source, me, lease, max - deliveries.len())? {
        count_crash(tx, source, place)?;
        let mut delivery = take_over(tx, source, me, place)?;
        delivery.died_alone = alone;
        deliveries.push(delivery);
    }
    consumers::forget_some(tx)?;
    let sql = "SELECT count(*) FROM pending WHERE source = ?1 AND consumer = ?2";
    let suspects = tx.number(sql, (source, consumers::QUARANTINE))?.unsigned_abs();
    Ok(Recovered { deliveries, suspects })
}

pub fn take_suspect(tx: &mut Tx<'_>, source: &Source, consumer: &str) -> Result<Option<Delivery>> {
    let source = sources::find(tx, source)?.id;
    let sql = "SELECT lane, entry FROM pending WHERE source = ?1 AND consumer = ?2 ORDER BY lane, entry LIMIT 1";
    let Some(place) = tx.get(sql, (source, consumers::QUARANTINE), place)? else { return Ok(None) };
    let me = consumers::make(tx, consumer)?;
    let delivery = take_over(tx, source, me, place)?;
    let sql = "UPDATE pending SET alone = 1 WHERE source = ?1 AND lane = ?2 AND entry = ?3";
    tx.run(sql, (source, place.0, place.1))?;
    Ok(Some(delivery))
}

fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Pending under `me`, but not in hand.
fn lost(tx: &Tx<'_>, source: i64, me: i64, held: &HashSet<(Lane, EntryId)>, max: usize) -> Result<Vec<Place>> {
    let held: HashSet<Place> = held.iter().map(|(lane, entry)| (lane_number(*lane), number(*entry))).collect();
    // What is held is skipped after the limit: whoever holds many sees all of its own.
    let sql = "SELECT lane, entry FROM pending WHERE source = ?1 AND consumer = ?2 ORDER BY lane, entry LIMIT ?3";
    let own = tx.all(sql, (source, me, limit(max.saturating_add(held.len()))), place)?;
    Ok(own.into_iter().filter(|place| !held.contains(place)).take(max).collect())
}

fn released(tx: &Tx<'_>, source: i64, max: usize) -> Result<Vec<Place>> {
    let sql = "SELECT lane, entry FROM pending WHERE source = ?1 AND consumer = ?2 ORDER BY lane, entry LIMIT ?3";
    Ok(tx.all(sql, (source, consumers::RELEASED, limit(max)), place)?)
}

/// Pending under consumers that do not live, and idle for the lease; and whether it was being run alone.
fn left_behind(tx: &Tx<'_>, source: i64, me: i64, lease: Duration, max: usize) -> Result<Vec<(Place, bool)>> {
    let sql = "SELECT lane, entry, alone FROM pending
               WHERE source = ?1 AND consumer > 0 AND consumer <> ?2 AND delivered_ms <= ?3
                 AND consumer NOT IN (SELECT id FROM consumers WHERE until_ms > ?4)
               LIMIT ?5";
    let idle_since = tx.now_ms.saturating_sub(millis(lease));
    let params = (source, me, idle_since, tx.now_ms, limit(max));
    Ok(tx.all(sql, params, |row| Ok((place(row)?, row.get(2)?)))?)
}

/// Deaths of long ago are no evidence any more.
fn count_crash(tx: &Tx<'_>, source: i64, (lane, entry): Place) -> Result<()> {
    let sql = "UPDATE pending SET crashes = iif(crashed_ms < ?5, 1, crashes + 1), crashed_ms = ?4, alone = 0
               WHERE source = ?1 AND lane = ?2 AND entry = ?3";
    let window_began = tx.now_ms.saturating_sub(millis(CRASH_WINDOW));
    tx.run(sql, (source, lane, entry, tx.now_ms, window_began))?;
    Ok(())
}

/// Puts a delivery into the hands of `me`.
fn take_over(tx: &Tx<'_>, source: i64, me: i64, (lane, entry): Place) -> Result<Delivery> {
    let sql = "UPDATE pending SET consumer = ?4, delivered_ms = ?5
               WHERE source = ?1 AND lane = ?2 AND entry = ?3";
    tx.run(sql, (source, lane, entry, me, tx.now_ms))?;
    let sql = "SELECT crashes FROM pending WHERE source = ?1 AND lane = ?2 AND entry = ?3";
    let crashes = u32::try_from(tx.number(sql, (source, lane, entry))?).unwrap_or(u32::MAX);
    let mut delivery = if lane == lane_number(Lane::Input) {
        tx.get("SELECT id, kind, body FROM entries WHERE id = ?1", [entry], from_input)?
            .unwrap_or_else(|| without_body(Lane::Input, entry))
    } else {
        let sql = "SELECT id, kind, body, origin, attempts, crashes, history, replayed FROM again WHERE id = ?1";
        tx.get(sql, [entry], from_again)?.unwrap_or_else(|| without_body(Lane::Again, entry))
    };
    delivery.crashes = delivery.crashes.saturating_add(crashes);
    Ok(delivery)
}

/// A stranger deleted the entry. It is handed out all the same, without any field: so it ends as a dead letter that
/// somebody sees, not as a row that nobody ever settles.
fn without_body(lane: Lane, entry: i64) -> Delivery {
    fresh(lane, id(entry), Body::Fields(Vec::new()))
}
