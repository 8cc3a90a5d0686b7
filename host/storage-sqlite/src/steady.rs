//! The clock that all decisions go by: it goes evenly, whatever the machine's clock is set to (docs/decisions/0030).
//!
//! It is the time since the machine was started, plus an offset in the file. All processes of a machine have the same
//! one, later ones too. Only after a start of the machine the wall clock tells how long that took.

use rusqlite::{Connection, OptionalExtension};

use super::error::Result;
use super::tx::{Tx, millis, wall_ms};
use tidemill_core::clock;

/// A change of the wall clock by more than this against the time that has passed is a step: it was set.
const STEP_MIN_MS: i64 = 60_000;

/// What is added to the time since the machine was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    began_ms: i64,
}

/// What a host has noted of the two clocks, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    boot_id: String,
    boot_ms: i64,
    steady_ms: i64,
    wall_ms: i64,
}

impl Steady {
    pub(crate) fn open(conn: &Connection) -> rusqlite::Result<Self> {
        let noted = noted(conn)?;
        let (boot_id, boot_ms) = (clock::boot_id(), boot_ms());
        Ok(Self { began_ms: steady_ms(noted.as_ref(), &boot_id, boot_ms, wall_ms()) - boot_ms })
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.began_ms.saturating_add(boot_ms())
    }
}

fn boot_ms() -> i64 {
    millis(clock::since_boot())
}

/// The time, by what was noted last. In the same run of the machine that is exact. Else as much has passed as the wall
/// clock says; and it never goes back.
fn steady_ms(noted: Option<&Noted>, boot_id: &str, boot_ms: i64, wall_ms: i64) -> i64 {
    match noted {
        None => wall_ms,
        Some(noted) if noted.boot_id == boot_id && !boot_id.is_empty() && noted.boot_ms <= boot_ms => {
            noted.steady_ms.saturating_add(boot_ms - noted.boot_ms)
        }
        Some(noted) => noted.steady_ms.saturating_add(wall_ms.saturating_sub(noted.wall_ms).max(0)),
    }
}

fn noted(conn: &Connection) -> rusqlite::Result<Option<Noted>> {
    let sql = "SELECT boot_id, boot_ms, steady_ms, wall_ms FROM clock WHERE id = 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Noted { boot_id: row.get(0)?, boot_ms: row.get(1)?, steady_ms: row.get(2)?, wall_ms: row.get(3)? })
    };
    conn.query_row(sql, [], read).optional()
}

/// Notes both clocks, with each heartbeat; and by how much the wall clock was set, if it was.
pub(crate) fn note(tx: &Tx<'_>) -> Result<()> {
    let sql = "INSERT INTO clock (id, boot_id, boot_ms, steady_ms, wall_ms) VALUES (1, ?1, ?2, ?3, ?4)
               ON CONFLICT DO UPDATE SET
                 step_ms = iif(abs(?4 - wall_ms - (?3 - steady_ms)) > ?5, ?4 - wall_ms - (?3 - steady_ms), step_ms),
                 stepped_ms = iif(abs(?4 - wall_ms - (?3 - steady_ms)) > ?5, ?3, stepped_ms),
                 boot_id = ?1, boot_ms = ?2, steady_ms = ?3, wall_ms = ?4";
    tx.run(sql, (clock::boot_id(), boot_ms(), tx.now_ms, tx.wall_ms, STEP_MIN_MS))?;
    Ok(())
}

/// By how many ms the wall clock was set last, and how long that is ago; nothing if it never was while a host ran.
pub(crate) fn last_step(tx: &Tx<'_>) -> Result<Option<(i64, i64)>> {
    let sql = "SELECT step_ms, ?1 - stepped_ms FROM clock WHERE id = 1 AND step_ms <> 0";
    Ok(tx.get(sql, [tx.now_ms], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn the_wall_clock_is_asked_only_after_a_start_of_the_machine() {
        let noted = Noted { boot_id: "this".into(), boot_ms: 1000, steady_ms: 50_000, wall_ms: 70 * HOUR };
        let at = |boot_id: &str, boot_ms, wall_ms| steady_ms(Some(&noted), boot_id, boot_ms, wall_ms);
        for wall in [70 * HOUR + 500, 94 * HOUR, 46 * HOUR, 0] {
            assert_eq!(at("this", 1500, wall), 50_500, "the wall clock says {wall}");
        }
        assert_eq!(at("that", 10, 71 * HOUR), 50_000 + HOUR, "it was off for an hour");
        assert_eq!(at("that", 10, 46 * HOUR), 50_000, "and its clock was put back: it goes on from here");
        assert_eq!(at("this", 10, 71 * HOUR), 50_000 + HOUR, "a copy on a machine that counts otherwise");
        assert_eq!(steady_ms(None, "this", 10, 7), 7, "a new file");
        let untold = Noted { boot_id: String::new(), ..noted.clone() };
        assert_eq!(steady_ms(Some(&untold), "", 1500, 71 * HOUR), 50_000 + HOUR);
    }

    /// Reaches `STEP_MIN_MS`.
    #[test]
    fn a_step_is_noted_with_its_size() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema.sql")).unwrap();
        let beat = |steady: i64, wall: i64| {
            let mut to_notify = Vec::new();
            let tx = Tx::at_both(&conn, steady, wall, &mut to_notify);
            note(&tx).unwrap();
            last_step(&tx).unwrap()
        };
        assert_eq!([beat(1000, 1000), beat(2500, 2600), beat(4000, 4000)], [None; 3], "it goes a little unevenly");
        assert_eq!(beat(5500, 5500 - 3 * HOUR), Some((-3 * HOUR, 0)));
        assert_eq!(beat(7000, 7000 - 3 * HOUR), Some((-3 * HOUR, 1500)));
        assert_eq!(beat(8500, 8500), Some((3 * HOUR, 0)), "and put right");
    }
}
