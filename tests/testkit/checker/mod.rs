//! The independent checker: reads the store at rest and the producer's own log, and says what does not fit. It shares
//! no code with the host (a rule in `tests/it/tidy/mod.rs`): raw Redis commands, plain SQL, and its own idea of what is right.
//!
//! ```text
//! producer's log --> inputs --+
//!                             +--> judge --> Report { counts, violations }
//! store at rest ---> Found ---+
//! ```
//! What must hold:
//! - each acknowledged input is in exactly one place: committed, dead, quarantined or waiting;
//! - one whose acknowledgement was lost is in one place or in none;
//! - the emitted events are those of the committed inputs, none missing, none extra, none twice;
//! - count and sum of a key run 1..k without gap or repetition, and its state is where they end;
//! - dead letters are those whose mode demands it, and those that hosts died with too often;
//! - no attempt is counted that no mode asks for;
//! - the counters of the subscription agree with what can be counted.

mod judge;
mod log;
mod on_redis;
mod on_sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use judge::{Terms, judge};
pub use log::{Input, read as read_log};

/// Where the workload's streams lie.
#[derive(Debug, Clone)]
pub struct Store {
    pub database: Database,
    pub input: String,
    pub output: String,
    pub handler: String,
}

#[derive(Debug, Clone)]
pub enum Database {
    /// `redis://HOST:PORT`.
    Redis(String),
    /// The database's file.
    Sqlite(PathBuf),
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Found {
    /// The events on the output stream, in order.
    pub emitted: Vec<Vec<u8>>,
    pub waiting: Vec<Waiting>,
    pub dead: Vec<Dead>,
    /// Count and sum of each key.
    pub state: BTreeMap<String, (u64, i64)>,
    pub counters: Counters,
}

/// A delivery that is not finished.
#[derive(Debug)]
pub struct Waiting {
    /// `lag`, `pending`, `quarantined`, `due` or `again`.
    pub place: &'static str,
    /// For people.
    pub entry: String,
    /// `None`: the entry that is waited for is gone.
    pub body: Option<Vec<u8>>,
}

#[derive(Debug)]
pub struct Dead {
    pub class: String,
    pub text: String,
    pub body: Vec<u8>,
    pub attempts: u64,
    pub crashes: u64,
}

/// The subscription's own counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub published: u64,
    pub committed: u64,
    pub skipped: u64,
    pub duplicates: u64,
    pub retried: u64,
    pub dropped: u64,
    /// What strangers have taken away, and what has come once more because of them.
    pub strayed: u64,
    pub repeated: u64,
    pub torn: u64,
}

/// The judgement.
#[derive(Debug, Default)]
pub struct Report {
    pub inputs: usize,
    pub unknown: usize,
    pub committed: usize,
    pub dead: usize,
    pub poison: usize,
    pub quarantined: usize,
    pub waiting: usize,
    pub counters: Counters,
    pub violations: Vec<String>,
}

impl Store {
    /// Reads everything. The store should be at rest: the reading takes several steps.
    pub fn read(&self) -> Result<Found, String> {
        match &self.database {
            Database::Redis(url) => on_redis::read(self, url).map_err(|error| error.to_string()),
            Database::Sqlite(file) => on_sqlite::read(self, file).map_err(|error| error.to_string()),
        }
    }

    /// How many deliveries are in the hands of this consumer. May be asked while hosts are at work.
    pub fn pending_of(&self, consumer: &str) -> Result<usize, String> {
        match &self.database {
            Database::Redis(url) => on_redis::pending_of(self, url, consumer).map_err(|error| error.to_string()),
            Database::Sqlite(file) => on_sqlite::pending_of(self, file, consumer).map_err(|error| error.to_string()),
        }
    }

    /// Whether nobody is in the middle of writing: a process that is stopped there stops all others, too.
    pub fn takes_writes(&self) -> bool {
        match &self.database {
            Database::Redis(_) => true,
            Database::Sqlite(file) => on_sqlite::takes_writes(file),
        }
    }
}

/// The id of an event somewhere in these bytes. The producer writes its events without spaces, and hosts hand them on
/// byte for byte, also inside of records of their own: so this needs to know nothing about them.
fn event_id(bytes: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = br#""event_id":""#;
    let at = bytes.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    Some(String::from_utf8_lossy(bytes.get(at..at + 36)?).into_owned())
}
