//! Keyed state: one row a key, its values packed in one BLOB.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row;

use super::error::{Failed, Result};
use super::pack::{pack, unpack};
use super::row::limit;
use super::subscriptions;
use super::tx::Tx;
use tidemill_core::model::delivery::{KeyState, Subscription};
use tidemill_storage::Error;

pub(crate) fn read(tx: &Tx<'_>, subscription: i64, key: &str) -> Result<KeyState> {
    let sql = "SELECT version, pairs FROM state WHERE subscription = ?1 AND key = ?2";
    tx.get(sql, (subscription, key), |row| columns(row, 0))?.map_or(Ok(KeyState::default()), |found| parse(key, found))
}

pub(crate) fn list(
    tx: &Tx<'_>,
    subscription: &Subscription,
    after: Option<&str>,
    max: usize,
) -> Result<Vec<(String, KeyState)>> {
    let Some(subscription) = subscriptions::seek(tx, subscription)? else { return Ok(Vec::new()) };
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, columns(row, 1)?));
    let rows = match after {
        Some(after) => {
            let sql =
                "SELECT key, version, pairs FROM state WHERE subscription = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
            tx.all(sql, (subscription.id, after, limit(max)), read)?
        }
        None => {
            let sql = "SELECT key, version, pairs FROM state WHERE subscription = ?1 ORDER BY key LIMIT ?2";
            tx.all(sql, (subscription.id, limit(max)), read)?
        }
    };
    rows.into_iter().map(|(key, found)| Ok((key.clone(), parse(&key, found)?))).collect()
}

/// The keys that a settlement touches: read once, changed here, written once at its end.
pub(crate) struct StateCache {
    subscription: i64,
    keys: HashMap<Arc<str>, Held>,
}

struct Held {
    state: KeyState,
    changed: bool,
}

impl StateCache {
    pub(crate) fn new(subscription: i64) -> Self {
        Self { subscription, keys: HashMap::new() }
    }

    pub(crate) fn version(&mut self, tx: &Tx<'_>, key: &Arc<str>) -> Result<u64> {
        Ok(self.held(tx, key)?.state.version)
    }

    pub(crate) fn write(&mut self, tx: &Tx<'_>, key: Arc<str>, writes: BTreeMap<String, Option<Bytes>>) -> Result<()> {
        let held = self.held(tx, &key)?;
        held.changed = true;
        held.state.apply(writes);
        Ok(())
    }

    pub(crate) fn close(&self, tx: &Tx<'_>) -> Result<()> {
        for (key, Held { state, .. }) in self.keys.iter().filter(|(_, held)| held.changed) {
            let pairs = pack(state.values.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
            let sql = "INSERT INTO state (subscription, key, version, pairs) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT DO UPDATE SET version = excluded.version, pairs = excluded.pairs";
            tx.run(sql, (self.subscription, &**key, state.version.cast_signed(), pairs))?;
        }
        Ok(())
    }

    fn held(&mut self, tx: &Tx<'_>, key: &Arc<str>) -> Result<&mut Held> {
        if !self.keys.contains_key(key) {
            let state = read(tx, self.subscription, key)?;
            self.keys.insert(key.clone(), Held { state, changed: false });
        }
        self.keys.get_mut(key).ok_or_else(|| Failed(Error::Permanent("a key that was just read is gone".into())))
    }
}

type Columns = (i64, Bytes);

fn columns(row: &Row<'_>, at: usize) -> rusqlite::Result<Columns> {
    Ok((row.get(at)?, Bytes::from(row.get::<_, Vec<u8>>(at + 1)?)))
}

/// State is never invented: values that cannot be read fail the job that needs them, and nothing else.
fn parse(key: &str, (version, pairs): Columns) -> Result<KeyState> {
    let named = |(name, value): (Bytes, Bytes)| Some((String::from_utf8(name.into()).ok()?, value));
    let values = unpack(&pairs).and_then(|pairs| pairs.into_iter().map(named).collect());
    let broken =
        || Error::Permanent(format!("the stored state of key \"{key}\" cannot be read: another program wrote it"));
    Ok(KeyState { version: version.cast_unsigned(), values: values.ok_or_else(broken)? })
}
