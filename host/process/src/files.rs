//! Files of this user alone that appear whole or not at all: written beside their place, then linked or renamed into it.
//! And which files other users may read.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Reading and writing, by the owner alone. No umask makes it more.
pub const PRIVATE: u32 = 0o600;
/// Reading or writing by all users. The owner's group is the operator's to fill.
const ANYBODY: u32 = 0o006;

/// Where a file is written before it takes its place: `NAME.<32 hex digits>.tmp`, without the name's own ending.
pub fn beside(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()))
}

/// Writes a new private file beside `path`; the caller puts it into its place.
pub fn write_beside(path: &Path, parts: &[&[u8]]) -> Result<PathBuf> {
    let beside = beside(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&beside)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    if let Err(error) = written {
        let _ = fs::remove_file(&beside); // the error that matters is the other one
        return Err(error);
    }
    Ok(beside)
}

/// Gives a file that was written beside its place that place, if nothing is there; of several who do so at the same time
/// one comes first. Answers whether it was this one. What is beside goes in any case.
pub fn link_once(beside: &Path, path: &Path) -> Result<bool> {
    let linked = match fs::hard_link(beside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // Some file systems know no links (FAT): there it is looked at first, which is nearly as good.
        Err(_) if fs::symlink_metadata(path).is_err() => return fs::rename(beside, path).map(|()| true),
        linked => linked.map(|()| true),
    };
    fs::remove_file(beside)?;
    linked
}

/// Whether any user of this machine may read or write it, as far as its own mode says.
pub fn is_open(metadata: &Metadata) -> bool {
    metadata.mode() & ANYBODY != 0
}

/// The mode of what is there, if any user may read or write it: `0644`.
pub fn open_mode(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    is_open(&metadata).then(|| format!("{:04o}", metadata.mode() & 0o7777))
}
