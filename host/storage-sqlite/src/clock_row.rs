//! The row in which hosts note the two clocks: what `steady` goes on from after a start of the machine.

use super::error::Result;
use super::steady::boot_ms;
use super::tx::Tx;
use tidemill_core::clock;

/// A change of the wall clock by more than this against the time that has passed is a step: it was set.
const STEP_MIN_MS: i64 = 60_000;

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
    use rusqlite::Connection;

    use super::*;

    const HOUR: i64 = 3_600_000;

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
