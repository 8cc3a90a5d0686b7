//! Looking after a subscription: the hosts' wishes, and what other programs have done to it. A group cannot be lost
//! here: its row stays.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::Result;
use super::millis::millis;
use super::row::{id, limit};
use super::tx::Tx;
use super::{consumers, subscriptions};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::group::{WISH_LEAVE_TTL, WISH_TTL};
use tidemill_storage::{SubscriptionStatus, Tended, Wish};

/// Rows are counted for the counters, and they may be many.
const COUNT_EVERY: Duration = Duration::from_secs(5);

pub(crate) fn tend(tx: &mut Tx<'_>, subscription: &Subscription, consumer: &str, wish: &str) -> Result<Tended> {
    let group = subscriptions::find(tx, subscription)?;
    let agreed = say(tx, &group, consumer, wish)?;
    let sql = "SELECT count(*) FROM pending WHERE subscription = ?1 AND consumer = ?2";
    let left = tx.number(sql, (group.id, consumers::ELSEWHERE))?.unsigned_abs();
    let seen_last = tx.number("SELECT seen_last FROM subscriptions WHERE id = ?1", [group.id])?;
    if seen_last != group.last_id {
        tx.run("UPDATE subscriptions SET seen_last = ?2 WHERE id = ?1", (group.id, group.last_id))?;
    }
    let tended_ms = tx.number("SELECT tended_ms FROM subscriptions WHERE id = ?1", [group.id])?;
    let (mut strayed, mut repeated) = (0, 0);
    // Or the clock was set back.
    if tended_ms > tx.now_ms || tended_ms.saturating_add(millis(COUNT_EVERY)) <= tx.now_ms {
        tx.run("UPDATE subscriptions SET tended_ms = ?2 WHERE id = ?1", (group.id, tx.now_ms))?;
        (strayed, repeated) = count_strangers(tx, &group, &super::status::status(tx, subscription)?)?;
    }
    let wishes = list(tx, group.id)?;
    let set_back = (seen_last > group.last_id).then(|| id(seen_last));
    Ok(Tended { agreed, wishes, left, strayed, repeated, set_back })
}

pub(crate) fn wishes(tx: &Tx<'_>, subscription: &Subscription) -> Result<Vec<Wish>> {
    match subscriptions::seek(tx, subscription)? {
        Some(group) => list(tx, group.id),
        None => Ok(Vec::new()),
    }
}

/// Stores a host's wish. A change of the set of wishes makes a new agreement; returns its number.
fn say(tx: &Tx<'_>, group: &subscriptions::SubscriptionRow, consumer: &str, wish: &str) -> Result<u64> {
    let sql = "SELECT DISTINCT wish FROM wishes WHERE subscription = ?1";
    let distinct = || tx.all(sql, [group.id], |row| row.get::<_, String>(0));
    let before: BTreeSet<String> = distinct()?.into_iter().collect();
    // A dead host whose last heartbeat is older than a deregistered host's with the same wish was replaced by that one.
    let sql = "DELETE FROM wishes AS w WHERE subscription = ?1 AND consumer <> ?3 AND (until_ms < ?2 OR (
                 EXISTS (SELECT 1 FROM wishes e WHERE e.subscription = ?1 AND e.wish = w.wish AND e.ended = 1
                         AND e.until_ms < ?2 AND w.until_ms - ?4 <= e.until_ms - ?5)
                 AND consumer NOT IN (SELECT name FROM consumers WHERE until_ms >= ?2)))";
    tx.run(sql, (group.id, tx.now_ms, consumer, millis(WISH_TTL), millis(WISH_LEAVE_TTL)))?;
    let until = tx.now_ms.saturating_add(millis(WISH_TTL));
    let sql =
        "SELECT 1 FROM wishes WHERE subscription = ?1 AND consumer = ?2 AND wish = ?3 AND until_ms BETWEEN ?4 AND ?5";
    let fresh = until.saturating_sub(millis(WISH_TTL / 4));
    if tx.get(sql, (group.id, consumer, wish, fresh, until), |_| Ok(()))?.is_some() && distinct()?.len() == before.len()
    {
        return Ok(group.agreed);
    }
    let sql = "INSERT INTO wishes (subscription, consumer, until_ms, wish) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO UPDATE SET until_ms = excluded.until_ms, ended = 0, wish = excluded.wish";
    tx.run(sql, (group.id, consumer, until, wish))?;
    if distinct()?.into_iter().collect::<BTreeSet<_>>() == before {
        return Ok(group.agreed);
    }
    tx.run("UPDATE subscriptions SET agreed = agreed + 1 WHERE id = ?1", [group.id])?;
    Ok(group.agreed + 1)
}

/// Once all is fetched, every entry has to be accounted for.
fn count_strangers(
    tx: &Tx<'_>,
    group: &subscriptions::SubscriptionRow,
    counters: &SubscriptionStatus,
) -> Result<(u64, u64)> {
    if counters.lag > 0 || counters.balances() {
        return Ok((0, 0));
    }
    let came = counters.published + counters.timers + counters.repeated;
    let gone = counters.committed
        + counters.skipped
        + counters.dead
        + counters.dropped
        + counters.strayed
        + counters.waiting();
    let (strayed, repeated) = (came.saturating_sub(gone), gone.saturating_sub(came));
    // What was not delivered and is gone counts as delivered: no consumer can get it any more.
    let sql = "UPDATE subscriptions SET strayed = strayed + ?2, repeated = repeated + ?3,
                 delivered = (SELECT s.added FROM streams s WHERE s.id = subscriptions.stream) - base WHERE id = ?1";
    tx.run(sql, (group.id, limit(strayed as usize), limit(repeated as usize)))?;
    Ok((strayed, repeated))
}

fn list(tx: &Tx<'_>, subscription: i64) -> Result<Vec<Wish>> {
    let sql = "SELECT w.consumer, w.wish, coalesce(c.until_ms, 0) > ?2 FROM wishes w
               LEFT JOIN consumers c ON c.name = w.consumer WHERE w.subscription = ?1 ORDER BY w.consumer";
    let read = |row: &rusqlite::Row<'_>| Ok(Wish { consumer: row.get(0)?, wish: row.get(1)?, alive: row.get(2)? });
    Ok(tx.all(sql, (subscription, tx.now_ms), read)?)
}
