//! The one thread that touches the database. It takes whatever jobs wait, runs each in a savepoint of one transaction,
//! commits, and only then answers: an answer is never ahead of the file.

use std::sync::{Arc, mpsc};
use std::time::SystemTime;

use rusqlite::{Connection, Params, Row};
use tokio::sync::oneshot;

use super::bell::Bell;
use super::error::{copy, lost_thread, named};
use super::open::Place;
use crate::backend::Result;

/// How many jobs share a transaction at most. A settlement may hold hundreds of entries, and nobody hears before all
/// are done.
const JOBS_PER_TRANSACTION_MAX: usize = 32;

/// What a job does to the file. A transaction is as careful as the most careful of its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reads only.
    Look,
    /// Writes what a power cut may take back, because nobody was promised anything: whoever holds a delivery dies with
    /// the machine, and the delivery is fetched again. Not synced by itself; the next `Keep` syncs it too.
    Note,
    /// Writes what must stay: synced before the answer.
    Keep,
}

/// A job's hands on the database: short ways to run cached statements, inside the transaction.
pub struct Tx<'a> {
    conn: &'a Connection,
    /// The backend's clock, read once for the whole job.
    pub now_ms: i64,
    rung: &'a mut Vec<Arc<str>>,
}

impl<'a> Tx<'a> {
    /// For tests, which set the clock.
    #[cfg(test)]
    pub fn at(conn: &'a Connection, now_ms: i64, rung: &'a mut Vec<Arc<str>>) -> Self {
        Self { conn, now_ms, rung }
    }

    pub fn run(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute(params)
    }

    pub fn insert(&self, sql: &str, params: impl Params) -> rusqlite::Result<i64> {
        self.conn.prepare_cached(sql)?.insert(params)
    }

    /// The first row, if there is one.
    pub fn get<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(read).transpose()
    }

    pub fn number(&self, sql: &str, params: impl Params) -> rusqlite::Result<i64> {
        self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))
    }

    pub fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.conn.prepare_cached(sql)?.query_map(params, read)?.collect()
    }

    /// Wakes who waits for something on `stream`, once all this is committed.
    pub fn ring(&mut self, stream: &Arc<str>) {
        self.rung.push(stream.clone());
    }
}

/// The callers' end. When the last one goes, the thread closes the database and ends.
#[derive(Clone)]
pub struct Db {
    /// Unbounded, but each caller waits for its answer: there are never more jobs than callers.
    jobs: mpsc::Sender<Box<dyn Job>>,
    pub bell: Arc<Bell>,
    place: Arc<str>,
}

impl Db {
    pub async fn start(place: Place) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let (opened, open) = oneshot::channel();
        let db = Self { jobs, bell: Arc::default(), place: place.name().into() };
        let bell = db.bell.clone();
        let work = move || match place.open() {
            Ok(conn) => {
                if opened.send(Ok(())).is_ok() {
                    Worker { conn, bell, synced: None }.work(&inbox);
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        std::thread::Builder::new().name("sqlite".into()).spawn(work).map_err(|e| lost_thread(&e.to_string()))?;
        open.await.map_err(|_| lost_thread("it ended while opening the database"))??;
        Ok(db)
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// Has `work` done in a transaction and answers when that is committed. Dropping the future does not stop the work.
    pub async fn ask<T, F>(&self, access: Access, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let ticket = Ticket { access, work: Some(work), found: None, reply };
        self.jobs.send(Box::new(ticket)).map_err(|_| lost_thread("it has ended"))?;
        let answer = answer.await.map_err(|_| lost_thread("it ended in the middle of a job"))?;
        answer.map_err(|error| named(error, name, &self.place))
    }
}

trait Job: Send {
    fn access(&self) -> Access;
    /// Does the work; answers whether it is to be kept.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Hands over what was found, unless it came to nothing because the transaction did.
    fn answer(self: Box<Self>, transaction: &Result<()>);
}

struct Ticket<T, F> {
    access: Access,
    work: Option<F>,
    found: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Ticket<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
{
    fn access(&self) -> Access {
        self.access
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.found = self.work.take().map(|work| work(tx));
        matches!(self.found, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, transaction: &Result<()>) {
        let answer = match (transaction, self.found) {
            // What a job says of itself is nearer to the cause than what became of the transaction.
            (_, Some(Err(error))) => Err(error),
            (Err(error), _) => Err(copy(error)),
            (Ok(()), Some(Ok(found))) => Ok(found),
            (Ok(()), None) => Err(lost_thread("it passed over a job")),
        };
        // A caller that does not wait any more is no concern of ours.
        drop(self.reply.send(answer));
    }
}

struct Worker {
    conn: Connection,
    bell: Arc<Bell>,
    /// Whether commits are synced as the connection is set now.
    synced: Option<bool>,
}

impl Worker {
    fn work(mut self, inbox: &mpsc::Receiver<Box<dyn Job>>) {
        while let Ok(first) = inbox.recv() {
            let mut jobs = vec![first];
            jobs.extend(inbox.try_iter().take(JOBS_PER_TRANSACTION_MAX - 1));
            let mut rung = Vec::new();
            let outcome = self.transaction(&mut jobs, &mut rung);
            if outcome.is_err() && !self.conn.is_autocommit() {
                // If this fails too, the next BEGIN says so.
                drop(self.conn.execute_batch("ROLLBACK"));
            }
            for job in jobs {
                job.answer(&outcome);
            }
            if outcome.is_ok() {
                self.bell.ring(&rung);
            }
        }
    }

    fn transaction(&mut self, jobs: &mut [Box<dyn Job>], rung: &mut Vec<Arc<str>>) -> Result<()> {
        let access = jobs.iter().map(|job| job.access()).max().unwrap_or(Access::Look);
        self.sync_commits(access)?;
        let begin = if access == Access::Look { "BEGIN" } else { "BEGIN IMMEDIATE" };
        self.statement(begin)?;
        // One that is alone needs no savepoint, in which SQLite would copy each page before its first change.
        let several = jobs.len() > 1;
        for job in jobs {
            if several {
                self.statement("SAVEPOINT job")?;
            }
            let rung_before = rung.len();
            let kept = job.run(&mut Tx { conn: &self.conn, now_ms: now_ms(), rung });
            if !kept {
                rung.truncate(rung_before);
                // When a disk is full, SQLite may have rolled back everything; then this fails, and all hear of it.
                self.statement(if several { "ROLLBACK TO job" } else { "ROLLBACK" })?;
            }
            if several {
                self.statement("RELEASE job")?;
            } else if !kept {
                return Ok(());
            }
        }
        self.statement("COMMIT")
    }

    fn statement(&self, sql: &str) -> Result<()> {
        Ok(self.conn.prepare_cached(sql)?.execute([]).map(drop)?)
    }

    fn sync_commits(&mut self, access: Access) -> Result<()> {
        let synced = access == Access::Keep;
        if access != Access::Look && self.synced != Some(synced) {
            self.conn.execute_batch(if synced {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            })?;
            self.synced = Some(synced);
        }
        Ok(())
    }
}

fn now_ms() -> i64 {
    // A clock before 1970 is set wrongly, but it is no reason to stop: all that counts is that it goes forward.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds for SQL. Longer than anybody lives is as good as for ever.
pub fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
