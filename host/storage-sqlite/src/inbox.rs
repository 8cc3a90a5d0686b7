//! Which event ids were seen: by a handler when it committed, by a stream when it was published to. Ids lie in buckets
//! of time; a bucket expires when the youngest id in it is older than the window. Hosts may have different windows: the
//! longest counts.

use std::time::Duration;

use uuid::Uuid;

use super::error::Result;
use super::millis::millis;
use super::tx::Tx;
use tidemill_core::model::entry::PayloadHash;

/// How many expired ids one job removes at most.
const FORGET_MAX: usize = 1000;

pub(crate) struct Inbox {
    scope: i64,
    /// Newest first, at least one. A lookup reads each of them, so they should be few: three at most, if the clock goes
    /// evenly.
    buckets: Vec<i64>,
}

struct Bucket {
    id: i64,
    began_ms: i64,
    window_ms: i64,
    /// When the next one began; 0 for the newest.
    ended_ms: i64,
    over: bool,
}

/// Of buckets that seem to be over after a while without any, so many are kept: the clock may have been set ahead.
const KEPT: usize = 2;

/// The scope of a stream's own inbox; a subscription's is its number.
pub(crate) fn scope_of_stream(stream: i64) -> i64 {
    -stream
}

impl Inbox {
    /// For lookups only.
    pub(crate) fn look(tx: &Tx<'_>, scope: i64) -> Result<Self> {
        Ok(Self { scope, buckets: buckets(tx)?.into_iter().map(|bucket| bucket.id).collect() })
    }

    /// For lookups and inserts: begins a bucket when half a window is over, removes some ids that are too old.
    pub(crate) fn open(tx: &Tx<'_>, scope: i64, window: Duration) -> Result<Self> {
        let window = millis(window);
        let mut buckets = buckets(tx)?;
        let span = (window / 2).max(1000);
        match buckets.first() {
            Some(newest) if newest.began_ms.saturating_add(span) > tx.now_ms => {
                if newest.window_ms < window {
                    tx.run("UPDATE inbox_buckets SET window_ms = ?2 WHERE id = ?1", (newest.id, window))?;
                }
            }
            _ => begin(tx, &mut buckets, window, span)?,
        }
        if let Some(oldest) = buckets.iter().rev().find(|bucket| bucket.over) {
            forget_some(tx, oldest.id)?;
        }
        Ok(Self { scope, buckets: buckets.iter().filter(|bucket| !bucket.over).map(|bucket| bucket.id).collect() })
    }

    pub(crate) fn find(&self, tx: &Tx<'_>, id: Uuid) -> Result<Option<PayloadHash>> {
        self.find_in(tx, &self.buckets, id)
    }

    fn find_in(&self, tx: &Tx<'_>, buckets: &[i64], id: Uuid) -> Result<Option<PayloadHash>> {
        for bucket in buckets {
            let sql = "SELECT hash FROM inbox WHERE bucket = ?1 AND scope = ?2 AND event = ?3";
            let found = tx.get(sql, (bucket, self.scope, id.as_bytes()), |row| row.get(0))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Adds an id unless it is there; answers with what was there.
    pub(crate) fn record(&self, tx: &Tx<'_>, id: Uuid, hash: PayloadHash) -> Result<Option<PayloadHash>> {
        if let Some(seen) = self.find_in(tx, &self.buckets[1..], id)? {
            return Ok(Some(seen));
        }
        // Most are new: an insert costs one descent of the tree, a lookup before it would cost two.
        let sql = "INSERT OR IGNORE INTO inbox (bucket, scope, event, hash) VALUES (?1, ?2, ?3, ?4)";
        match tx.run(sql, (self.buckets[0], self.scope, id.as_bytes(), hash))? {
            0 => self.find_in(tx, &self.buckets[..1], id),
            _ => Ok(None),
        }
    }
}

/// Begins a bucket. A bucket that ended longer ago than the longest window of the hosts that wrote into it is over.
fn begin(tx: &Tx<'_>, buckets: &mut Vec<Bucket>, window: i64, span: i64) -> Result<()> {
    // One soon after the other means that the clock has gone evenly.
    let evenly = buckets.first().is_some_and(|newest| newest.began_ms.saturating_add(2 * span) > tx.now_ms);
    if let Some(newest) = buckets.first_mut() {
        newest.ended_ms = tx.now_ms;
        tx.run("UPDATE inbox_buckets SET ended_ms = ?2 WHERE id = ?1", (newest.id, tx.now_ms))?;
    }
    let sql = "INSERT INTO inbox_buckets (began_ms, window_ms) VALUES (?1, ?2)";
    let id = tx.insert(sql, (tx.now_ms, window))?;
    buckets.insert(0, Bucket { id, began_ms: tx.now_ms, window_ms: window, ended_ms: 0, over: false });
    let mut kept = if evenly { 0 } else { KEPT };
    for bucket in &mut buckets[1..] {
        if bucket.over || bucket.ended_ms.saturating_add(bucket.window_ms.max(window)) > tx.now_ms {
            continue;
        }
        if kept > 0 {
            kept -= 1;
            continue;
        }
        bucket.over = true;
        tx.run("UPDATE inbox_buckets SET over = 1 WHERE id = ?1", [bucket.id])?;
    }
    Ok(())
}

/// Newest first.
fn buckets(tx: &Tx<'_>) -> Result<Vec<Bucket>> {
    let sql = "SELECT id, began_ms, window_ms, ended_ms, over FROM inbox_buckets ORDER BY id DESC";
    Ok(tx.all(sql, [], |row| {
        Ok(Bucket {
            id: row.get(0)?,
            began_ms: row.get(1)?,
            window_ms: row.get(2)?,
            ended_ms: row.get(3)?,
            over: row.get(4)?,
        })
    })?)
}

fn forget_some(tx: &Tx<'_>, bucket: i64) -> Result<()> {
    let sql = "DELETE FROM inbox WHERE (bucket, scope, event) IN (
        SELECT bucket, scope, event FROM inbox WHERE bucket = ?1 LIMIT ?2)";
    if tx.run(sql, (bucket, FORGET_MAX as i64))? < FORGET_MAX {
        tx.run("DELETE FROM inbox_buckets WHERE id = ?1", [bucket])?;
    }
    Ok(())
}
