//! Recovery: what a consumer lost sight of, and what the dead left behind.

use std::collections::HashSet;
use std::time::Duration;

use super::parcel::{from_again, from_input, id, lane_number, limit, number};
use super::plan::Place;
use super::tx::{Tx, millis};
use super::{consumers, sources};
use crate::backend::Result;
use crate::model::delivery::{Body, Delivery, EntryId, Lane, Source};

pub fn recover(
    tx: &mut Tx<'_>,
    source: &Source,
    consumer: &str,
    held: &HashSet<(Lane, EntryId)>,
    lease: Duration,
    max: usize,
) -> Result<Vec<Delivery>> {
    let source = sources::find(tx, source)?.id;
    let me = consumers::make(tx, consumer)?;
    let mut found = Vec::new();
    for place in lost(tx, source, me, held, max)? {
        found.push(take_over(tx, source, me, place, 0)?);
    }
    for place in left_behind(tx, source, me, lease, max - found.len())? {
        found.push(take_over(tx, source, me, place, 1)?);
    }
    consumers::forget_some(tx)?;
    Ok(found)
}

/// Pending under `me`, but not in hand.
fn lost(tx: &Tx<'_>, source: i64, me: i64, held: &HashSet<(Lane, EntryId)>, max: usize) -> Result<Vec<Place>> {
    let held: HashSet<Place> = held.iter().map(|(lane, entry)| (lane_number(*lane), number(*entry))).collect();
    // What is held is skipped after the limit: whoever holds many sees all of its own.
    let sql = "SELECT lane, entry FROM pending WHERE source = ?1 AND consumer = ?2 ORDER BY lane, entry LIMIT ?3";
    let own = tx.all(sql, (source, me, limit(max.saturating_add(held.len()))), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(own.into_iter().filter(|place| !held.contains(place)).take(max).collect())
}

/// Pending under consumers that do not live, and idle for the lease.
fn left_behind(tx: &Tx<'_>, source: i64, me: i64, lease: Duration, max: usize) -> Result<Vec<Place>> {
    let sql = "SELECT lane, entry FROM pending
               WHERE source = ?1 AND consumer <> ?2 AND delivered_ms <= ?3
                 AND consumer NOT IN (SELECT id FROM consumers WHERE until_ms > ?4)
               LIMIT ?5";
    let idle_since = tx.now_ms.saturating_sub(millis(lease));
    let params = (source, me, idle_since, tx.now_ms, limit(max));
    Ok(tx.all(sql, params, |row| Ok((row.get(0)?, row.get(1)?)))?)
}

fn take_over(tx: &Tx<'_>, source: i64, me: i64, (lane, entry): Place, crashed: u32) -> Result<Delivery> {
    let sql = "UPDATE pending SET consumer = ?4, delivered_ms = ?5, crashes = crashes + ?6
               WHERE source = ?1 AND lane = ?2 AND entry = ?3";
    tx.run(sql, (source, lane, entry, me, tx.now_ms, crashed))?;
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
    let body = Body::Fields(Vec::new());
    let (attempts, crashes, history) = (0, 0, Vec::new());
    Delivery { lane, entry: id(entry), origin: id(entry), body, attempts, crashes, history, replayed: None }
}

pub fn take_suspect(_tx: &mut Tx<'_>, _source: &Source, _consumer: &str) -> Result<Option<Delivery>> {
    Ok(None)
}
