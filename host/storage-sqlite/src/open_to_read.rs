//! Opening the file for reading only: nothing is written, so that it works on a full disk or a busy file.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::Result;
use super::open::{APPLICATION_ID, BUSY_TIMEOUT, LAYOUT_VERSION, STATEMENTS_CACHED, check_log, literal};
use tidemill_storage::Error;

/// A connection that cannot write; none if there is no such file, or none of this layout: opening it for writing
/// reports what is wrong, or creates it.
pub(crate) fn open(path: &Path) -> Result<Option<Connection>> {
    let path = &literal(path)?;
    if !path.is_file() {
        return Ok(None);
    }
    check_log(path, &path.display().to_string())?;
    match look(path, How::Beside) {
        // Beside the file there has to be an index of its log, which no program has open and no disk has room for.
        Err(error) if needs_room(&error) => {
            found(path, look(path, if has_log(path) { How::Alone } else { How::Unchanging }))
        }
        looked => found(path, looked),
    }
}

enum How {
    /// Beside other connections, which may write meanwhile.
    Beside,
    /// As if it could not change, without its log and without a lock.
    Unchanging,
    /// With its log, whose index is held in memory: that requires that no other process has it open.
    Alone,
}

fn found(path: &Path, looked: rusqlite::Result<Option<Connection>>) -> Result<Option<Connection>> {
    match looked {
        Ok(found) => Ok(found),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Ok(None),
        Err(error) => {
            let what = format!("SQLite {}, open to read", path.display());
            Err(Error::Unavailable { what, cause: error.to_string() }.into())
        }
    }
}

fn look(path: &Path, how: How) -> rusqlite::Result<Option<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match how {
        How::Beside => Connection::open_with_flags(path, flags)?,
        How::Unchanging => {
            let uri = format!("file:{}?immutable=1", percent_encoded(path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
        }
        How::Alone => {
            // The lock needs a file that is open for writing; nothing is written for all that.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(path, flags)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON")?;
            conn
        }
    };
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // One snapshot, as in `open::content`.
    let tx = conn.unchecked_transaction()?;
    let number = |sql: &str| tx.query_row(sql, [], |row| row.get::<_, i64>(0));
    let is_ours =
        number("PRAGMA application_id")? == APPLICATION_ID && number("PRAGMA user_version")? == LAYOUT_VERSION;
    // Reads the schema, and so the log.
    number("SELECT count(*) FROM sqlite_schema")?;
    tx.commit()?;
    Ok(is_ours.then_some(conn))
}

fn needs_room(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(error.sqlite_error_code(), Some(CannotOpen | SystemIoFailure | DiskFull | ReadOnly))
}

/// Whether something lies in the log that the file has not.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|data| data.len() > 0)
}

fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
