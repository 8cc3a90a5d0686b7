//! Dead letters: written, bounded and listed. (Operator actions on them: `admin`.)

use super::error::Result;
use super::row::{DeliveryRow, after, body, id, limit, read_replayed};
use super::subscriptions;
use super::tx::Tx;
use tidemill_core::model::dead_letter::{DeadLetter, Reason, ReasonClass};
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::{Options, SubscriptionStatus, wire};

/// Letters that are read together for eviction.
const PAGE: i64 = 512;
/// A history without an attempt, as it is written.
const NO_HISTORY: &str = "[]";

pub(crate) fn write_dead_letter(tx: &Tx<'_>, subscription: i64, reason: &Reason, parcel: &DeliveryRow) -> Result<()> {
    let DeliveryRow { origin, kind, body, attempts, crashes, history, replayed } = parcel;
    let sql = "INSERT INTO dead (subscription, at_ms, class, ran, bytes, reason, origin, kind, body, attempts, crashes,
                                 history, replayed)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let class = reason.class.as_str();
    let ran = reason.class.ran() || history != NO_HISTORY;
    let bytes = limit(body.len() + reason.text.len() + history.len());
    let text = &reason.text;
    let params = rusqlite::params![
        subscription,
        tx.wall_ms,
        class,
        ran,
        bytes,
        text,
        origin,
        kind,
        &body[..],
        attempts,
        crashes,
        history,
        replayed
    ];
    tx.run(sql, params)?;
    Ok(())
}

/// The letters of a subscription, and their bytes: all of them, and those that never ran.
struct Held {
    letters: i64,
    bytes: i64,
    unrun: i64,
    unrun_bytes: i64,
}

impl Held {
    fn read(tx: &Tx<'_>, subscription: i64) -> Result<Self> {
        let sql = "SELECT letters, letters_bytes, unrun, unrun_bytes FROM subscriptions WHERE id = ?1";
        let row = tx.get(sql, [subscription], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let (letters, bytes, unrun, unrun_bytes) = row.unwrap_or_default();
        Ok(Self { letters, bytes, unrun, unrun_bytes })
    }

    /// Whether to evict a letter, of those that ran or of the others. Those that never ran have half of each bound at
    /// most, and are evicted first.
    fn is_over(&self, ran: bool, letters_max: i64, bytes_max: i64) -> bool {
        let over = self.letters > letters_max || self.bytes > bytes_max;
        over || (!ran && (self.unrun > letters_max / 2 || self.unrun_bytes > bytes_max / 2))
    }

    fn let_go(&mut self, ran: bool, bytes: i64) {
        (self.letters, self.bytes) = (self.letters - 1, self.bytes - bytes);
        if !ran {
            (self.unrun, self.unrun_bytes) = (self.unrun - 1, self.unrun_bytes - bytes);
        }
    }
}

/// Holds the letters of a subscription to both bounds, and counts the evicted ones.
pub(crate) fn evict(tx: &Tx<'_>, subscription: i64, options: &Options) -> Result<()> {
    let bound = |max: u64| i64::try_from(max).unwrap_or(i64::MAX);
    let (letters_max, bytes_max) = (bound(options.dead_letters_max), bound(options.dead_letters_bytes_max));
    let mut held = Held::read(tx, subscription)?;
    let mut gone = [0, 0];
    for (ran, gone) in [false, true].into_iter().zip(&mut gone) {
        while held.is_over(ran, letters_max, bytes_max) {
            let sql = "SELECT id, bytes FROM dead WHERE subscription = ?1 AND ran = ?2 ORDER BY id LIMIT ?3";
            let oldest: Vec<(i64, i64)> =
                tx.all(sql, (subscription, ran, PAGE), |row| Ok((row.get(0)?, row.get(1)?)))?;
            if oldest.is_empty() {
                break;
            }
            for (id, bytes) in oldest {
                if held.is_over(ran, letters_max, bytes_max) {
                    tx.run("DELETE FROM dead WHERE id = ?1", [id])?;
                    held.let_go(ran, bytes);
                    *gone += 1;
                }
            }
        }
    }
    let [unrun, ran] = gone;
    if unrun + ran > 0 {
        let sql = "UPDATE subscriptions SET dropped = dropped + ?2 + ?3, evicted_ran = evicted_ran + ?2,
                   evicted_unrun = evicted_unrun + ?3 WHERE id = ?1";
        tx.run(sql, (subscription, ran, unrun))?;
    }
    Ok(())
}

/// The counters as far as they are about dead letters.
pub(crate) fn counters(tx: &Tx<'_>, subscription: i64) -> Result<SubscriptionStatus> {
    let sql = "SELECT letters, unrun, letters_bytes, evicted_ran, evicted_unrun FROM subscriptions WHERE id = ?1";
    let counters = tx.get(sql, [subscription], |row| {
        // Below zero only if another program wrote there.
        let count = |at: usize| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
        let (dead, dead_unrun, dead_bytes) = (count(0)?, count(1)?, count(2)?);
        let (evicted_ran, evicted_unrun) = (count(3)?, count(4)?);
        Ok(SubscriptionStatus {
            dead,
            dead_unrun,
            dead_bytes,
            evicted_ran,
            evicted_unrun,
            ..SubscriptionStatus::default()
        })
    })?;
    Ok(counters.unwrap_or_default())
}

pub(crate) fn list(
    tx: &Tx<'_>,
    subscription: &Subscription,
    last: Option<EntryId>,
    max: usize,
) -> Result<Vec<DeadLetter>> {
    let Some(subscription) = subscriptions::seek(tx, subscription)? else { return Ok(Vec::new()) };
    let sql = "SELECT id, origin, kind, body, class, reason, at_ms, attempts, crashes, history, replayed
               FROM dead
               WHERE subscription = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    let letters = tx.all(sql, (subscription.id, after(last), limit(max)), |row| {
        // An unknown class is a newer Tidemill's; its text explains it better.
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
