//! Fetching: what comes next on both queues, and waiting for it without holding the thread.

use std::pin::{Pin, pin};
use std::time::Duration;

use rusqlite::Row;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};

use super::error::Result;
use super::job::Durability;
use super::room::Room;
use super::row::{from_redelivery, limit, number};
use super::tx::Tx;
use super::worker::Db;
use super::{consumers, subscriptions};
use tidemill_core::model::delivery::{Delivery, Subscription};
use tidemill_storage::Options;

/// How often a waiting fetch checks whether another process has written. Writes of its own process notify it.
const POLL: Duration = Duration::from_millis(50);

pub(crate) async fn fetch(
    db: &Db,
    subscription: &Subscription,
    consumer: &str,
    max: usize,
    wait: Duration,
    others_write: bool,
    options: &Options,
) -> Result<Vec<Delivery>> {
    // A wait beyond the end of time is a wait without end.
    let deadline = Instant::now().checked_add(wait);
    let wakeup = db.wakeups.of(&subscription.stream);
    loop {
        // Subscribes before it reads, so that no entry in between is missed.
        let mut woken = pin!(wakeup.notified());
        woken.as_mut().enable();
        let (job_subscription, job_consumer) = (subscription.clone(), consumer.to_owned());
        let mut room = Room::new(options);
        let work =
            move |tx: &mut Tx<'_>| Ok((take(tx, &job_subscription, &job_consumer, max, &mut room)?, data_version(tx)?));
        let (got, version) = db.ask(Durability::Relaxed, "fetch", work).await?;
        if !got.is_empty() || max == 0 || !news(db, woken, version, deadline, others_write).await? {
            return Ok(got);
        }
    }
}

/// Waits until there may be something to fetch; `false` when the time is up.
async fn news(
    db: &Db,
    mut woken: Pin<&mut Notified<'_>>,
    version: i64,
    deadline: Option<Instant>,
    others_write: bool,
) -> Result<bool> {
    loop {
        let poll = others_write.then(|| Instant::now() + POLL);
        let until = [poll, deadline].into_iter().flatten().min();
        let was_woken = match until {
            Some(until) => timeout_at(until, woken.as_mut()).await.is_ok(),
            None => {
                woken.as_mut().await;
                true
            }
        };
        if was_woken {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(false);
        }
        if db.ask(Durability::ReadOnly, "fetch", |tx| data_version(tx)).await? != version {
            return Ok(true);
        }
    }
}

/// A number that changes when another connection, hence another process, commits. Costs a look at shared memory.
fn data_version(tx: &Tx<'_>) -> Result<i64> {
    Ok(tx.number("PRAGMA data_version", [])?)
}

/// Up to half of the batch comes from the redelivery queue, the rest from the stream; an empty one gives its share to
/// the other. An odd one goes by chance, so that neither queue starves when `max` is 1.
fn take(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    consumer: &str,
    max: usize,
    room: &mut Room,
) -> Result<Vec<Delivery>> {
    let before = subscriptions::find(tx, subscription)?;
    let mut now = before;
    let odd = if tx.now_ms % 2 == 0 { max % 2 } else { 0 };
    let mut got = take_redelivery(tx, &mut now, max / 2 + odd, room)?;
    let redelivery = got.len();
    got.extend(take_input(tx, &mut now, max - redelivery, room)?);
    let input = got.len() - redelivery;
    if got.len() < max && redelivery == max / 2 + odd {
        got.extend(take_redelivery(tx, &mut now, max - got.len(), room)?);
    }
    if !got.is_empty() {
        hand_over(tx, &before, &now, consumer, input)?;
    }
    Ok(got)
}

fn take_redelivery(
    tx: &Tx<'_>,
    group: &mut subscriptions::SubscriptionRow,
    max: usize,
    room: &mut Room,
) -> Result<Vec<Delivery>> {
    let sql = "SELECT id, kind, body, origin, attempts, crashes, history, replayed FROM redelivery
               WHERE subscription = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    let read = |row: &Row<'_>| Ok(Some(from_redelivery(row)?).filter(|delivery| room.takes(delivery.bytes())));
    let got = tx.some(sql, (group.id, group.redelivery_id, limit(max)), read)?;
    group.redelivery_id = got.last().map_or(group.redelivery_id, |last| number(last.entry));
    Ok(got)
}

fn take_input(
    tx: &Tx<'_>,
    group: &mut subscriptions::SubscriptionRow,
    max: usize,
    room: &mut Room,
) -> Result<Vec<Delivery>> {
    let sql = "SELECT id, kind, iif(length(body) <= ?4, body, NULL), length(body) FROM entries
               WHERE stream = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    let params = (group.stream, group.last_id, limit(max), room.entry_bytes_max());
    let got = tx.some(sql, params, |row| room.entry(tx, row))?;
    group.last_id = got.last().map_or(group.last_id, |last| number(last.entry));
    Ok(got)
}

/// Makes what was read pending under its consumer: everything between the queues' old and new positions.
fn hand_over(
    tx: &Tx<'_>,
    before: &subscriptions::SubscriptionRow,
    now: &subscriptions::SubscriptionRow,
    consumer: &str,
    input: usize,
) -> Result<()> {
    let consumer = consumers::make(tx, consumer)?;
    if now.last_id > before.last_id {
        let sql = "INSERT INTO pending (subscription, queue, entry, consumer, delivered_ms, crashes)
                   SELECT ?1, 0, id, ?2, ?3, 0 FROM entries WHERE stream = ?4 AND id > ?5 AND id <= ?6";
        tx.run(sql, (now.id, consumer, tx.now_ms, now.stream, before.last_id, now.last_id))?;
    }
    if now.redelivery_id > before.redelivery_id {
        let sql = "INSERT INTO pending (subscription, queue, entry, consumer, delivered_ms, crashes)
                   SELECT ?1, 1, id, ?2, ?3, 0 FROM redelivery WHERE subscription = ?1 AND id > ?4 AND id <= ?5";
        tx.run(sql, (now.id, consumer, tx.now_ms, before.redelivery_id, now.redelivery_id))?;
    }
    let sql = "UPDATE subscriptions SET last_id = ?2, redelivery_id = ?3, delivered = delivered + ?4 WHERE id = ?1";
    tx.run(sql, (now.id, now.last_id, now.redelivery_id, limit(input)))?;
    Ok(())
}
