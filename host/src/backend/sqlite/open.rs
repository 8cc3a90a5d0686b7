//! Opening the file: refuses what is not ours before touching it, sets it up, lays it out if it is new.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::is_passing;
use super::tx::Tx;
use crate::backend::{Error, Result};

/// "TDML": this file is Tidemill's. `file` and SQLite's own tools show it.
const APPLICATION_ID: i64 = 0x5444_4D4C;
/// The layout of `schema.sql`.
const LAYOUT_VERSION: i64 = 5;
/// From layout 1 to 2, from 2 to 3, and so on.
const UPGRADES: &[&str] = &[
    include_str!("upgrade.sql"),
    include_str!("upgrade_3.sql"),
    include_str!("upgrade_4.sql"),
    include_str!("upgrade_5.sql"),
];
/// How long to wait for another process's transaction before saying "busy".
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than this backend has; a statement that falls out is only compiled again.
const STATEMENTS_CACHED: usize = 128;
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

/// What tells one file from another, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    fn of(file: &std::fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self { device: file.dev(), inode: file.ino() })
    }

    #[cfg(not(unix))]
    fn of(_file: &std::fs::Metadata) -> Option<Self> {
        None
    }
}

pub enum Place {
    Memory,
    File(PathBuf),
}

impl Place {
    pub fn parse(file: &str) -> Result<Self> {
        match file {
            "" => Err(refused("no file", "the broker url names no file", "sqlite:tidemill.db or sqlite::memory:")),
            ":memory:" => Ok(Self::Memory),
            path => Ok(Self::File(path.into())),
        }
    }

    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory)
    }

    pub fn name(&self) -> String {
        match self {
            Self::Memory => ":memory:".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Which file lies there now; none where none does, or it cannot be told.
    pub fn identity(&self) -> Option<FileId> {
        let Self::File(path) = self else { return None };
        FileId::of(&std::fs::metadata(path).ok()?)
    }

    /// No file, or another one: not only that it could not be looked at.
    pub fn is_known_gone(&self, found: Option<FileId>) -> bool {
        let Self::File(path) = self else { return false };
        found.is_some() || std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    pub fn open(&self) -> Result<Connection> {
        let mut conn = match self {
            Self::Memory => Connection::open_in_memory()?,
            Self::File(path) => open_file(path)?,
        };
        let name = self.name();
        set_up(&mut conn, &name).map_err(|error| match error {
            Told::Ours(error) => error,
            // Not the file, which is open, but the log beside it.
            Told::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
                refused(&name, &error.to_string(), "check that this user may make files in the folder")
            }
            Told::Sqlite(error) if is_passing(&error) => {
                Error::Unavailable { what: format!("SQLite {name}, open"), cause: error.to_string() }
            }
            Told::Sqlite(error) => {
                refused(&name, &error.to_string(), "give the path of a Tidemill database, or of a new file")
            }
        })?;
        Ok(conn)
    }
}

fn open_file(path: &Path) -> Result<Connection> {
    let name = path.display().to_string();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let what = format!("there is no folder {}", folder.display());
        return Err(refused(&name, &what, "make the folder, or give another path"));
    }
    if path.is_dir() {
        return Err(refused(&name, "this is a folder", "give the path of a file in it"));
    }
    // No SQLITE_OPEN_URI: a path is a path, whatever characters it has.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .map_err(|error| refused(&name, &error.to_string(), "check that this user may read and write there"))?;
    // Without the right to write, SQLite opens a file for reading and says nothing.
    if conn.is_readonly("main")? {
        return Err(refused(&name, "the file may not be written", "check the file's owner and rights"));
    }
    Ok(conn)
}

enum Told {
    Ours(Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Told {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn set_up(conn: &mut Connection, name: &str) -> std::result::Result<(), Told> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    content(conn, name)?;
    conn.execute_batch(SET_UP)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" && mode != "memory" {
        let what = format!("a write-ahead log cannot be kept there (journal_mode is {mode})");
        return Err(Told::Ours(refused(name, &what, "use a local disk, not a network share")));
    }
    // Two processes may do this at once: whoever comes second finds it done.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match content(&tx, name)? {
        Content::Ours => {}
        Content::Older(version) => {
            for upgrade in &UPGRADES[version - 1..] {
                tx.execute_batch(upgrade)?;
            }
        }
        Content::Nothing => {
            tx.execute_batch(include_str!("schema.sql"))?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
    }
    tx.pragma_update(None, "user_version", LAYOUT_VERSION)?;
    Ok(tx.commit()?)
}

/// What a database holds that we may write to.
enum Content {
    Nothing,
    /// Of this layout: 1 is before pausing and audit records, 2 before timers, and before versions of plugins were booked,
    /// 3 before dead letters had bounds by class and bytes, 4 before hosts agreed on what they want.
    Older(usize),
    Ours,
}

/// Refuses a database that is not ours to write to.
fn content(conn: &Connection, name: &str) -> std::result::Result<Content, Told> {
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    match (application, version) {
        (APPLICATION_ID, LAYOUT_VERSION) => Ok(Content::Ours),
        (APPLICATION_ID, 1) => Ok(Content::Older(1)),
        (APPLICATION_ID, 2) => Ok(Content::Older(2)),
        (APPLICATION_ID, 3) => Ok(Content::Older(3)),
        (APPLICATION_ID, 4) => Ok(Content::Older(4)),
        (APPLICATION_ID, _) => {
            let what = format!("its layout is version {version}, and this Tidemill knows version {LAYOUT_VERSION}");
            Err(Told::Ours(refused(name, &what, "use the Tidemill that wrote it, or a newer one, or a new file")))
        }
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => Ok(Content::Nothing),
        _ => Err(Told::Ours(refused(name, "another program's database", "give the path of a new file"))),
    }
}

fn refused(name: &str, what: &str, hint: &str) -> Error {
    Error::Refused(format!("SQLite {name}: {what}\n  hint: {hint}"))
}

/// Without the write-ahead log, which has a bound of its own.
pub fn size_bytes(tx: &mut Tx<'_>) -> Result<u64> {
    let pages = tx.number("SELECT page_count FROM pragma_page_count", [])?;
    let page_size = tx.number("SELECT page_size FROM pragma_page_size", [])?;
    Ok(pages.saturating_mul(page_size).max(0).unsigned_abs())
}

pub fn describe(tx: &mut Tx<'_>, place: &str) -> Result<String> {
    let kib = size_bytes(tx)? / 1024;
    Ok(format!("SQLite {}, {place}, {kib} KiB, write-ahead log, synchronous FULL", rusqlite::version()))
}
