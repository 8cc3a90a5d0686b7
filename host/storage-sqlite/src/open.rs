//! Opening the file: refuses what is not ours before touching it, sets it up, lays it out if it is new.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::beside;
use super::error::is_passing;
use super::error::{Failed, Result};
use super::tx::Tx;
use tidemill_storage::Error;

/// "TDML": this file is Tidemill's. `file` and SQLite's own tools show it.
pub(super) const APPLICATION_ID: i64 = 0x5444_4D4C;
/// The layout of `schema.sql`.
pub(super) const LAYOUT_VERSION: i64 = 6;
/// How long to wait for another process's transaction before saying "busy".
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// More than this backend has; a statement that falls out is only compiled again.
pub(super) const STATEMENTS_CACHED: usize = 128;
/// `wal_autocheckpoint`: pages in the log before they are copied into the file. Each copy costs two fsyncs and writes a
/// page once, however often it changed since the last one, so a longer log is less work; 4096 pages are 16 MiB.
/// `cache_size` in KiB. More is no faster: SQLite looks through the whole cache at most commits.
/// `fullfsync`: macOS answers a plain fsync before the disk has it. Elsewhere it has no meaning.
const SET_UP: &str = "
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -8192;
    PRAGMA temp_store = MEMORY;
    PRAGMA fullfsync = ON;
    PRAGMA trusted_schema = OFF;
";

pub(crate) fn file(path: &Path) -> Result<Connection> {
    let name = path.display().to_string();
    let path = &literal(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let what = format!("there is no folder {}", folder.display());
        return Err(refused(&name, &what, "make the folder, or give another path"));
    }
    match path.metadata() {
        Ok(about) if about.is_dir() => {
            return Err(refused(&name, "this is a folder", "give the path of a file in it"));
        }
        Ok(about) if !about.is_file() => {
            return Err(refused(
                &name,
                "this is not a file but a pipe, a socket or a device",
                "give the path of a file",
            ));
        }
        Ok(_) => check_log(path, &name)?,
        Err(error) if error.kind() == ErrorKind::NotFound => make(path, &name)?,
        Err(error) => return Err(refused(&name, &error.to_string(), "check that this user may read the folder")),
    }
    connect(path, &name)
}

fn connect(path: &Path, name: &str) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .map_err(|error| refused(name, &error.to_string(), "check that this user may read and write there"))?;
    // Without the right to write, SQLite opens a file for reading and says nothing.
    if conn.is_readonly("main")? {
        return Err(refused(name, "the file may not be written", "check the file's owner and rights"));
    }
    Ok(conn)
}

/// A database of ours that is there, to be read as it is.
pub(crate) fn there(path: &Path) -> Result<Connection> {
    let name = path.display().to_string();
    let path = &literal(path)?;
    if !path.is_file() {
        return Err(refused(&name, "there is no such file", "give the path of a database"));
    }
    check_log(path, &name)?;
    let conn = connect(path, &name)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    let found = conn.unchecked_transaction().map_err(LockAnswer::from).and_then(|tx| content(&tx, &name));
    match found {
        Ok(Content::Ours) => Ok(conn),
        Ok(Content::Nothing) => Err(refused(&name, "the file is empty", "give the path of a database")),
        Err(LockAnswer::Ours(error)) => Err(error),
        Err(LockAnswer::Sqlite(error)) => {
            Err(refused(&name, &error.to_string(), "give the path of a Tidemill database"))
        }
    }
}

/// The absolute path: SQLite would take a relative one that begins with `file:` for a URI, whose parameters may make it
/// no file at all.
pub(crate) fn literal(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| refused(&path.display().to_string(), &error.to_string(), "give the path of a file"))
}

/// Created by us and not by SQLite, which would make it readable for all users.
fn make(path: &Path, name: &str) -> Result<()> {
    match beside::make(path) {
        Ok(()) => Ok(()),
        // Another process has created it meanwhile.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.exists() => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(refused(name, "this is a link that leads nowhere", "make what it leads to, or give another path"))
        }
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Err(Failed(Error::Unavailable { what: format!("SQLite {name}, open"), cause: error.to_string() }))
        }
        Err(error) => Err(refused(name, &error.to_string(), "check that this user may make files in the folder")),
    }
}

/// Before SQLite opens it: then nothing has been changed yet.
pub(super) fn check_log(path: &Path, name: &str) -> Result<()> {
    let log = beside::log_of(path);
    let why = beside::mismatch(path).map_err(|error| {
        refused(name, &error.to_string(), "check that this user may read the file and the log beside it")
    })?;
    let Some(why) = why else { return Ok(()) };
    let log = log.display();
    Err(refused(
        name,
        &format!(
            "the log beside it, {log}, is another database's: {why}. SQLite would replay it over this file and restore \
             that database"
        ),
        &format!(
            "if this file is a restored backup: stop all hosts, move {log} and the -shm beside it away, and start \
             again (docs/guides/backup.md)"
        ),
    ))
}

enum LockAnswer {
    Ours(Failed),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for LockAnswer {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Sets a connection up, and lays the file out if it is new.
pub(crate) fn set_up(conn: &mut Connection, name: &str) -> Result<()> {
    set_up_waiting(conn, name).map_err(|error| match error {
        LockAnswer::Ours(error) => error,
        // Not the file, which is open, but the log beside it.
        LockAnswer::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
            refused(name, &error.to_string(), "check that this user may make files in the folder")
        }
        LockAnswer::Sqlite(error) if is_passing(&error) => {
            Failed(Error::Unavailable { what: format!("SQLite {name}, open"), cause: error.to_string() })
        }
        LockAnswer::Sqlite(error) => {
            refused(name, &error.to_string(), "give the path of a Tidemill database, or of a new file")
        }
    })
}

/// SQLite itself waits for no lock where it changes the journal of a file that another connection reads: then all of it
/// is done again, for as long as any lock is waited for.
fn set_up_waiting(conn: &mut Connection, name: &str) -> std::result::Result<(), LockAnswer> {
    let begun = Instant::now();
    loop {
        match try_to_set_up(conn, name) {
            Err(LockAnswer::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

fn try_to_set_up(conn: &mut Connection, name: &str) -> std::result::Result<(), LockAnswer> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    content(&conn.transaction()?, name)?;
    conn.execute_batch(SET_UP)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" && mode != "memory" {
        let what = format!("a write-ahead log cannot be kept there (journal_mode is {mode})");
        return Err(LockAnswer::Ours(refused(name, &what, "use a local disk, not a network share")));
    }
    // Two processes may do this at once: the second one finds it done.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match content(&tx, name)? {
        Content::Ours => {}
        Content::Nothing => {
            tx.execute_batch(include_str!("schema.sql"))?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
    }
    // At each opening, also where it says so already: writing the first page raises its counter, by which `beside` tells
    // this database's log from another one's.
    tx.pragma_update(None, "user_version", LAYOUT_VERSION)?;
    Ok(tx.commit()?)
}

/// What a database holds that we may write to.
enum Content {
    Nothing,
    Ours,
}

/// Refuses a database that is not ours to write to. What it asks is answered by one snapshot: between two reads outside of
/// a transaction another process sets up a new file, which then seems to be a foreign one.
fn content(tx: &Transaction<'_>, name: &str) -> std::result::Result<Content, LockAnswer> {
    let number = |sql: &str| tx.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    match (application, version) {
        (APPLICATION_ID, LAYOUT_VERSION) => Ok(Content::Ours),
        (APPLICATION_ID, _) => {
            let what = format!("its layout is version {version}, and this Tidemill knows version {LAYOUT_VERSION}");
            Err(LockAnswer::Ours(refused(name, &what, "use the Tidemill that wrote it, or a newer one, or a new file")))
        }
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => Ok(Content::Nothing),
        _ => Err(LockAnswer::Ours(refused(name, "another program's database", "give the path of a new file"))),
    }
}

pub(crate) fn refused(name: &str, what: &str, hint: &str) -> Failed {
    Failed(Error::Permanent(format!("SQLite {name}: {what}\n  hint: {hint}")))
}

/// Without the write-ahead log, which has a bound of its own.
pub(crate) fn size_bytes(tx: &mut Tx<'_>) -> Result<u64> {
    let pages = tx.number("SELECT page_count FROM pragma_page_count", [])?;
    let page_size = tx.number("SELECT page_size FROM pragma_page_size", [])?;
    Ok(pages.saturating_mul(page_size).max(0).unsigned_abs())
}

pub(crate) fn describe(tx: &mut Tx<'_>, place: &str) -> Result<String> {
    let kib = size_bytes(tx)? / 1024;
    Ok(format!("SQLite {}, {place}, {kib} KiB, write-ahead log, synchronous FULL", rusqlite::version()))
}
