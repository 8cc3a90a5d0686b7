//! What each version of a subscription's plugin has committed.

use super::error::Result;
use super::row::limit;
use super::subscriptions;
use super::tx::Tx;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{VERSIONS_MAX, VersionCount};

pub(crate) fn count(tx: &Tx<'_>, subscription: i64, digest: &str, committed: i64) -> Result<()> {
    if committed == 0 || digest.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO versions (subscription, digest, committed, since_ms) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO UPDATE SET committed = committed + excluded.committed RETURNING committed";
    let total: Option<i64> = tx.get(sql, (subscription, digest, committed, tx.wall_ms), |row| row.get(0))?;
    if total == Some(committed) {
        forget_oldest(tx, subscription)?;
    }
    Ok(())
}

/// Of what is beyond the bound only the sum is kept.
fn forget_oldest(tx: &Tx<'_>, subscription: i64) -> Result<()> {
    let max = limit(VERSIONS_MAX);
    let sql = "SELECT digest, committed FROM versions WHERE subscription = ?1 AND digest <> ''
               ORDER BY since_ms DESC, digest DESC LIMIT -1 OFFSET ?2";
    let old: Vec<(String, i64)> = tx.all(sql, (subscription, max), |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (digest, committed) in old {
        tx.run("DELETE FROM versions WHERE subscription = ?1 AND digest = ?2", (subscription, digest))?;
        let sql = "INSERT INTO versions (subscription, digest, committed, since_ms) VALUES (?1, '', ?2, 0)
                   ON CONFLICT DO UPDATE SET committed = committed + excluded.committed";
        tx.run(sql, (subscription, committed))?;
    }
    Ok(())
}

pub(crate) fn list(tx: &Tx<'_>, subscription: &Subscription) -> Result<Vec<VersionCount>> {
    let Some(subscription) = subscriptions::seek(tx, subscription)? else { return Ok(Vec::new()) };
    let sql =
        "SELECT digest, committed, since_ms FROM versions WHERE subscription = ?1 ORDER BY since_ms DESC, digest DESC";
    // Below zero only if another program wrote there.
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let row = |row: &rusqlite::Row<'_>| {
        Ok(VersionCount { digest: row.get(0)?, committed: count(row.get(1)?), since_ms: count(row.get(2)?) })
    };
    Ok(tx.all(sql, [subscription.id], row)?)
}
