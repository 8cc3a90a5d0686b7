//! Streams and consumer groups by name.

use std::sync::Arc;

use super::error::{Failed, Result};
use super::tx::Tx;
use tidemill_core::model::delivery;
use tidemill_storage::{Error, Group, Start};

/// A group as it stands at the beginning of a job.
#[derive(Clone, Copy)]
pub(crate) struct SubscriptionRow {
    pub id: i64,
    pub stream: i64,
    /// How far the queues were read.
    pub(crate) last_id: i64,
    pub(crate) redelivery_id: i64,
    /// The number of what hosts have agreed on.
    pub agreed: u64,
}

pub(crate) fn find(tx: &Tx<'_>, subscription: &delivery::Subscription) -> Result<SubscriptionRow> {
    seek(tx, subscription)?.ok_or_else(|| Failed(Error::GroupGone { subscription: subscription.to_string() }))
}

/// For questions whose answer is "nothing" where there is no group.
pub(crate) fn seek(tx: &Tx<'_>, subscription: &delivery::Subscription) -> Result<Option<SubscriptionRow>> {
    let sql = "SELECT g.id, g.stream, g.last_id, g.redelivery_id, g.agreed FROM subscriptions g JOIN streams s ON s.id = g.stream
               WHERE s.name = ?1 AND g.handler = ?2";
    Ok(tx.get(sql, (&*subscription.stream, &*subscription.handler), |row| {
        let agreed = row.get::<_, i64>(4)?.unsigned_abs();
        Ok(SubscriptionRow {
            id: row.get(0)?,
            stream: row.get(1)?,
            last_id: row.get(2)?,
            redelivery_id: row.get(3)?,
            agreed,
        })
    })?)
}

pub(crate) fn ensure(tx: &mut Tx<'_>, subscription: &delivery::Subscription, start: Start) -> Result<Group> {
    let stream = make_stream(tx, &subscription.stream)?;
    let (last_id, base) = match start {
        // What was trimmed before does not concern this group.
        Start::Beginning => (0, tx.number("SELECT trimmed FROM streams WHERE id = ?1", [stream])?),
        Start::New => (
            tx.number("SELECT coalesce(max(id), 0) FROM entries WHERE stream = ?1", [stream])?,
            tx.number("SELECT added FROM streams WHERE id = ?1", [stream])?,
        ),
    };
    let made = tx.run(
        "INSERT INTO subscriptions (stream, handler, last_id, base) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        (stream, &*subscription.handler, last_id, base),
    )?;
    Ok(if made == 1 { Group::New } else { Group::There })
}

/// The secret for ids: created by the first host on this file.
pub(crate) fn ids_key(tx: &Tx<'_>, fresh: [u8; 32]) -> Result<[u8; 32]> {
    tx.run("INSERT INTO ids_key (id, key) VALUES (1, ?1) ON CONFLICT DO NOTHING", [fresh])?;
    let key = tx.get("SELECT key FROM ids_key WHERE id = 1", [], |row| row.get(0))?;
    Ok(key.unwrap_or(fresh))
}

pub(crate) fn seek_stream(tx: &Tx<'_>, name: &str) -> Result<Option<i64>> {
    Ok(tx.get("SELECT id FROM streams WHERE name = ?1", [name], |row| row.get(0))?)
}

/// The number of a stream, which is created if need be.
pub(crate) fn make_stream(tx: &Tx<'_>, name: &Arc<str>) -> Result<i64> {
    match seek_stream(tx, name)? {
        Some(id) => Ok(id),
        None => Ok(tx.insert("INSERT INTO streams (name) VALUES (?1)", [&**name])?),
    }
}
