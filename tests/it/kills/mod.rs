//! Hosts that are killed, stopped and told to go in the middle of everything: nothing is lost and nothing is doubled.
//! Rows 1 to 10 and 41 of the fault table; row 5 needs a network between host and backend and lies with the proxy.
//!
//! How many kills a point gets is bounded here; `TIDEMILL_KILLS=20` asks for more.

mod drain;
mod points;
mod poison;
mod zombies;

use tidemill_testkit::ledger::{Ledger, Options};
use tidemill_testkit::server::RedisServer;

/// The two places where a story of this folder happens.
fn on_redis(options: Options) -> Ledger {
    let url = RedisServer::shared().url();
    Ledger::on_redis(&url, &url, options)
}

fn on_sqlite(options: Options) -> Ledger {
    Ledger::on_sqlite(options)
}

/// Kills a point: as asked for by the environment, else few.
fn kills(few: u32) -> u32 {
    std::env::var("TIDEMILL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// The seed of this run; `TIDEMILL_SEED` repeats another one.
fn seed() -> u64 {
    std::env::var("TIDEMILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
