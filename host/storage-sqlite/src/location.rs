//! Where a database lies: in memory, or in a file that is told from another one that is put in its place.

use std::path::PathBuf;

use rusqlite::Connection;

use super::error::Result;
use super::open::{self, refused};
use super::open_to_read;

/// What tells one file from another, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
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

#[derive(Clone)]
pub(crate) enum FileLocation {
    Memory,
    File(PathBuf),
    /// To be read only, if that can be.
    ToRead(PathBuf),
}

impl FileLocation {
    pub(crate) fn parse(file: &str) -> Result<Self> {
        match file {
            "" => Err(refused("no file", "the backend url names no file", "sqlite:tidemill.db or sqlite::memory:")),
            ":memory:" => Ok(Self::Memory),
            path => Ok(Self::File(path.into())),
        }
    }

    pub(crate) fn only_read(self) -> Self {
        match self {
            Self::File(path) => Self::ToRead(path),
            other => other,
        }
    }

    pub(crate) fn is_memory(&self) -> bool {
        matches!(self, Self::Memory)
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Memory => ":memory:".into(),
            Self::File(path) | Self::ToRead(path) => path.display().to_string(),
        }
    }

    /// Which file lies there now; none where none does, or it cannot be told.
    pub(crate) fn identity(&self) -> Option<FileId> {
        let Self::File(path) = self else { return None };
        FileId::of(&std::fs::metadata(path).ok()?)
    }

    /// No file, or another one: a failed `stat` alone is not enough.
    pub(crate) fn is_known_gone(&self, found: Option<FileId>) -> bool {
        let Self::File(path) = self else { return false };
        found.is_some() || std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    pub(crate) fn open(&self) -> Result<Connection> {
        let mut conn = match self {
            Self::Memory => Connection::open_in_memory()?,
            Self::File(path) => open::file(path)?,
            Self::ToRead(path) => match open_to_read::open(path)? {
                Some(conn) => return Ok(conn),
                None => open::file(path)?,
            },
        };
        open::set_up(&mut conn, &self.name())?;
        Ok(conn)
    }
}
