//! `doctor` on SQLite: how the file is kept, the clock, and what leaks.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::Result;
use super::error::lost_thread;
use super::millis::millis;
use super::open::literal;
use super::tx::Tx;
use super::{beside, clock_row, dead, subscriptions};
use tidemill_core::model::delivery::Subscription;
use tidemill_process::files::open_mode;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_storage::finding::{Signs, bad, good, short, signs, warning};
use tidemill_storage::{Error, Finding, Options};

/// The log is copied into the file when it has 16 MiB: one of this size is kept from that.
const LOG_BYTES_MAX: u64 = 128 << 20;
/// A running host removes consumers an hour after their death. More than these leak.
const DEAD_CONSUMERS_MAX: i64 = 1000;
/// A thousand events a microsecond for a century do not get there.
const ROW_NUMBER_MAX: i64 = i64::MAX / 2;
/// Damaged places that are named.
const DAMAGE_MAX: usize = 10;

/// Without a file it is a database in memory.
pub(crate) fn diagnose(
    tx: &Tx<'_>,
    subscriptions: &[Subscription],
    file: Option<String>,
    options: &Options,
) -> Result<Vec<Finding>> {
    let mut found = vec![good("server", format!("SQLite {}", rusqlite::version()))];
    match &file {
        Some(file) => found.extend(look_at_file(tx, file)?),
        None => found.push(bad(
            "durability",
            "volatile: the database is in memory and ends with this process",
            "give a file: sqlite:tidemill.db",
        )),
    }
    found.push(clock(tx)?);
    found.extend(row_numbers(tx)?);
    found.extend(consumers(tx)?);
    if !subscriptions.is_empty() {
        found.extend(groups(tx, subscriptions)?);
        for subscription in subscriptions {
            match subscriptions::seek(tx, subscription)? {
                Some(group) => found.extend(signs(subscription, &signs_of(tx, group.id)?, options)),
                None => found.push(warning(
                    "groups",
                    format!("{subscription}: there is no such group"),
                    "a host creates it when it starts",
                )),
            }
        }
    }
    Ok(found)
}

fn look_at_file(tx: &Tx<'_>, file: &str) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mode = tx.get("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))?.unwrap_or_default();
    found.push(match &*mode {
        "wal" => good("durability", "always: write-ahead log, and what must stay is synced before it is acknowledged"),
        // A file on a full disk may have to be read as if it had no log.
        _ if keeps_log(file) => good("durability", "always, by its header: write-ahead log; it was read without it"),
        // A copy starts in this mode, and each host changes it before it continues.
        other => good("durability", format!("the journal mode is {other}: a copy; the first host sets WAL")),
    });
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    let log_file = beside::log_of(Path::new(file));
    let (size, log) = (bytes(Path::new(file)), bytes(&log_file));
    for path in [Path::new(file), &log_file] {
        found.extend(open_mode(path).map(|mode| {
            warning(
                "file modes",
                format!(
                    "{} may be read or written by anybody on this machine (mode {mode}): events, states, dead letters",
                    path.display()
                ),
                "chmod o= FILE FILE-wal FILE-shm; Tidemill makes new files for their owner alone",
            )
        }));
    }
    let text = format!("{file}: {} MiB, its log {} MiB", size >> 20, log >> 20);
    found.push(if log > LOG_BYTES_MAX {
        let hint = "some program reads the file for long and so keeps the log from being emptied: end it";
        warning("file", text, hint)
    } else {
        good("file", text)
    });
    let text = "the file was not read through; `doctor --deep` does that, and takes its time on a large one";
    found.push(good("integrity", text));
    Ok(found)
}

/// By the file's header: the format version for writing is 2 where a write-ahead log is kept.
fn keeps_log(file: &str) -> bool {
    let mut header = [0; 19];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[18] == 2
}

/// How long a step of the clock is reported.
const STEP_TOLD: Duration = Duration::from_secs(86_400);

/// What waits, lasts or ages does not go by the machine's clock; but events bear its times.
fn clock(tx: &Tx<'_>) -> Result<Finding> {
    let last = clock_row::last_step(tx)?.filter(|(_, ago)| *ago < millis(STEP_TOLD));
    Ok(match last {
        Some((step, ago)) => {
            let which = if step < 0 { "back" } else { "forward" };
            let [by, ago] = [step, ago].map(|ms| short(Duration::from_millis(ms.unsigned_abs())));
            warning(
                "clock",
                format!("this machine's clock was put {which} by {by}, {ago} ago"),
                "retries, leases and the inbox go by a clock that cannot be set, so nothing came early or waits longer; \
                 run a time service (chrony, systemd-timesyncd), so that events and records bear the right times",
            )
        }
        None => good("clock", "it has not been set while a host ran"),
    })
}

/// One numbering for the entries of all streams. Only another program can use it up.
fn row_numbers(tx: &Tx<'_>) -> Result<Option<Finding>> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'entries'";
    let last = tx.get(sql, [], |row| row.get::<_, i64>(0))?.unwrap_or(0);
    let text =
        || format!("{last} is the number of the last entry: the numbers are nearly used up, and events wait then");
    let hint = "another program has given an entry its number: delete that row once it is handled, set sqlite_sequence back, \
                and let no other program write to the file";
    Ok((last > ROW_NUMBER_MAX).then(|| bad("stream ids", text(), hint)))
}

fn consumers(tx: &Tx<'_>) -> Result<Option<Finding>> {
    let long_ago = tx.now_ms.saturating_sub(millis(Duration::from_secs(3600)));
    let dead = tx.number("SELECT count(*) FROM consumers WHERE until_ms < ?1", [long_ago])?;
    let hint = "start a host: it removes those that hold nothing, a few at a time";
    Ok((dead > DEAD_CONSUMERS_MAX)
        .then(|| warning("consumers", format!("{dead} consumers have been dead for more than an hour"), hint)))
}

/// Groups that are not in the configuration: entries that they have not finished stay on their streams for ever.
fn groups(tx: &Tx<'_>, subscriptions: &[Subscription]) -> Result<Vec<Finding>> {
    let sql = "SELECT s.name, g.handler,
                 (SELECT min(p.entry) FROM pending p WHERE p.subscription = g.id AND p.queue = 0),
                 (SELECT e.at_ms FROM entries e WHERE e.stream = g.stream AND e.id > g.last_id ORDER BY e.id LIMIT 1)
               FROM subscriptions g JOIN streams s ON s.id = g.stream ORDER BY s.name, g.handler";
    let rows = tx.all(sql, [], |row| {
        let (stream, handler): (String, String) = (row.get(0)?, row.get(1)?);
        Ok((stream, handler, row.get::<_, Option<i64>>(2)?.is_some(), row.get::<_, Option<i64>>(3)?))
    })?;
    let known =
        |stream: &str, handler: &str| subscriptions.iter().any(|s| *s.stream == *stream && *s.handler == *handler);
    let strangers = rows.into_iter().filter(|(stream, handler, ..)| !known(stream, handler));
    let told = strangers.map(|(stream, handler, pending, unread_ms)| {
        let text = format!("{stream}: by the configuration no handler {handler} reads this stream");
        match (pending, unread_ms) {
            (false, None) => good("groups", text + ", and has nothing left to do"),
            (_, unread_ms) => {
                let age = unread_ms.map(|at_ms| u64::try_from(tx.now_ms - at_ms).unwrap_or(0));
                let age =
                    age.map_or_else(String::new, |ms| format!(", unread for {}", short(Duration::from_millis(ms))));
                let hint = "put the handler back, let it finish, and only then take it out; trimming spares what it \
                            has not finished";
                warning("groups", format!("{text}, and keeps entries on the stream{age}"), hint)
            }
        }
    });
    Ok(told.collect())
}

fn signs_of(tx: &Tx<'_>, group: i64) -> Result<Signs> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let oldest = "SELECT min(delivered_ms) FROM pending WHERE subscription = ?1";
    let oldest: Option<i64> = tx.get(oldest, [group], |row| row.get(0))?.flatten();
    // Numbers below 1 are no hosts.
    let holding = "SELECT count(DISTINCT p.consumer) FROM pending p LEFT JOIN consumers c ON c.id = p.consumer
                   WHERE p.subscription = ?1 AND p.consumer > 0 AND coalesce(c.until_ms, 0) < ?2";
    let holding = unsigned(tx.number(holding, (group, tx.now_ms))?);
    Ok(Signs {
        letters: dead::counters(tx, group)?,
        pending_age: oldest.map(|at_ms| Duration::from_millis(unsigned(tx.now_ms - at_ms))),
        silent: holding,
        silent_holding: holding,
    })
}

/// Reads the whole file and reports where it is damaged. By a connection of its own: it may take long.
pub async fn check_file(file: String) -> std::result::Result<Vec<Finding>, Error> {
    let file = literal(Path::new(&file))?;
    let read = move || -> rusqlite::Result<Vec<String>> {
        let conn =
            Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let mut check = conn.prepare(&format!("PRAGMA quick_check({DAMAGE_MAX})"))?;
        check.query_map([], |row| row.get(0))?.collect()
    };
    let said = tasks::blocking(Task::Integrity, read).await.map_err(|error| lost_thread(&error.to_string()))?;
    let hint = "stop all hosts, keep a copy, and restore a backup; `sqlite3 FILE .recover` saves what can be read";
    Ok(match said {
        Ok(lines) if lines.iter().all(|line| line == "ok") => vec![good("integrity", "the whole file is sound")],
        Ok(lines) => {
            lines.into_iter().map(|line| bad("integrity", format!("the file is damaged: {line}"), hint)).collect()
        }
        Err(error) => vec![bad("integrity", format!("the file cannot be read through: {error}"), hint)],
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tidemill_storage::Level;

    const NOW: i64 = 1_700_000_000_000;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema.sql")).unwrap();
        conn
    }

    fn look<T>(conn: &Connection, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> T {
        let mut to_notify: Vec<Arc<str>> = Vec::new();
        work(&Tx::at(conn, NOW, &mut to_notify)).unwrap()
    }

    /// Reaches `LOG_BYTES_MAX`.
    #[test]
    fn a_log_that_is_kept_from_being_emptied_is_told() {
        let file = std::env::temp_dir().join(format!("tidemill-log-{}", uuid::Uuid::new_v4().simple()));
        let log = format!("{}-wal", file.display());
        for (bytes, level) in [(LOG_BYTES_MAX, Level::Good), (LOG_BYTES_MAX + 1, Level::Warning)] {
            // A file with a hole in it takes no room.
            std::fs::File::create(&log).unwrap().set_len(bytes).unwrap();
            let found = look(&database(), |tx| look_at_file(tx, &file.display().to_string()));
            let found = found.iter().find(|finding| finding.check == "file").unwrap();
            assert_eq!(found.level, level, "{found:?}");
        }
        std::fs::remove_file(log).unwrap();
    }

    /// Reaches `STEP_TOLD`.
    #[test]
    fn that_the_clock_was_set_is_told_for_a_day() {
        let conn = database();
        let set = |ago_ms: i64| {
            let sql = "INSERT OR REPLACE INTO clock VALUES (1, '', 0, 0, 0, -7000, ?1)";
            conn.execute(sql, [NOW - ago_ms]).unwrap();
            look(&conn, clock).level
        };
        assert_eq!(look(&conn, clock).level, Level::Good);
        assert_eq!(set(millis(STEP_TOLD) - 1), Level::Warning);
        assert_eq!(set(millis(STEP_TOLD)), Level::Good);
    }

    /// Reaches `ROW_NUMBER_MAX`.
    #[test]
    fn numbers_that_run_out_are_told() {
        let conn = database();
        let add = |id: i64| {
            let sql = "INSERT INTO entries (id, stream, at_ms, kind, body) VALUES (?1, 1, ?2, 0, x'')";
            conn.execute(sql, (id, NOW)).unwrap();
        };
        add(ROW_NUMBER_MAX);
        assert!(look(&conn, row_numbers).is_none());
        add(ROW_NUMBER_MAX + 1);
        assert!(look(&conn, row_numbers).is_some_and(|finding| finding.level == Level::Bad));
    }

    /// Reaches `DEAD_CONSUMERS_MAX`.
    #[test]
    fn consumers_that_leak_are_told() {
        let conn = database();
        let dead = |from: i64, count: i64| {
            for number in from..from + count {
                let sql = "INSERT INTO consumers (name, until_ms, note) VALUES (?1, 0, '')";
                conn.execute(sql, [format!("c{number}")]).unwrap();
            }
            look(&conn, consumers)
        };
        assert!(dead(0, DEAD_CONSUMERS_MAX).is_none());
        assert!(dead(DEAD_CONSUMERS_MAX, 1).is_some_and(|finding| finding.level == Level::Warning));
    }

    /// Reaches `DAMAGE_MAX`.
    #[tokio::test]
    async fn so_many_damaged_places_are_named() {
        for (damaged, named) in [(DAMAGE_MAX, DAMAGE_MAX), (DAMAGE_MAX + 1, DAMAGE_MAX)] {
            let file = std::env::temp_dir().join(format!("tidemill-damage-{}", uuid::Uuid::new_v4().simple()));
            let conn = Connection::open(&file).unwrap();
            // Rows that are not as their table says.
            conn.execute_batch("CREATE TABLE t (x)").unwrap();
            (0..damaged).for_each(|_| assert_eq!(conn.execute("INSERT INTO t VALUES (NULL)", []).unwrap(), 1));
            conn.execute_batch(
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x NOT NULL)' WHERE name = 't'",
            )
            .unwrap();
            drop(conn);
            let found = check_file(file.display().to_string()).await.unwrap();
            std::fs::remove_file(&file).unwrap();
            assert!(found.iter().all(|finding| finding.level == Level::Bad), "{found:?}");
            assert_eq!(found.len(), named);
        }
    }
}
