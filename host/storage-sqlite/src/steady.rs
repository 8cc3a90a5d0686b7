//! The clock that all decisions go by: it goes evenly, whatever the machine's clock is set to (docs/decisions/0030).
//!
//! It is the time since the machine was started, plus an offset in the file. All processes of a machine have the same
//! one, later ones too. Only after a start of the machine the wall clock tells how long that took.

use rusqlite::{Connection, OptionalExtension};

use super::millis::{millis, wall_ms};
use tidemill_core::clock;

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

pub(crate) fn boot_ms() -> i64 {
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
}
