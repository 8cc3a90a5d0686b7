//! How long it takes until what a dead host had in hand is settled, or in another one's worker: seen from outside.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const GIVE_UP: Duration = Duration::from_secs(180);

pub(super) struct Watch(JoinHandle<Result<Option<Duration>, String>>);

impl Watch {
    pub(super) fn start(ledger: Arc<Ledger>, consumer: String) -> Self {
        let look = move || {
            let (died, mut had) = (Instant::now(), false);
            while died.elapsed() < GIVE_UP {
                match ledger.pending_of(&consumer) {
                    Ok(0) => return Ok(had.then(|| died.elapsed())),
                    Ok(_) => had = true,
                    // The store is away as well: it can only be asked later.
                    Err(_) => {}
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Err(format!("what the dead host {consumer} had in hand was not taken over within {GIVE_UP:?}"))
        };
        Self(std::thread::Builder::new().name("watch".to_owned()).spawn(look).expect("a thread"))
    }

    /// `None`: it had nothing in hand.
    pub(super) fn end(self) -> Result<Option<Duration>, String> {
        self.0.join().unwrap_or_else(|_| Err("a watch panicked".to_owned()))
    }
}
