//! Consumers and their heartbeats.

use std::time::Duration;

use super::clock_row;
use super::error::Result;
use super::millis::millis;
use super::tx::Tx;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::group::{WISH_LEAVE_TTL, WISH_TTL};
use tidemill_storage::{HEARTBEAT_MAX, HostInfo};

/// How long after its last heartbeat a consumer without pending deliveries is kept: for people to see, no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// In the place of a consumer's number: released deliveries have no owner, quarantined ones wait to run in isolation.
pub(crate) const RELEASED: i64 = 0;
pub(crate) const QUARANTINE: i64 = -1;
/// No row has this number.
pub(crate) const UNKNOWN: i64 = -2;
/// What was left for hosts that want it.
pub(crate) const ELSEWHERE: i64 = -3;

/// The number of a consumer. One without any heartbeat yet exists, but counts as dead.
pub(crate) fn make(tx: &Tx<'_>, name: &str) -> Result<i64> {
    match seek(tx, name)? {
        Some(id) => Ok(id),
        None => Ok(tx.insert("INSERT INTO consumers (name, until_ms) VALUES (?1, 0)", [name])?),
    }
}

pub(crate) fn seek(tx: &Tx<'_>, name: &str) -> Result<Option<i64>> {
    Ok(tx.get("SELECT id FROM consumers WHERE name = ?1", [name], |row| row.get(0))?)
}

pub(crate) fn heartbeat(tx: &mut Tx<'_>, name: &str, ttl: Duration, note: &str) -> Result<()> {
    let until = tx.now_ms.saturating_add(millis(ttl.min(HEARTBEAT_MAX)));
    tx.run("UPDATE consumers SET until_ms = ?2, note = ?3 WHERE id = ?1", (make(tx, name)?, until, note))?;
    // Its wishes as well: they show when a dead host's last heartbeat came.
    let until = tx.now_ms.saturating_add(millis(WISH_TTL));
    tx.run("UPDATE wishes SET until_ms = ?2 WHERE consumer = ?1 AND ended = 0", (name, until))?;
    clock_row::note(tx)
}

/// All live ones: a host is a consumer of every subscription in its configuration, and this file is one machine's.
pub(crate) fn hosts(tx: &Tx<'_>, _subscriptions: &[Subscription]) -> Result<Vec<HostInfo>> {
    let sql = "SELECT name, note FROM consumers WHERE until_ms > ?1 ORDER BY name";
    Ok(tx.all(sql, [tx.now_ms], |row| Ok(HostInfo { consumer: row.get(0)?, report: row.get(1)? }))?)
}

/// A consumer is one row for all its subscriptions: it releases the deliveries of all.
pub(crate) fn deregister(tx: &mut Tx<'_>, name: &str) -> Result<u64> {
    let Some(id) = seek(tx, name)? else { return Ok(0) };
    let released = tx.run("UPDATE pending SET consumer = ?2, alone = 0 WHERE consumer = ?1", (id, RELEASED))?;
    tx.run("DELETE FROM consumers WHERE id = ?1", [id])?;
    let until = tx.now_ms.saturating_add(millis(WISH_LEAVE_TTL));
    tx.run("UPDATE wishes SET until_ms = ?2, ended = 1 WHERE consumer = ?1", (name, until))?;
    Ok(released as u64)
}

/// Removes consumers that died long ago and hold nothing, a few at a time: each start of a host creates one.
pub(crate) fn forget_some(tx: &Tx<'_>) -> Result<()> {
    let long_ago = tx.now_ms.saturating_sub(millis(FORGOTTEN_AFTER));
    if tx.get("SELECT 1 FROM consumers WHERE until_ms < ?1 LIMIT 1", [long_ago], |_| Ok(()))?.is_some() {
        let sql = "DELETE FROM consumers WHERE id IN (
            SELECT id FROM consumers WHERE until_ms < ?1 AND id NOT IN (SELECT consumer FROM pending) LIMIT 1000)";
        tx.run(sql, [long_ago])?;
    }
    Ok(())
}
