//! SQLite's errors in the words of the contract: may trying again help, or not?

use rusqlite::ErrorCode;

use tidemill_storage::Error;

/// Whether the cause may pass by itself: busy, full, out of files.
pub(crate) fn is_passing(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(
        error.sqlite_error_code(),
        Some(
            DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | SystemIoFailure
                | OutOfMemory
                | OperationInterrupted
                | OperationAborted
                | CannotOpen
                | FileLockingProtocolFailed
                | SchemaChanged
        )
    )
}

/// Why a job failed, in the contract's words. A type of its own, so that SQLite's errors become it by `?`.
#[derive(Debug)]
pub struct Failed(pub Error);

pub(crate) type Result<T> = std::result::Result<T, Failed>;

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.0
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::*;
        let cause = error.to_string();
        if is_passing(&error) {
            return Self(Error::Unavailable { what: "SQLite".into(), cause });
        }
        let hint = match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                "stop all hosts and check the file: sqlite3 FILE \"PRAGMA integrity_check\""
            }
            Some(ReadOnly | PermissionDenied) => "check the owner and the rights of the file and of its folder",
            Some(TooBig) => "SQLite takes no value of more than 1 GB",
            _ => "this is a bug of Tidemill, or another program has changed the file",
        };
        Self(Error::Permanent(format!("{cause}\n  hint: {hint}")))
    }
}

/// Adds to an error which job on which file it is about.
pub(crate) fn named(error: Error, job: &str, place: &str) -> Error {
    match error {
        Error::Unavailable { cause, .. } => Error::Unavailable { what: format!("SQLite {place}, {job}"), cause },
        Error::Permanent(what) => Error::Permanent(format!("SQLite {place}, {job}: {what}")),
        gone @ (Error::GroupGone { .. } | Error::Replaced(_)) => gone,
    }
}

/// The same error for one more job of a transaction that failed.
pub(crate) fn copy(error: &Failed) -> Failed {
    Failed(match &error.0 {
        Error::Unavailable { what, cause } => Error::Unavailable { what: what.clone(), cause: cause.clone() },
        Error::GroupGone { subscription } => Error::GroupGone { subscription: subscription.clone() },
        Error::Permanent(what) => Error::Permanent(what.clone()),
        Error::Replaced(what) => Error::Replaced(what.clone()),
    })
}

/// Only a bug (a panic) or a machine without threads can cause this. The thread goes on, or the host ends: either way,
/// the caller has to retry.
pub(crate) fn lost_thread(how: &str) -> Error {
    Error::Unavailable { what: "the thread that has the SQLite database".to_owned(), cause: how.to_owned() }
}
