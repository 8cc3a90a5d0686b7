//! A copy of the database while hosts work on it, as it is at one moment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::error::lost_thread;
use super::error::{Failed, Result};
use super::location::FileLocation;
use super::open;
use super::open::refused;
use tidemill_process::files;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_storage::Error;

/// Copies the database in `file` to a new file that only this user may read, and returns its size in bytes. The copy is
/// moved into place when it is complete, has been read through, and is on the disk.
pub async fn backup(file: &str, to: PathBuf) -> std::result::Result<u64, Error> {
    let FileLocation::File(from) = FileLocation::parse(file)? else {
        return Err(refused(":memory:", "the database is in memory and ends with each process", "give a file").0);
    };
    let work = move || copy(&from, &to);
    Ok(tasks::blocking(Task::Integrity, work).await.map_err(|error| lost_thread(&error.to_string()))??)
}

fn copy(from: &Path, to: &Path) -> Result<u64> {
    let database = open::there(from)?;
    let name = to.display().to_string();
    let failed = |error: std::io::Error| {
        refused(&name, &error.to_string(), "give the path of a new file, in a folder that is there")
    };
    if fs::symlink_metadata(to).is_ok() {
        return Err(refused(&name, "there is a file already", "give the path of a new file: a backup replaces none"));
    }
    let to = open::literal(to)?;
    // Empty and private: SQLite takes it for a new one.
    let beside = files::write_beside(&to, &[]).map_err(failed)?;
    let written = fill(&database, &beside).and_then(|()| {
        let file = File::open(&beside).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(file.metadata().map_err(failed)?.len())
    });
    let bytes = written.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    if !files::link_once(&beside, &to).map_err(failed)? {
        return Err(refused(&name, "another program has created this file meanwhile", "give the path of a new file"));
    }
    let folder = to.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(bytes)
}

/// One read of the database, which goes on meanwhile, and one of the copy.
fn fill(database: &Connection, beside: &Path) -> Result<()> {
    let name = beside.display().to_string();
    let hint = "look at the free space there, and at the database: tidemill doctor --deep";
    let failed = |error: rusqlite::Error| refused(&name, &error.to_string(), hint);
    database.execute("VACUUM INTO ?1", [&name]).map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(beside, flags).map_err(failed)?;
    let said: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(Failed(Error::Permanent(format!("the copy is damaged: {said}\n  hint: {hint}"))));
    }
    Ok(())
}
