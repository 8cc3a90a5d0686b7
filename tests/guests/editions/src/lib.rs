//! One handler in several versions. It is built once; a test makes another version of it by writing another name over the
//! `same` in the component's bytes (`tidemill_testkit::edition`).
//!
//! | edition | for an event with `n` |
//! |---|---|
//! | `same` | adds 1 to the state `n` of its key, emits {"n": n} |
//! | `emit` | the same, but emits {"n": n + 1} |
//! | `stat` | the same, but adds 2 |
//! | `fail` | fails, may be retried |
//! | `some` | fails if n is a multiple of 5, else as `same` |
//! | `trap` | panics |
//! | `deny` | fails for good |
//! | `slow` | spins for some milliseconds, then as `same` |

use std::hint::black_box;

use tidemill_sdk::prelude::*;

handler!(handle);

static EDITION: [u8; 12] = *b"edition:same";

/// About 20 ms on the machines of today.
const SPINS: u64 = 20_000_000;

#[derive(Deserialize)]
struct Data {
    n: u64,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let data: Data = event.json()?;
    let (mut emitted, mut added) = (data.n, 1);
    // Not known when this is compiled: it is read where the test has written.
    match &black_box(&EDITION)[8..] {
        b"same" => {}
        b"emit" => emitted += 1,
        b"stat" => added = 2,
        b"fail" => return Err(Failure::retry("this edition fails")),
        b"some" if data.n.is_multiple_of(5) => return Err(Failure::retry("this edition fails at times")),
        b"some" => {}
        b"trap" => panic!("this edition panics"),
        b"deny" => return Err(Failure::reject("this edition denies")),
        b"slow" => (0..SPINS).for_each(|n| {
            black_box(n);
        }),
        _ => return Err(Failure::reject("there is no such edition")),
    }
    state::set("n", &(state::get::<u64>("n")?.unwrap_or(0) + added))?;
    emit("Test.Thing.Done.v1", &json!({ "n": emitted })).map(drop)
}
