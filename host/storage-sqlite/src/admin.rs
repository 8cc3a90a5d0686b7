//! Operator actions on a subscription: replaying, dropping and editing dead letters; pausing; and their audit records.

use bytes::Bytes;

use super::error::Result;
use super::row::{after, columns, id, limit, number, read_replayed};
use super::subscriptions;
use super::tx::Tx;
use tidemill_core::model::delivery::{Body, EntryId, Subscription};
use tidemill_storage::{AUDIT_IDS_MAX, AUDIT_MAX, AuditRecord, Operator, Pause};

pub(crate) fn replay(tx: &mut Tx<'_>, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize> {
    let Some(group) = subscriptions::seek(tx, subscription)? else { return Ok(0) };
    let mut done = Vec::new();
    for id in ids.iter().map(|id| number(*id)) {
        if bring_back(tx, group.id, id, None)? {
            done.push(id);
        }
    }
    close_replay(tx, subscription, group.id, "replay", &done, act)
}

pub(crate) fn edit(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    id: EntryId,
    body: &Bytes,
    act: &Operator,
) -> Result<bool> {
    let Some(group) = subscriptions::seek(tx, subscription)? else { return Ok(false) };
    let id = number(id);
    let done: Vec<i64> = if bring_back(tx, group.id, id, Some(body))? { vec![id] } else { Vec::new() };
    Ok(close_replay(tx, subscription, group.id, "edit", &done, act)? == 1)
}

/// Moves one dead letter to `redelivery`. The history stays, in case it is dead-lettered again; attempts and crashes
/// restart at 0. A timer (`kind` 2) stays one, whatever its body becomes.
fn bring_back(tx: &Tx<'_>, subscription: i64, id: i64, body: Option<&Bytes>) -> Result<bool> {
    let sql = "SELECT replayed FROM dead WHERE id = ?1 AND subscription = ?2";
    let Some(before) = tx.get(sql, (id, subscription), |row| row.get::<_, String>(0))? else { return Ok(false) };
    let times = read_replayed(&before).map_or(0, |replayed| replayed.times).saturating_add(1);
    let sql = "INSERT INTO redelivery (subscription, at_ms, origin, kind, body, attempts, crashes, history, replayed)
               SELECT subscription, ?3, origin, iif(kind = 2, 2, coalesce(?5, kind)), coalesce(?6, body), 0, 0, history, ?4
               FROM dead WHERE id = ?1 AND subscription = ?2";
    let (kind, body) = body.map(|body| columns(&Body::Event(body.clone()))).unzip();
    tx.run(sql, (id, subscription, tx.now_ms, format!("{id} {times}"), kind, body.as_deref()))?;
    tx.run("DELETE FROM dead WHERE id = ?1 AND subscription = ?2", (id, subscription))?;
    Ok(true)
}

fn close_replay(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    id: i64,
    verb: &str,
    done: &[i64],
    act: &Operator,
) -> Result<usize> {
    if !done.is_empty() {
        write_down(tx, id, verb, done, act)?;
        tx.notify(&subscription.stream);
    }
    Ok(done.len())
}

pub(crate) fn drop_dead(
    tx: &mut Tx<'_>,
    subscription: &Subscription,
    ids: &[EntryId],
    act: &Operator,
) -> Result<usize> {
    let Some(group) = subscriptions::seek(tx, subscription)? else { return Ok(0) };
    let mut done = Vec::new();
    for id in ids.iter().map(|id| number(*id)) {
        if tx.run("DELETE FROM dead WHERE id = ?1 AND subscription = ?2", (id, group.id))? == 1 {
            done.push(id);
        }
    }
    if !done.is_empty() {
        tx.run("UPDATE subscriptions SET dropped = dropped + ?2 WHERE id = ?1", (group.id, limit(done.len())))?;
        write_down(tx, group.id, "drop", &done, act)?;
    }
    Ok(done.len())
}

/// A call that changes nothing writes no audit record.
pub(crate) fn set_paused(tx: &mut Tx<'_>, subscription: &Subscription, paused: bool, act: &Operator) -> Result<()> {
    let group = subscriptions::find(tx, subscription)?;
    if tx.run("UPDATE subscriptions SET paused = ?2 WHERE id = ?1 AND paused <> ?2", (group.id, paused))? == 1 {
        write_down(tx, group.id, if paused { "pause" } else { "resume" }, &[], act)?;
    }
    Ok(())
}

pub(crate) fn paused(tx: &Tx<'_>, subscriptions: &[Subscription]) -> Result<Vec<Pause>> {
    let sql =
        "SELECT g.paused FROM subscriptions g JOIN streams s ON s.id = g.stream WHERE s.name = ?1 AND g.handler = ?2";
    let one = |subscription: &Subscription| {
        let flag = tx.get(sql, (&*subscription.stream, &*subscription.handler), |row| row.get::<_, bool>(0))?;
        Ok(if flag == Some(true) { Pause::Asked } else { Pause::No })
    };
    subscriptions.iter().map(one).collect()
}

fn write_down(tx: &Tx<'_>, subscription: i64, verb: &str, done: &[i64], act: &Operator) -> Result<()> {
    let ids: Vec<String> = done.iter().take(AUDIT_IDS_MAX).map(i64::to_string).collect();
    let sql =
        "INSERT INTO audit (subscription, at_ms, verb, count, ids, who, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.run(sql, (subscription, tx.wall_ms, verb, limit(done.len()), ids.join(" "), &act.name, &act.reason))?;
    // One was added, so at most one is deleted; the newest to be deleted is `AUDIT_MAX` behind.
    let sql = "DELETE FROM audit WHERE subscription = ?1 AND id <= (
                 SELECT id FROM audit WHERE subscription = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    tx.run(sql, (subscription, limit(AUDIT_MAX)))?;
    Ok(())
}

pub(crate) fn audit(
    tx: &Tx<'_>,
    subscription: &Subscription,
    last: Option<EntryId>,
    max: usize,
) -> Result<Vec<AuditRecord>> {
    let Some(group) = subscriptions::seek(tx, subscription)? else { return Ok(Vec::new()) };
    let sql = "SELECT id, at_ms, verb, count, ids, who, note FROM audit
               WHERE subscription = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    let records = tx.all(sql, (group.id, after(last), limit(max)), |row| {
        let ids: String = row.get(4)?;
        Ok(AuditRecord {
            id: id(row.get(0)?),
            at_ms: row.get::<_, i64>(1)?.unsigned_abs(),
            verb: row.get(2)?,
            count: row.get::<_, i64>(3)?.unsigned_abs(),
            ids: ids.split(' ').filter_map(|number| number.parse().ok()).map(id).collect(),
            operator: Operator { name: row.get(5)?, reason: row.get(6)? },
        })
    })?;
    Ok(records)
}
