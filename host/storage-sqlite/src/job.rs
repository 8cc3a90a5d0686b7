//! A job: work for the thread, and where its answer goes.

use tokio::sync::oneshot;

use super::error::Result;
use super::error::{copy, lost_thread};
use super::tx::Tx;

/// What a job does to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// Reads only.
    ReadOnly,
    /// Writes what a power cut may undo, because nothing was promised: the consumer dies with the machine, and its
    /// deliveries are redelivered. Not synced by itself; the next `Synced` syncs it too.
    Relaxed,
    /// Writes what must stay: synced before the answer.
    Synced,
}

pub(crate) trait Job: Send {
    fn access(&self) -> Durability;
    /// Does the work; returns whether it succeeded.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Sends the result to the caller, or the transaction's error if it failed.
    fn answer(self: Box<Self>, transaction: &Result<()>);
}

pub(crate) struct PendingJob<T, F> {
    access: Durability,
    work: Option<F>,
    found: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> PendingJob<T, F>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T>,
{
    pub(crate) fn new(access: Durability, work: F) -> (Self, oneshot::Receiver<Result<T>>) {
        let (reply, answer) = oneshot::channel();
        (Self { access, work: Some(work), found: None, reply }, answer)
    }
}

impl<T, F> Job for PendingJob<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
{
    fn access(&self) -> Durability {
        self.access
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.found = self.work.take().map(|work| work(tx));
        matches!(self.found, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, transaction: &Result<()>) {
        let answer = match (transaction, self.found) {
            // The job's own error is nearer to the cause than the transaction's.
            (_, Some(Err(error))) => Err(error),
            (Err(error), _) => Err(copy(error)),
            (Ok(()), Some(Ok(found))) => Ok(found),
            (Ok(()), None) => Err(lost_thread("it skipped a job").into()),
        };
        // The caller may have stopped waiting.
        drop(self.reply.send(answer));
    }
}
