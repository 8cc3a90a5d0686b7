//! A job: work for the thread, and where its answer goes.

use tokio::sync::oneshot;

use super::error::{copy, lost_thread};
use super::tx::Tx;
use crate::backend::Result;

/// What a job does to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Reads only.
    ReadOnly,
    /// Writes what a power cut may take back, because nobody was promised anything: whoever holds a delivery dies with
    /// the machine, and the delivery is fetched again. Not synced by itself; the next `Keep` syncs it too.
    Relaxed,
    /// Writes what must stay: synced before the answer.
    Synced,
}

pub trait Job: Send {
    fn access(&self) -> Durability;
    /// Does the work; answers whether it went well.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Hands over what was found, unless it came to nothing because the transaction did.
    fn answer(self: Box<Self>, transaction: &Result<()>);
}

pub struct Ticket<T, F> {
    access: Durability,
    work: Option<F>,
    found: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Ticket<T, F>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T>,
{
    pub fn new(access: Durability, work: F) -> (Self, oneshot::Receiver<Result<T>>) {
        let (reply, answer) = oneshot::channel();
        (Self { access, work: Some(work), found: None, reply }, answer)
    }
}

impl<T, F> Job for Ticket<T, F>
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
