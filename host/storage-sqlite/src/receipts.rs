//! Receipts: the answer to a settlement is kept for a while, for the caller that lost it and asks again.

use std::time::Duration;

use uuid::Uuid;

use super::error::Result;
use super::millis::millis;
use super::tx::Tx;
use tidemill_storage::Settled;

const KEPT_FOR: Duration = Duration::from_secs(600);

/// By the byte that stands for it: never reordered, only added to.
const SETTLED: [Settled; 12] = [
    Settled::Committed,
    Settled::Skipped,
    Settled::Retried,
    Settled::Dead,
    Settled::Quarantined,
    Settled::Duplicate,
    Settled::Conflict,
    Settled::Stale,
    Settled::Fenced,
    Settled::Full,
    Settled::Left,
    Settled::Outdated,
];

pub(crate) fn find(tx: &Tx<'_>, token: Uuid) -> Result<Option<Vec<Settled>>> {
    let answer =
        tx.get("SELECT answer FROM receipts WHERE token = ?1", [token.as_bytes()], |row| row.get::<_, Vec<u8>>(0))?;
    // An unknown byte is a newer Tidemill's: whatever it stands for, `Fenced` is a safe answer.
    let known = |byte: u8| SETTLED.get(usize::from(byte)).copied().unwrap_or(Settled::Fenced);
    Ok(answer.map(|bytes| bytes.into_iter().map(known).collect()))
}

pub(crate) fn keep(tx: &Tx<'_>, token: Uuid, answer: &[Settled]) -> Result<()> {
    // Each settlement adds one and takes up to two that are too old, so they never pile up.
    let sql = "DELETE FROM receipts WHERE id IN (SELECT id FROM receipts ORDER BY id LIMIT 2) AND at_ms < ?1";
    tx.run(sql, [tx.now_ms.saturating_sub(millis(KEPT_FOR))])?;
    let byte = |settled: &Settled| SETTLED.iter().position(|known| known == settled).unwrap_or(SETTLED.len()) as u8;
    let bytes: Vec<u8> = answer.iter().map(byte).collect();
    let sql = "INSERT INTO receipts (token, answer, at_ms) VALUES (?1, ?2, ?3)";
    tx.run(sql, (token.as_bytes(), bytes, tx.now_ms))?;
    Ok(())
}
