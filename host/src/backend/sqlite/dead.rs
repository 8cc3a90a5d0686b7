//! Dead letters: buried, bounded and listed. (What people do with them: `desk`.)

use super::parcel::{Parcel, after, body, id, limit, read_replayed};
use super::sources;
use super::tx::Tx;
use crate::backend::{Result, wire};
use crate::model::dead_letter::{DeadLetter, Reason, ReasonClass};
use crate::model::delivery::{EntryId, Source};

pub fn bury(tx: &Tx<'_>, source: i64, reason: &Reason, parcel: &Parcel) -> Result<()> {
    let Parcel { origin, kind, body, attempts, crashes, history, replayed } = parcel;
    let sql = "INSERT INTO dead (source, at_ms, class, reason, origin, kind, body, attempts, crashes, history,
                                 replayed)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let class = reason.class.as_str();
    let params =
        (source, tx.now_ms, class, &reason.text, origin, kind, &body[..], attempts, crashes, history, replayed);
    tx.run(sql, params)?;
    Ok(())
}

/// Removes the oldest of more than `max`; answers how many went.
pub fn drop_oldest(tx: &Tx<'_>, source: i64, max: i64) -> Result<usize> {
    let over = tx.number("SELECT count(*) FROM dead WHERE source = ?1", [source])?.saturating_sub(max);
    if over <= 0 {
        return Ok(0);
    }
    let sql = "DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE source = ?1 ORDER BY id LIMIT ?2)";
    Ok(tx.run(sql, (source, over))?)
}

pub fn list(tx: &Tx<'_>, source: &Source, last: Option<EntryId>, max: usize) -> Result<Vec<DeadLetter>> {
    let Some(source) = sources::seek(tx, source)? else { return Ok(Vec::new()) };
    let sql = "SELECT id, origin, kind, body, class, reason, at_ms, attempts, crashes, history, replayed
               FROM dead
               WHERE source = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    let letters = tx.all(sql, (source.id, after(last), limit(max)), |row| {
        // A class that we do not know is a newer Tidemill's; its text says more than we could.
        let class = ReasonClass::parse(row.get_ref(4)?.as_str()?).unwrap_or(ReasonClass::Rejected);
        Ok(DeadLetter {
            id: id(row.get(0)?),
            origin: id(row.get(1)?),
            body: body(row, 2)?,
            reason: Reason { class, text: row.get(5)? },
            at_ms: row.get::<_, i64>(6)?.unsigned_abs(),
            attempts: row.get(7)?,
            crashes: row.get(8)?,
            history: wire::read_history(row.get_ref(9)?.as_bytes()?),
            replayed: read_replayed(row.get_ref(10)?.as_str()?),
        })
    })?;
    Ok(letters)
}
