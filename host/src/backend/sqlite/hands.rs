//! The fence: what a consumer holds of the entries that it settles, and letting go of them.

use std::collections::HashSet;

use super::consumers;
use super::plan::{Place, SettleBatch};
use super::tx::Tx;
use crate::backend::Result;

pub struct Fence {
    subscription: i64,
    consumer: i64,
    /// By the number of the lane.
    lanes: [InLane; 2],
}

/// What was held in one lane between the first and the last entry of the settlement.
#[derive(Default)]
struct InLane {
    from: i64,
    to: i64,
    held: HashSet<i64>,
    done: Vec<i64>,
}

impl Fence {
    /// One look at each lane.
    pub fn look(tx: &Tx<'_>, subscription: i64, plan: &SettleBatch) -> Result<Self> {
        // A consumer that is not known holds nothing.
        let consumer = consumers::seek(tx, &plan.consumer)?.unwrap_or(consumers::UNKNOWN);
        let mut hands = Self { subscription, consumer, lanes: Default::default() };
        for (number, lane) in (0i64..).zip(&mut hands.lanes) {
            let entries = || plan.steps.iter().filter(|step| step.place.0 == number).map(|step| step.place.1);
            if let (Some(from), Some(to)) = (entries().min(), entries().max()) {
                (lane.from, lane.to) = (from, to);
                let sql = "SELECT entry FROM pending
                           WHERE subscription = ?1 AND lane = ?2 AND entry BETWEEN ?3 AND ?4 AND consumer = ?5";
                let held = tx.all(sql, (subscription, number, from, to, consumer), |row| row.get(0))?;
                lane.held = held.into_iter().collect();
            }
        }
        Ok(hands)
    }

    pub fn hold(&self, (lane, entry): Place) -> bool {
        self.lanes[lane as usize].held.contains(&entry)
    }

    pub fn let_go(&mut self, (lane, entry): Place) {
        let lane = &mut self.lanes[lane as usize];
        lane.held.remove(&entry);
        lane.done.push(entry);
    }

    /// Puts a delivery into quarantine. It stays pending, but in nobody's hands.
    pub fn set_aside(&mut self, tx: &Tx<'_>, (lane, entry): Place) -> Result<()> {
        let sql = "UPDATE pending SET consumer = ?4, alone = 0 WHERE subscription = ?1 AND lane = ?2 AND entry = ?3";
        tx.run(sql, (self.subscription, lane, entry, consumers::QUARANTINE))?;
        self.lanes[lane as usize].held.remove(&entry);
        Ok(())
    }

    /// Leaves a delivery for other hosts.
    pub fn leave(&mut self, tx: &Tx<'_>, (lane, entry): Place) -> Result<()> {
        let sql = "UPDATE pending SET consumer = ?4, alone = 0, delivered_ms = ?5
                   WHERE subscription = ?1 AND lane = ?2 AND entry = ?3";
        tx.run(sql, (self.subscription, lane, entry, consumers::ELSEWHERE, tx.now_ms))?;
        self.lanes[lane as usize].held.remove(&entry);
        Ok(())
    }

    /// Acks what was let go of.
    pub fn close(&self, tx: &Tx<'_>) -> Result<()> {
        for (number, lane) in (0i64..).zip(&self.lanes) {
            if lane.held.is_empty() && !lane.done.is_empty() {
                // All that lay between the first and the last is done: mostly so, and one statement then.
                let sql = "DELETE FROM pending
                           WHERE subscription = ?1 AND lane = ?2 AND entry BETWEEN ?3 AND ?4 AND consumer = ?5";
                tx.run(sql, (self.subscription, number, lane.from, lane.to, self.consumer))?;
            } else {
                for entry in &lane.done {
                    let sql = "DELETE FROM pending WHERE subscription = ?1 AND lane = ?2 AND entry = ?3";
                    tx.run(sql, (self.subscription, number, entry))?;
                }
            }
        }
        let [_, again] = &self.lanes;
        for entry in &again.done {
            tx.run("DELETE FROM again WHERE id = ?1", [entry])?;
        }
        Ok(())
    }
}
