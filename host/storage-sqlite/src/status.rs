//! The status of a subscription: counters for what is finished, counts of rows for what waits.

use std::time::Duration;

use super::error::Result;
use super::millis::millis;
use super::tx::Tx;
use super::{consumers, dead, subscriptions};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{IDLE_TIMER_HORIZON, SubscriptionStatus};

pub(crate) fn status(tx: &Tx<'_>, subscription: &Subscription) -> Result<SubscriptionStatus> {
    let group = subscriptions::find(tx, subscription)?;
    let count = |sql: &str| tx.number(sql, [group.id]);
    let pending_input = count("SELECT count(*) FROM pending WHERE subscription = ?1 AND queue = 0")?;
    let pending_redelivery = count("SELECT count(*) FROM pending WHERE subscription = ?1 AND queue = 1")?;
    let due = count("SELECT count(*) FROM due WHERE subscription = ?1")?;
    let far = "SELECT count(*) FROM due WHERE subscription = ?1 AND kind = 2 AND attempts = 0 AND due_ms > ?2";
    let far = tx.number(far, [group.id, tx.now_ms.saturating_add(millis(IDLE_TIMER_HORIZON))])?;
    let redelivery = count("SELECT count(*) FROM redelivery WHERE subscription = ?1")? - pending_redelivery;
    let quarantined = count("SELECT count(*) FROM pending WHERE subscription = ?1 AND consumer = -1")?;
    let left = tx.number(
        "SELECT count(*) FROM pending WHERE subscription = ?1 AND consumer = ?2",
        (group.id, consumers::ELSEWHERE),
    )?;
    // A host is a consumer of every subscription in its configuration, with or without deliveries in flight.
    let known = "SELECT count(*) FROM consumers
                 WHERE until_ms > ?2 OR id IN (SELECT consumer FROM pending WHERE subscription = ?1)";
    let known = tx.number(known, [group.id, tx.now_ms])?;
    let sql =
        "SELECT s.added - g.base, g.delivered, g.committed, g.skipped, g.duplicates, g.retried, g.dropped, g.timers,
               g.strayed, g.repeated FROM subscriptions g JOIN streams s ON s.id = g.stream WHERE g.id = ?1";
    let counters: Option<[i64; 10]> = tx.get(sql, [group.id], |row| {
        let mut counters = [0; 10];
        for (at, counter) in counters.iter_mut().enumerate() {
            *counter = row.get(at)?;
        }
        Ok(counters)
    })?;
    let [published, delivered, committed, skipped, duplicates, retried, dropped, timers, strayed, repeated] =
        counters.unwrap_or_default();
    // Another program may have deleted entries that were not delivered, or moved the group.
    let new = "SELECT EXISTS (SELECT 1 FROM entries WHERE stream = ?1 AND id > ?2)";
    let lag = match tx.number(new, (group.stream, group.last_id))? {
        0 => 0,
        _ => (published - delivered).max(1),
    };
    // Below zero only if another program deleted rows.
    let counters = |number: i64| u64::try_from(number).unwrap_or(0);
    let [new, in_flight] = oldest(tx, &group)?;
    let age = |at_ms: i64| Duration::from_millis(counters(tx.now_ms - at_ms));
    Ok(SubscriptionStatus {
        published: counters(published),
        timers: counters(timers),
        committed: counters(committed),
        skipped: counters(skipped),
        duplicates: counters(duplicates),
        retried: counters(retried),
        dropped: counters(dropped),
        strayed: counters(strayed),
        repeated: counters(repeated),
        lag: counters(lag),
        pending: counters(pending_input + pending_redelivery),
        due: counters(due),
        far: counters(far),
        redelivery: counters(redelivery),
        quarantined: counters(quarantined),
        left: counters(left),
        torn: 0,
        oldest_pending_age: in_flight.map(age),
        consumers: counters(known),
        oldest_age: new.into_iter().chain(in_flight).min().map(age),
        ..dead::counters(tx, group.id)?
    })
}

/// When the oldest of what waits in the stream came, and the oldest of what is pending.
fn oldest(tx: &Tx<'_>, group: &subscriptions::SubscriptionRow) -> Result<[Option<i64>; 2]> {
    let one = |sql: &str, params: &[i64]| tx.get(sql, rusqlite::params_from_iter(params), |row| row.get::<_, i64>(0));
    let new = one(
        "SELECT at_ms FROM entries WHERE stream = ?1 AND id > ?2 ORDER BY id LIMIT 1",
        &[group.stream, group.last_id],
    )?;
    let pending = [
        one(
            "SELECT e.at_ms FROM pending p JOIN entries e ON e.id = p.entry
             WHERE p.subscription = ?1 AND p.queue = 0 ORDER BY p.entry LIMIT 1",
            &[group.id],
        )?,
        one(
            "SELECT a.at_ms FROM pending p JOIN redelivery a ON a.id = p.entry
             WHERE p.subscription = ?1 AND p.queue = 1 ORDER BY p.entry LIMIT 1",
            &[group.id],
        )?,
    ];
    Ok([new, pending.into_iter().flatten().min()])
}
