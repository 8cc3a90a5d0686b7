//! The one thread that touches the database. It takes whatever jobs wait, runs them in one transaction, commits, and
//! only then answers: an answer is never ahead of the file.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::Result;
use super::error::{Failed, lost_thread, named};
use super::job::{Durability, Job, PendingJob};
use super::location::{FileId, FileLocation};
use super::steady::Steady;
use super::tx::Tx;
use super::wakeups::Wakeups;
use tidemill_process::tasks;
use tidemill_process::tasks::{STUCK_MAX, Task};
use tidemill_storage::Error;

/// How many jobs share a transaction at most. A settlement may hold hundreds of entries, and no caller gets its answer
/// before all are done.
const JOBS_PER_TRANSACTION_MAX: usize = 32;

/// Databases of this process that are open.
static OPEN: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// One of them.
struct Opened;

impl Opened {
    fn new() -> Self {
        *open_now() += 1;
        Self
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        *open_now() -= 1;
        CLOSED.notify_all();
    }
}

fn open_now() -> MutexGuard<'static, usize> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until all databases of this process are closed, which checkpoints the log into the file and removes it. False:
/// that takes longer than `max`, and the log stays; the next process that opens the file uses it.
pub fn wait_until_closed(max: Duration) -> bool {
    let waited = CLOSED.wait_timeout_while(open_now(), max, |open| *open > 0);
    waited.is_ok_and(|(_, time)| !time.timed_out())
}

/// The callers' end. When the last one goes, the thread closes the database and ends.
#[derive(Clone)]
pub(crate) struct Db {
    /// Unbounded, but each caller waits for its answer: there are never more jobs than callers.
    jobs: mpsc::Sender<Box<dyn Job>>,
    pub(crate) wakeups: Arc<Wakeups>,
    place: Arc<str>,
}

impl Db {
    pub(crate) async fn start(place: FileLocation) -> Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        let (opened, open) = oneshot::channel();
        let db = Self { jobs, wakeups: Arc::default(), place: place.name().into() };
        let wakeup = db.wakeups.clone();
        let (mut opened, mut worker) = (Some(opened), None);
        let work = move || {
            if worker.is_none() {
                let (answer, conn) = match place.open().and_then(|conn| Ok((Steady::open(&conn)?, conn))) {
                    Ok(opened) => (Ok(()), Some(opened)),
                    Err(error) => (Err(error), None),
                };
                worker = conn.map(|(steady, conn)| {
                    let (place, file) = (place.clone(), place.identity());
                    Worker { conn, steady, wakeups: wakeup.clone(), synced: None, place, file, _opened: Opened::new() }
                });
                // The caller may have stopped waiting.
                let is_wanted = opened.take().is_some_and(|opened| opened.send(answer).is_ok());
                worker.take_if(|_| !is_wanted);
            }
            if let Some(worker) = &mut worker {
                worker.work(&waiting);
            }
            worker = None;
        };
        let started = tasks::serve_thread(Task::Sqlite, "sqlite".to_owned(), None, Some(STUCK_MAX), work);
        started.map_err(|error| lost_thread(&error.to_string()))?;
        open.await.map_err(|_| lost_thread("it ended while opening the database"))??;
        Ok(db)
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Runs `work` in a transaction and returns when that is committed. Dropping the future does not stop the work.
    pub(crate) async fn ask<T, F>(
        &self,
        access: Durability,
        name: &'static str,
        work: F,
    ) -> std::result::Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (job, answer) = PendingJob::new(access, work);
        self.jobs.send(Box::new(job)).map_err(|_| lost_thread("it has ended"))?;
        let answer = answer.await.map_err(|_| lost_thread("it ended in the middle of a job"))?;
        answer.map_err(|failed| named(failed.0, name, &self.place))
    }
}

struct Worker {
    conn: Connection,
    steady: Steady,
    wakeups: Arc<Wakeups>,
    /// Whether commits are synced as the connection is set now.
    synced: Option<bool>,
    place: FileLocation,
    /// Which file was opened.
    file: Option<FileId>,
    /// The last field, and so dropped once the connection is closed.
    _opened: Opened,
}

impl Worker {
    /// Serves until the last caller is gone. After a panic in a job this goes on with the next one: the callers of jobs
    /// that shared its transaction get an error, and retry.
    fn work(&mut self, waiting: &mpsc::Receiver<Box<dyn Job>>) {
        self.end_transaction();
        loop {
            tasks::idle();
            let Ok(first) = waiting.recv() else { return };
            tasks::tick();
            let jobs = std::iter::once(first).chain(waiting.try_iter().take(JOBS_PER_TRANSACTION_MAX - 1));
            // What needs no sync goes first and does not wait for one: handlers run on what was fetched meanwhile.
            let (keep, light): (Vec<_>, Vec<_>) = jobs.partition(|job| job.access() == Durability::Synced);
            for group in [light, keep].into_iter().filter(|group| !group.is_empty()) {
                self.serve(group);
            }
        }
    }

    fn serve(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let mut to_notify = Vec::new();
        let outcome = self.is_in_place().and_then(|()| self.transaction(&mut jobs, &mut to_notify));
        if outcome.is_err() {
            self.end_transaction();
        }
        for job in jobs {
            job.answer(&outcome);
        }
        if outcome.is_ok() {
            self.wakeups.notify(&to_notify);
        }
    }

    /// Rolls back a failed transaction.
    fn end_transaction(&self) {
        if !self.conn.is_autocommit() {
            // If this fails too, the next BEGIN reports it.
            drop(self.conn.execute_batch("ROLLBACK"));
        }
    }

    /// Checked before each transaction, which takes far longer: what is written into a deleted file is lost.
    fn is_in_place(&self) -> Result<()> {
        let now = self.place.identity();
        if self.file.is_none() || now == self.file || !self.place.is_known_gone(now) {
            return Ok(());
        }
        let what = if now.is_some() { "another file was put in its place" } else { "it was deleted" };
        let name = self.place.name();
        Err(Failed(Error::Replaced(format!(
            "SQLite {name}: {what} while it was open; nothing more is written\n  hint: start the host again, on the file that \
             is to be used (stop all hosts before a file is restored)"
        ))))
    }

    /// Jobs read before they write. One that fails without having written fails alone; one that fails later met a full
    /// disk or a broken file, and then the transaction is rolled back for all. (With a savepoint for each, SQLite
    /// would copy every page before its first change: a fifth of the time.)
    fn transaction(&mut self, jobs: &mut [Box<dyn Job>], to_notify: &mut Vec<Arc<str>>) -> Result<()> {
        let access = jobs.iter().map(|job| job.access()).max().unwrap_or(Durability::ReadOnly);
        self.sync_commits(access)?;
        self.statement(if access == Durability::ReadOnly { "BEGIN" } else { "BEGIN IMMEDIATE" })?;
        for job in jobs {
            let changes = self.conn.total_changes();
            let went_well = job.run(&mut Tx::new(&self.conn, &self.steady, to_notify));
            if !went_well && (self.conn.total_changes() != changes || self.conn.is_autocommit()) {
                let cause = "another job of the same transaction failed half way".into();
                return Err(Failed(Error::Unavailable { what: "SQLite".into(), cause }));
            }
        }
        self.statement("COMMIT")
    }

    fn statement(&self, sql: &str) -> Result<()> {
        Ok(self.conn.prepare_cached(sql)?.execute([]).map(drop)?)
    }

    fn sync_commits(&mut self, access: Durability) -> Result<()> {
        let synced = access == Durability::Synced;
        if access != Durability::ReadOnly && self.synced != Some(synced) {
            let sql = if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.conn.execute_batch(sql)?;
            self.synced = Some(synced);
        }
        Ok(())
    }
}
