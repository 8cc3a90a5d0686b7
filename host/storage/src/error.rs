//! What a backend could not do.

pub type Result<T> = std::result::Result<T, Error>;

/// Callers differ only in whether trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Away, busy, full, restarting: worth trying again.
    #[error("{what}: {cause}")]
    Unavailable { what: String, cause: String },
    /// The stream or the group is gone: it was deleted, or the data was lost.
    #[error(
        "{subscription}: the stream or its group is gone\n  hint: a host recreates it where it was, or reports it lost"
    )]
    GroupGone { subscription: String },
    /// The SQLite file was deleted or replaced: what is written now would be lost with the old one.
    #[error("{0}")]
    Replaced(String),
    /// Wrong address, wrong version, wrong rights, wrong type of a key: a retry is no use.
    #[error("{0}")]
    Permanent(String),
}

impl Error {
    /// The server has no memory left for this write; for another one it may have.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Unavailable { cause, .. } if cause.starts_with("OOM"))
    }

    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Permanent(_) | Self::Replaced(_))
    }
}
