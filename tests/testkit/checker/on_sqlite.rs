//! Reading the store with plain SQL.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result, Row};

use super::{Counters, Dead, Found, Store, Waiting};

pub(super) fn read(store: &Store, file: &Path) -> Result<Found> {
    let db = open(file)?;
    let subscription: i64 = db.query_row(
        "SELECT g.id FROM subscriptions g JOIN streams s ON s.id = g.stream WHERE s.name = ?1 AND g.handler = ?2",
        (&store.input, &store.handler),
        |row| row.get(0),
    )?;
    let emitted = "SELECT e.body FROM entries e JOIN streams s ON s.id = e.stream WHERE s.name = ?1 ORDER BY e.id";
    Ok(Found {
        emitted: all(&db, emitted, [&store.output], |row| row.get(0))?,
        waiting: waiting(&db, subscription)?,
        dead: all(
            &db,
            "SELECT class, reason, body, attempts, crashes FROM dead WHERE subscription = ?1",
            [subscription],
            |row| {
                let (class, text, body) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Dead { class, text, body, attempts: number(row, 3)?, crashes: number(row, 4)? })
            },
        )?,
        state: state(&db, subscription)?,
        counters: db.query_row(
            "SELECT s.added - g.base, g.committed, g.skipped, g.duplicates, g.retried, g.dropped, g.strayed, g.repeated
             FROM subscriptions g JOIN streams s ON s.id = g.stream WHERE g.id = ?1",
            [subscription],
            |row| {
                Ok(Counters {
                    published: number(row, 0)?,
                    committed: number(row, 1)?,
                    skipped: number(row, 2)?,
                    duplicates: number(row, 3)?,
                    retried: number(row, 4)?,
                    dropped: number(row, 5)?,
                    strayed: number(row, 6)?,
                    repeated: number(row, 7)?,
                    torn: 0,
                })
            },
        )?,
    })
}

pub(super) fn pending_of(store: &Store, file: &Path, consumer: &str) -> Result<usize> {
    let sql = "SELECT count(*) FROM pending p JOIN consumers c ON c.id = p.consumer JOIN subscriptions g ON g.id = p.subscription
               WHERE c.name = ?1 AND g.handler = ?2";
    open(file)?.query_row(sql, (consumer, &store.handler), |row| Ok(number(row, 0)? as usize))
}

pub(super) fn takes_writes(file: &Path) -> bool {
    Connection::open(file).and_then(|db| db.execute_batch("BEGIN IMMEDIATE; ROLLBACK")).is_ok()
}

fn open(file: &Path) -> Result<Connection> {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(10))?;
    Ok(db)
}

fn waiting(db: &Connection, subscription: i64) -> Result<Vec<Waiting>> {
    let mut found = Vec::new();
    let pending = "SELECT CASE consumer WHEN -1 THEN 'quarantined' ELSE 'pending' END, queue || '/' || entry,
                     CASE queue WHEN 0 THEN (SELECT body FROM entries e WHERE e.id = p.entry)
                               ELSE (SELECT body FROM redelivery a WHERE a.id = p.entry) END
                   FROM pending p WHERE subscription = ?1";
    let lag = "SELECT 'lag', '0/' || e.id, e.body FROM entries e JOIN subscriptions g ON g.stream = e.stream
               WHERE g.id = ?1 AND e.id > g.last_id";
    let redelivery =
        "SELECT 'redelivery', '1/' || a.id, a.body FROM redelivery a JOIN subscriptions g ON g.id = a.subscription
                 WHERE g.id = ?1 AND a.id > g.redelivery_id";
    let due = "SELECT 'due', id, body FROM due WHERE subscription = ?1";
    for sql in [pending, lag, redelivery, due] {
        found.extend(all(db, sql, [subscription], |row| {
            let place: String = row.get(0)?;
            let place = ["pending", "quarantined", "lag", "redelivery", "due"].into_iter().find(|name| *name == place);
            let entry = row.get_ref(1)?;
            Ok(Waiting { place: place.unwrap_or("pending"), entry: format!("{entry:?}"), body: row.get(2)? })
        })?);
    }
    Ok(found)
}

fn state(db: &Connection, subscription: i64) -> Result<BTreeMap<String, (u64, i64)>> {
    let rows = all(db, "SELECT key, pairs FROM state WHERE subscription = ?1", [subscription], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    Ok(rows.into_iter().map(|(key, packed)| (key, count_and_sum(&packed))).collect())
}

/// Names and values in turn, each after its length in four bytes, little-endian.
fn count_and_sum(mut packed: &[u8]) -> (u64, i64) {
    let mut parts = Vec::new();
    while let Some((length, rest)) = packed.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        parts.push(String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned());
        packed = rest.get(length..).unwrap_or_default();
    }
    let value = |name: &str| parts.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    let count = value("count").and_then(|text| text.parse().ok()).unwrap_or_default();
    (count, value("sum").and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// SQLite's integers have a sign, counters have none.
fn number(row: &Row<'_>, at: usize) -> Result<u64> {
    row.get::<_, i64>(at).map(i64::unsigned_abs)
}

fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    db.prepare(sql)?.query_map(params, read)?.collect()
}
