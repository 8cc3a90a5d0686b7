//! A short round of the soak on each backend. `TIDEMILL_SEED` repeats one; `cargo xtask faults` runs many and long ones.

use std::time::Duration;

use tidemill_testkit::soak::{Kind, Only, Plan, round};

const LENGTH: Duration = Duration::from_secs(25);

fn short(kind: Kind) {
    let seed = std::env::var("TIDEMILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    eprintln!("seed: {seed}");
    let outcome = round(Plan { seed, kind, length: LENGTH, only: Only::default() });
    eprintln!("{outcome}");
    assert_eq!(outcome.violations(), 0, "{outcome}\n{}", outcome.said);
}

#[test]
fn a_short_soak_on_redis() {
    short(Kind::Redis);
}

#[test]
fn a_short_soak_on_sqlite() {
    short(Kind::Sqlite);
}
