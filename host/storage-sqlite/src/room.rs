//! How much of what lies in the file is held at once, in bytes.

use std::io::Read;

use bytes::Bytes;
use rusqlite::Row;
use sha2::{Digest, Sha256};

use super::row::{EVENT, body, id};
use super::tx::Tx;
use tidemill_core::model::delivery::{Body, Delivery, LARGE_PREFIX_BYTES, Large, Queue};
use tidemill_storage::Options;

/// What is read of a body at once, where it is too large to be held.
const PIECE_BYTES: usize = 64 << 10;

/// The room for what is delivered at once.
pub(crate) struct Room {
    bytes: usize,
    entry_bytes_max: usize,
    is_empty: bool,
}

impl Room {
    pub(crate) fn new(options: &Options) -> Self {
        Self { bytes: options.fetch_bytes_max, entry_bytes_max: options.entry_bytes_max(), is_empty: true }
    }

    /// A single one, however large.
    pub(crate) fn for_one(options: &Options) -> Self {
        Self { bytes: usize::MAX, ..Self::new(options) }
    }

    /// Whether there is room for so much; then it is taken. The first one has room in any case.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.is_empty || bytes <= self.bytes;
        self.bytes = if fits { self.bytes.saturating_sub(bytes) } else { 0 };
        self.is_empty = false;
        fits
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes == 0 && !self.is_empty
    }

    /// What an entry of a stream may have to be held, for SQL.
    pub(crate) fn entry_bytes_max(&self) -> i64 {
        i64::try_from(self.entry_bytes_max).unwrap_or(i64::MAX)
    }

    /// A row of `entries`: a first delivery; none if there is no room for it. It is read as
    /// `id, kind, body, length`, where the body is NULL if it is too large to be held.
    pub(crate) fn entry(&mut self, tx: &Tx<'_>, row: &Row<'_>) -> rusqlite::Result<Option<Delivery>> {
        let entry = row.get(0)?;
        let bytes: u64 = row.get::<_, i64>(3)?.unsigned_abs();
        let is_held = !matches!(row.get_ref(2)?, rusqlite::types::ValueRef::Null);
        let takes = if is_held { bytes as usize } else { LARGE_PREFIX_BYTES };
        if !self.takes(takes) {
            return Ok(None);
        }
        let body = if is_held { body(row, 1)? } else { Body::Large(large(tx, entry, row.get::<_, i64>(1)? == EVENT)?) };
        Ok(Some(Delivery::first(Queue::Stream, id(entry), body)))
    }
}

/// What is known of a body that is too large to be held.
fn large(tx: &Tx<'_>, entry: i64, event: bool) -> rusqlite::Result<Large> {
    let failed = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    let mut blob = tx.open_body(entry)?;
    let (mut prefix, mut sha256, mut bytes) = (Vec::new(), Sha256::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = blob.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        prefix.extend_from_slice(&piece[..read.min(LARGE_PREFIX_BYTES - prefix.len())]);
        sha256.update(&piece[..read]);
        bytes += read as u64;
    }
    Ok(Large { event, prefix: Bytes::from(prefix), bytes, sha256: sha256.finalize().into() })
}
