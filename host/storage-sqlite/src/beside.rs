//! Does the write-ahead log beside a database belong to it?
//!
//! SQLite does not check: it replays any valid log there over the file. Copying a backup over a database while the old
//! `-wal` stays restores the old database, or a mixture of both, without an error. The two files themselves show:
//!
//! - A file whose header declares no log never had one: a new copy by `tidemill backup`, or by `VACUUM INTO`, is such a
//!   file.
//! - Each connection that changes the first page raises a counter in it by one. The log begins with the file's counter
//!   or the one after it, and the file never gets ahead of the log that is copied into it.
//!
//! A copy of other kinds that is as old as the log cannot be distinguished from the database.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tidemill_process::files;

/// File and log are read again if another connection changes the log meanwhile; that one has accepted them as a pair.
const LOOKS_MAX: usize = 3;
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: u64 = 24;
const FILE_HEADER_BYTES: usize = 100;
/// Where the counter stands in the first page.
const COUNTER_AT: u64 = 24;

/// Files of databases that this process has inspected. Closing one would release the locks that SQLite has on it, for
/// they belong to process and file (POSIX): so they stay open, one for each file.
static KEPT: Mutex<Vec<((u64, u64), File)>> = Mutex::new(Vec::new());

/// Creates a new database's file, for this user alone; SQLite gives its mode to those beside it.
pub(crate) fn make(path: &Path) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(files::PRIVATE).open(path)?;
    let name = name_of(&file.metadata()?);
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push((name, file));
    Ok(())
}

/// The path of the log, which lies beside what a link leads to.
pub(crate) fn log_of(database: &Path) -> PathBuf {
    let mut name = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned()).into_os_string();
    name.push("-wal");
    name.into()
}

/// Why the log beside it cannot be this database's; none if it can, or if there is nothing in it.
pub(crate) fn mismatch(database: &Path) -> Result<Option<String>> {
    for _ in 0..LOOKS_MAX {
        let Some(log) = Log::beside(database)? else { return Ok(None) };
        let Some(header) = header(database)? else { return Ok(None) };
        if Log::beside(database)?.as_ref() == Some(&log) {
            return Ok(log.against(&header));
        }
    }
    Ok(None)
}

/// The first bytes of the file; none if it is not a database, or an empty one, beside which SQLite removes a log.
fn header(database: &Path) -> Result<Option<[u8; FILE_HEADER_BYTES]>> {
    // Poisoned or not: files stay what they are.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name_of(&fs::metadata(database)?);
    let at = match kept.iter().position(|(known, _)| *known == name) {
        Some(at) => at,
        None => {
            let file = File::open(database)?;
            kept.push((name_of(&file.metadata()?), file));
            kept.len() - 1
        }
    };
    let mut header = [0; FILE_HEADER_BYTES];
    let whole = read_whole(&kept[at].1, &mut header, 0)?;
    Ok((whole && header.starts_with(b"SQLite format 3\0")).then_some(header))
}

fn name_of(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// What a log says of the database that it was written for.
#[derive(PartialEq, Eq)]
struct Log {
    /// Which file it is: the last connection that closes removes the log, and the next one makes another.
    file: (u64, u64),
    salts: [u8; 8],
    page_bytes: u32,
    /// Counters in the first and in the last copy of the first page, if it holds one.
    counters: Option<(u32, u32)>,
}

impl Log {
    /// None if there is none, or if it has nothing that SQLite would replay over a database.
    fn beside(database: &Path) -> Result<Option<Self>> {
        match File::open(log_of(database)) {
            Ok(log) => Self::look(&log),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn look(log: &File) -> Result<Option<Self>> {
        let Some((salts, page_bytes)) = Self::begin(log)? else { return Ok(None) };
        let stride = FRAME_HEADER_BYTES + u64::from(page_bytes);
        let (mut at, mut counters) = (LOG_HEADER_BYTES as u64, None);
        let mut frame = [0; FRAME_HEADER_BYTES as usize];
        while read_whole(log, &mut frame, at)? && frame[8..16] == salts {
            if number(&frame, 0) == 1 {
                let mut counter = [0; 4];
                if !read_whole(log, &mut counter, at + FRAME_HEADER_BYTES + COUNTER_AT)? {
                    break;
                }
                let counter = u32::from_be_bytes(counter);
                counters = Some((counters.map_or(counter, |(first, _)| first), counter));
            }
            at += stride;
        }
        let empty = at == LOG_HEADER_BYTES as u64;
        let file = name_of(&log.metadata()?);
        Ok((!empty).then_some(Self { file, salts, page_bytes, counters }))
    }

    /// Salts and size of a page of a log that is one.
    fn begin(log: &File) -> Result<Option<([u8; 8], u32)>> {
        let mut header = [0; LOG_HEADER_BYTES];
        let good = read_whole(log, &mut header, 0)? && number(&header, 0) & !1 == 0x377f_0682;
        let salts = header[16..24].try_into().expect("eight bytes");
        Ok(good.then_some((salts, number(&header, 8))))
    }

    fn against(&self, header: &[u8; FILE_HEADER_BYTES]) -> Option<String> {
        let page_bytes = match u32::from(u16::from_be_bytes([header[16], header[17]])) {
            1 => 65536,
            bytes => bytes,
        };
        if header[18] == 1 && header[19] == 1 {
            return Some("the file is a copy that has never had a log".to_owned());
        }
        if page_bytes != self.page_bytes {
            return Some(format!("the file's pages have {page_bytes} bytes, the log's {}", self.page_bytes));
        }
        let (counter, (first, last)) = (number(header, COUNTER_AT as usize), self.counters?);
        // Differences, because the counter wraps around.
        let known = counter.wrapping_sub(first.wrapping_sub(1)) <= last.wrapping_sub(first.wrapping_sub(1));
        (!known).then(|| format!("the file is at change {counter}, the log goes from {first} to {last}"))
    }
}

/// False at the end of the file.
fn read_whole(file: &File, bytes: &mut [u8], at: u64) -> Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
