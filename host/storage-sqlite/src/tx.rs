//! A job's access to the database: short ways to run cached statements, inside the transaction.

use std::sync::Arc;

use rusqlite::blob::Blob;
use rusqlite::{Connection, MAIN_DB, Params, Row};

use super::millis::wall_ms;
use super::steady::Steady;

pub(crate) struct Tx<'a> {
    conn: &'a Connection,
    /// The backend's clock (`steady`), read once for the whole job. What waits, lasts or ages goes by it.
    pub now_ms: i64,
    /// The wall clock: for people.
    pub(crate) wall_ms: i64,
    to_notify: &'a mut Vec<Arc<str>>,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(conn: &'a Connection, steady: &Steady, to_notify: &'a mut Vec<Arc<str>>) -> Self {
        Self { conn, now_ms: steady.now_ms(), wall_ms: wall_ms(), to_notify }
    }

    /// For tests, which set the clock.
    #[cfg(test)]
    pub(crate) fn at(conn: &'a Connection, now_ms: i64, to_notify: &'a mut Vec<Arc<str>>) -> Self {
        Self::at_both(conn, now_ms, now_ms, to_notify)
    }

    #[cfg(test)]
    pub(crate) fn at_both(conn: &'a Connection, now_ms: i64, wall_ms: i64, to_notify: &'a mut Vec<Arc<str>>) -> Self {
        Self { conn, now_ms, wall_ms, to_notify }
    }

    /// Answers how many rows were changed.
    pub(crate) fn run(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute(params)
    }

    /// Answers the number of the new row.
    pub(crate) fn insert(&self, sql: &str, params: impl Params) -> rusqlite::Result<i64> {
        self.conn.prepare_cached(sql)?.insert(params)
    }

    /// The first row, if there is one.
    pub(crate) fn get<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(read).transpose()
    }

    /// The one number that a query always answers with.
    pub(crate) fn number(&self, sql: &str, params: impl Params) -> rusqlite::Result<i64> {
        self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))
    }

    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.conn.prepare_cached(sql)?.query_map(params, read)?.collect()
    }

    /// Rows up to the first one that `read` makes nothing of.
    pub(crate) fn some<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut got = Vec::new();
        while let Some(row) = rows.next()? {
            match read(row)? {
                Some(found) => got.push(found),
                None => break,
            }
        }
        Ok(got)
    }

    /// Opens the body of an entry to be read piece by piece.
    pub(crate) fn open_body(&self, entry: i64) -> rusqlite::Result<Blob<'_>> {
        self.conn.blob_open(MAIN_DB, "entries", "body", entry, true)
    }

    /// Wakes the fetches that wait on `stream`, once this transaction is committed.
    pub(crate) fn notify(&mut self, stream: &Arc<str>) {
        self.to_notify.push(stream.clone());
    }
}
