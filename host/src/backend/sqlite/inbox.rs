//! Which event ids were seen: by a handler when it committed, by a stream when it was published to. Ids lie in buckets
//! of time; a bucket is forgotten when the youngest id in it is older than the window.

use std::time::Duration;

use uuid::Uuid;

use super::tx::{Tx, millis};
use crate::backend::Result;
use crate::model::event::PayloadHash;

/// How many forgotten ids one job removes at most.
const FORGET_MAX: usize = 1000;

pub struct Inbox {
    scope: i64,
    /// Newest first, at least one. An id is looked for in each, so they should be few: three at most, if the clock goes
    /// evenly.
    buckets: Vec<i64>,
}

struct Bucket {
    id: i64,
    began_ms: i64,
}

/// The scope of a stream's own inbox; a source's is its number.
pub fn scope_of_stream(stream: i64) -> i64 {
    -stream
}

impl Inbox {
    /// To look into only.
    pub fn look(tx: &Tx<'_>, scope: i64) -> Result<Self> {
        Ok(Self { scope, buckets: buckets(tx)?.into_iter().map(|bucket| bucket.id).collect() })
    }

    /// To look into and add to: begins a bucket when half a window is over, forgets some of what is too old.
    pub fn open(tx: &Tx<'_>, scope: i64, window: Duration) -> Result<Self> {
        let window = millis(window);
        let mut buckets = buckets(tx)?;
        let span = (window / 2).max(1000);
        if buckets.first().is_none_or(|newest| newest.began_ms.saturating_add(span) <= tx.now_ms) {
            let id = tx.insert("INSERT INTO inbox_buckets (began_ms) VALUES (?1)", [tx.now_ms])?;
            buckets.insert(0, Bucket { id, began_ms: tx.now_ms });
        }
        // A bucket ended when the next one began.
        let over = |next: &Bucket| next.began_ms.saturating_add(window) <= tx.now_ms;
        if let [.., next, oldest] = &buckets[..]
            && over(next)
        {
            forget_some(tx, oldest.id)?;
        }
        let kept = 1 + buckets.windows(2).take_while(|pair| !over(&pair[0])).count();
        Ok(Self { scope, buckets: buckets[..kept].iter().map(|bucket| bucket.id).collect() })
    }

    pub fn find(&self, tx: &Tx<'_>, id: Uuid) -> Result<Option<PayloadHash>> {
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
    pub fn mark(&self, tx: &Tx<'_>, id: Uuid, hash: PayloadHash) -> Result<Option<PayloadHash>> {
        if let Some(seen) = self.find_in(tx, &self.buckets[1..], id)? {
            return Ok(Some(seen));
        }
        // Most are new: to try costs one way through the tree, to ask before would cost two.
        let sql = "INSERT OR IGNORE INTO inbox (bucket, scope, event, hash) VALUES (?1, ?2, ?3, ?4)";
        match tx.run(sql, (self.buckets[0], self.scope, id.as_bytes(), hash))? {
            0 => self.find_in(tx, &self.buckets[..1], id),
            _ => Ok(None),
        }
    }
}

/// Newest first.
fn buckets(tx: &Tx<'_>) -> Result<Vec<Bucket>> {
    let sql = "SELECT id, began_ms FROM inbox_buckets ORDER BY id DESC";
    Ok(tx.all(sql, [], |row| Ok(Bucket { id: row.get(0)?, began_ms: row.get(1)? }))?)
}

fn forget_some(tx: &Tx<'_>, bucket: i64) -> Result<()> {
    let sql = "DELETE FROM inbox WHERE (bucket, scope, event) IN (
        SELECT bucket, scope, event FROM inbox WHERE bucket = ?1 LIMIT ?2)";
    if tx.run(sql, (bucket, FORGET_MAX as i64))? < FORGET_MAX {
        tx.run("DELETE FROM inbox_buckets WHERE id = ?1", [bucket])?;
    }
    Ok(())
}
