//! Where a backlog lies and effects end up: filled, watched and judged from outside, by its own commands and not by the
//! host's word.

use crate::setup::{Backlog, Setup};

pub(crate) trait Store {
    /// The host's `backend.url`.
    fn url(&self) -> String;

    /// Takes out whatever there was, and puts the backlog in.
    fn fill(&mut self, backlog: &Backlog) -> anyhow::Result<()>;

    /// How many deliveries the counters call committed, over all handlers. For the clock: it is asked every few
    /// milliseconds.
    fn committed(&mut self, handlers: &[String]) -> anyhow::Result<u64>;

    /// How many hosts have begun to read for this handler.
    fn readers(&mut self, handler: &str) -> anyhow::Result<usize>;

    /// Processor time of the server, in seconds; 0 if there is none.
    fn cpu_s(&mut self) -> anyhow::Result<f64>;

    /// Looks whether every effect is there and nothing is left over: an error if not. Answers how many were there more
    /// than once.
    fn check(&mut self, setup: &Setup) -> anyhow::Result<u64>;
}
