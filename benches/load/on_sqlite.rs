//! A backlog in a SQLite file, and what is there when it is drained.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use rusqlite::{Connection, OpenFlags};
use tidemill_benches::Case;
use tidemill_storage::NewEntry;
use tokio::runtime::Handle;

use crate::setup::{Backlog, STREAM, Setup};
use crate::store::Store;

/// Events that are published in one transaction.
const FILL: u64 = 500;
/// How long a reader waits for a writer.
const BUSY_MAX: Duration = Duration::from_secs(10);

pub(crate) struct OnSqlite {
    file: PathBuf,
    runtime: Handle,
    /// Opened when there is a file, for reading alone.
    connection: Option<Connection>,
}

impl OnSqlite {
    pub(crate) fn new(file: PathBuf, runtime: Handle) -> Self {
        Self { file, runtime, connection: None }
    }

    fn connection(&self) -> anyhow::Result<&Connection> {
        self.connection.as_ref().context("the SQLite file is not filled yet")
    }

    fn count(&self, sql: &str) -> anyhow::Result<u64> {
        let count: i64 = self.connection()?.query_row(sql, [], |row| row.get(0))?;
        Ok(count as u64)
    }
}

impl Store for OnSqlite {
    fn url(&self) -> String {
        format!("sqlite:{}", self.file.display())
    }

    fn fill(&mut self, backlog: &Backlog) -> anyhow::Result<()> {
        self.connection = None;
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.file.clone().into_os_string();
            name.push(suffix);
            // There is none before the first drain.
            let _ = std::fs::remove_file(name);
        }
        let config = Case::Stateless.config(&self.url(), "");
        self.runtime.block_on(async {
            let backend = tidemill::backends::open_backend(&config).await?;
            for start in (0..backlog.events).step_by(FILL as usize) {
                let entry = |number| NewEntry { body: backlog.event(number).into(), dedup_key: None };
                let entries: Vec<NewEntry> = (start..(start + FILL).min(backlog.events)).map(entry).collect();
                backend.publish(STREAM, &entries).await?;
            }
            anyhow::Ok(())
        })?;
        let connection = Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_MAX)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn committed(&mut self, _handlers: &[String]) -> anyhow::Result<u64> {
        self.count("SELECT coalesce(sum(committed), 0) FROM subscriptions")
    }

    fn readers(&mut self, _handler: &str) -> anyhow::Result<usize> {
        Ok(self.count("SELECT count(*) FROM consumers")? as usize)
    }

    fn cpu_s(&mut self) -> anyhow::Result<f64> {
        Ok(0.0)
    }

    fn check(&mut self, setup: &Setup) -> anyhow::Result<u64> {
        let deliveries = setup.backlog.events * setup.plugins.len() as u64;
        ensure!(setup.case == Case::Stateless, "on SQLite only the stateless case is looked at");
        let pending = self.count("SELECT count(*) FROM pending")?;
        ensure!(pending == 0, "{pending} deliveries are still pending");
        let dedup_keys =
            self.count("SELECT count(*) FROM (SELECT DISTINCT scope, event FROM inbox WHERE scope > 0)")?;
        ensure!(dedup_keys == deliveries, "{dedup_keys} events in the inbox, not {deliveries}");
        let dead = self.count("SELECT count(*) FROM dead")?;
        ensure!(dead == 0, "{dead} dead letters");
        Ok(self.count("SELECT count(*) FROM inbox WHERE scope > 0")? - dedup_keys)
    }
}
