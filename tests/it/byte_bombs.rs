//! Byte bombs at the bounds, against the example shop in a host with little memory: a short form of `cargo xtask bytes`.

use std::time::Duration;

use tidemill_testkit::amplification::{Plan, figures, run};

#[test]
fn byte_bombs_at_the_bounds_stay_within_their_budget() {
    let (memory_bytes, length) = (512 << 20, Duration::ZERO);
    let plan = Plan { sqlite: false, memory_bytes, length, seed: 1, short: true, only: Vec::new() };
    let outcome = run(&plan).unwrap_or_else(|error| panic!("{error}"));
    let table = figures::table(&outcome.figures);
    assert!(outcome.broken.is_empty(), "{:#?}\n{table}\n{}", outcome.broken, outcome.last_words);
    assert!(outcome.figures.iter().any(|figures| figures.refusals > 0), "the bombs were met\n{table}");
}
