//! Retries and timers: delayed until they are due, then moved to the redelivery queue.

use std::time::Duration;

use super::error::Result;
use super::row::{DeliveryRow, limit};
use super::subscriptions;
use super::tx::Tx;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::Promoted;

pub(crate) fn schedule(tx: &Tx<'_>, subscription: i64, after_ms: i64, parcel: &DeliveryRow) -> Result<()> {
    let DeliveryRow { origin, kind, body, attempts, crashes, history, replayed } = parcel;
    let due_ms = tx.now_ms.saturating_add(after_ms);
    let sql = "INSERT INTO due (subscription, due_ms, origin, kind, body, attempts, crashes, history, replayed)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    tx.run(sql, (subscription, due_ms, origin, kind, &body[..], attempts, crashes, history, replayed))?;
    Ok(())
}

/// How many timers wait, and what is due already and waits to be fetched: a handler whose timers set timers fills that.
pub(crate) fn timers_waiting(tx: &Tx<'_>, subscription: i64) -> Result<i64> {
    let sql = "SELECT (SELECT count(*) FROM due WHERE subscription = ?1 AND kind = 2 AND attempts = 0)
                    + (SELECT count(*) FROM redelivery WHERE subscription = ?1)";
    Ok(tx.number(sql, [subscription])?)
}

pub(crate) fn promote(tx: &mut Tx<'_>, subscription: &Subscription, max: usize) -> Result<Promoted> {
    let Some(group) = subscriptions::seek(tx, subscription)? else { return Ok(Promoted::default()) };
    let sql = "SELECT id FROM due WHERE subscription = ?1 AND due_ms <= ?2 ORDER BY due_ms, id LIMIT ?3";
    let due: Vec<i64> = tx.all(sql, (group.id, tx.now_ms, limit(max)), |row| row.get(0))?;
    for id in &due {
        let sql = "INSERT INTO redelivery (subscription, at_ms, origin, kind, body, attempts, crashes, history, replayed)
                   SELECT subscription, ?2, origin, kind, body, attempts, crashes, history, replayed FROM due WHERE id = ?1";
        tx.run(sql, (id, tx.now_ms))?;
        tx.run("DELETE FROM due WHERE id = ?1", [id])?;
    }
    if !due.is_empty() {
        tx.notify(&subscription.stream);
    }
    let sql = "SELECT due_ms FROM due WHERE subscription = ?1 ORDER BY due_ms LIMIT 1";
    let next: Option<i64> = tx.get(sql, [group.id], |row| row.get(0))?;
    let next_in = next.map(|next| Duration::from_millis(u64::try_from(next - tx.now_ms).unwrap_or(0)));
    Ok(Promoted { moved: due.len(), next_in })
}
