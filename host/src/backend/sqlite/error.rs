//! SQLite's errors in the words of the contract: may trying again help, or not?

use rusqlite::ErrorCode;

use crate::backend::Error;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::*;
        let again = matches!(
            error.sqlite_error_code(),
            Some(
                DatabaseBusy
                    | DatabaseLocked
                    | DiskFull
                    | SystemIoFailure
                    | OutOfMemory
                    | OperationInterrupted
                    | CannotOpen
                    | FileLockingProtocolFailed
                    | OperationAborted
                    | SchemaChanged
            )
        );
        let cause = error.to_string();
        if again { Self::Unavailable { what: "SQLite".into(), cause } } else { Self::Refused(cause) }
    }
}

/// Says which job on which file an error is about.
pub fn named(error: Error, job: &str, place: &str) -> Error {
    match error {
        Error::Unavailable { cause, .. } => Error::Unavailable { what: format!("SQLite {place}, {job}"), cause },
        Error::Refused(what) => Error::Refused(format!("SQLite {place}, {job}: {what}")),
        gone @ Error::GroupGone { .. } => gone,
    }
}

/// The same error for one more job of a transaction that failed.
pub fn copy(error: &Error) -> Error {
    match error {
        Error::Unavailable { what, cause } => Error::Unavailable { what: what.clone(), cause: cause.clone() },
        Error::GroupGone { source_name } => Error::GroupGone { source_name: source_name.clone() },
        Error::Refused(what) => Error::Refused(what.clone()),
    }
}

/// Only a bug (a panic) or a machine without threads can bring this about.
pub fn lost_thread(how: &str) -> Error {
    Error::Refused(format!(
        "the thread that owns the SQLite database is gone: {how}\n  hint: restart the host; what was answered is safe in the file"
    ))
}
