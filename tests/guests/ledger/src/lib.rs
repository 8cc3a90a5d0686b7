//! The workload of the fault tests: counters amounts on accounts. What it must have done follows from the events it has
//! committed alone, so a stranger can compute it and compare.
//!
//! For each `Test.Entry.Posted` it adds to `count` and `sum` of the event's key, and emits one `Test.Entry.Booked` with
//! both, and the version of this plugin. Every mode asks for these effects first: if one that does not commit leaves any of them behind, it shows.
//!
//! | `mode` | then |
//! |---|---|
//! | `ok` | commits |
//! | `slow` | spins `spins` times, then commits |
//! | `fail` | fails, as often as `fail_times` says; then commits |
//! | `always-fail` | fails |
//! | `reject` | fails for good |
//! | `trap` | panics |
//! | `hang` | never ends |

use std::hint::black_box;

use tidemill_sdk::prelude::*;

handler!(handle);

/// Overwritten in the component where a test wants another version of it.
static VERSION: [u8; 16] = *b"version=00000000";

/// Behind a black box, so that the name stays one piece in the component.
fn version() -> &'static str {
    std::str::from_utf8(black_box(&VERSION)).unwrap_or_default()
}

mod lifecycle {
    wit_bindgen::generate!({ path: "../../../wit/0.1.1", world: "lifecycle-plugin" });

    struct Ledger;

    impl exports::tidemill::plugin::lifecycle::Guest for Ledger {
        fn init() -> Result<(), String> {
            match super::version() {
                "version=refuses!" => Err("as told".to_owned()),
                "version=traps!!!" => panic!("as told"),
                _ => Ok(()),
            }
        }
    }

    export!(Ledger);
}

#[derive(Deserialize)]
struct Posted {
    n: u64,
    key: String,
    amount: i64,
    mode: String,
    #[serde(default)]
    fail_times: u32,
    #[serde(default)]
    spins: u64,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let posted: Posted = event.json()?;
    book(event, &posted)?;
    match posted.mode.as_str() {
        "ok" => Ok(()),
        "slow" => {
            (0..posted.spins).for_each(|n| {
                black_box(n);
            });
            Ok(())
        }
        "fail" if event.attempt > posted.fail_times => Ok(()),
        "fail" | "always-fail" => Err(Failure::retry("as told")),
        "reject" => Err(Failure::reject("as told")),
        "trap" => panic!("as told"),
        "hang" => loop {
            std::hint::spin_loop();
        },
        unknown => Err(Failure::reject(format!("no mode is called {unknown:?}"))),
    }
}

fn book(event: &Event, posted: &Posted) -> Result<(), Failure> {
    let count = state::get::<u64>("count")?.unwrap_or(0) + 1;
    let sum = state::get::<i64>("sum")?.unwrap_or(0) + posted.amount;
    state::set("count", &count)?;
    state::set("sum", &sum)?;
    let Posted { n, key, amount, .. } = posted;
    let booked =
        json!({ "n": n, "key": key, "amount": amount, "count": count, "sum": sum, "attempt": event.attempt, "version": version() });
    emit("Test.Entry.Booked.v1", &booked).map(drop)
}
