//! The fence: which of the entries to be settled the consumer still owns, and acking them.

use std::collections::HashSet;

use super::consumers;
use super::error::Result;
use super::plan::{RowKey, SettleBatch};
use super::tx::Tx;

pub(crate) struct Fence {
    subscription: i64,
    consumer: i64,
    /// By the number of the queue.
    queues: [InQueue; 2],
}

/// What the consumer owns in one queue between the first and the last entry of the settlement.
#[derive(Default)]
struct InQueue {
    from: i64,
    to: i64,
    held: HashSet<i64>,
    done: Vec<i64>,
}

impl Fence {
    /// One query for each queue.
    pub(crate) fn read(tx: &Tx<'_>, subscription: i64, plan: &SettleBatch) -> Result<Self> {
        // A consumer that is not known holds nothing.
        let consumer = consumers::seek(tx, &plan.consumer)?.unwrap_or(consumers::UNKNOWN);
        let mut fence = Self { subscription, consumer, queues: Default::default() };
        for (number, queue) in (0i64..).zip(&mut fence.queues) {
            let entries = || plan.steps.iter().filter(|step| step.place.0 == number).map(|step| step.place.1);
            if let (Some(from), Some(to)) = (entries().min(), entries().max()) {
                (queue.from, queue.to) = (from, to);
                let sql = "SELECT entry FROM pending
                           WHERE subscription = ?1 AND queue = ?2 AND entry BETWEEN ?3 AND ?4 AND consumer = ?5";
                let held = tx.all(sql, (subscription, number, from, to, consumer), |row| row.get(0))?;
                queue.held = held.into_iter().collect();
            }
        }
        Ok(fence)
    }

    pub(crate) fn hold(&self, (queue, entry): RowKey) -> bool {
        self.queues[queue as usize].held.contains(&entry)
    }

    pub(crate) fn let_go(&mut self, (queue, entry): RowKey) {
        let queue = &mut self.queues[queue as usize];
        queue.held.remove(&entry);
        queue.done.push(entry);
    }

    /// Puts a delivery into quarantine. It stays pending, but without an owner.
    pub(crate) fn set_aside(&mut self, tx: &Tx<'_>, (queue, entry): RowKey) -> Result<()> {
        let sql = "UPDATE pending SET consumer = ?4, alone = 0 WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
        tx.run(sql, (self.subscription, queue, entry, consumers::QUARANTINE))?;
        self.queues[queue as usize].held.remove(&entry);
        Ok(())
    }

    /// Leaves a delivery for other hosts.
    pub(crate) fn leave(&mut self, tx: &Tx<'_>, (queue, entry): RowKey) -> Result<()> {
        let sql = "UPDATE pending SET consumer = ?4, alone = 0, delivered_ms = ?5
                   WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
        tx.run(sql, (self.subscription, queue, entry, consumers::ELSEWHERE, tx.now_ms))?;
        self.queues[queue as usize].held.remove(&entry);
        Ok(())
    }

    /// Acks what was settled.
    pub(crate) fn close(&self, tx: &Tx<'_>) -> Result<()> {
        for (number, queue) in (0i64..).zip(&self.queues) {
            if queue.held.is_empty() && !queue.done.is_empty() {
                // All between the first and the last is done, as mostly: then one statement is enough.
                let sql = "DELETE FROM pending
                           WHERE subscription = ?1 AND queue = ?2 AND entry BETWEEN ?3 AND ?4 AND consumer = ?5";
                tx.run(sql, (self.subscription, number, queue.from, queue.to, self.consumer))?;
            } else {
                for entry in &queue.done {
                    let sql = "DELETE FROM pending WHERE subscription = ?1 AND queue = ?2 AND entry = ?3";
                    tx.run(sql, (self.subscription, number, entry))?;
                }
            }
        }
        let [_, redelivery] = &self.queues;
        for entry in &redelivery.done {
            tx.run("DELETE FROM redelivery WHERE id = ?1", [entry])?;
        }
        Ok(())
    }
}
