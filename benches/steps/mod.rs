//! The steps of the pipeline that need nothing but a processor. Criterion takes their time (`micro`), valgrind counts
//! their instructions (`instructions`).
//!
//! Each has a sketch, which was written before it was measured. The figures in it come from pieces that were measured by
//! themselves, on a quiet machine, with all optimisations; the profile `dev` does not have them.

mod admit;
mod guest;
mod wire;

use tidemill_core::model::delivery::{Disposition, Effects};
use tidemill_core::model::outcome::{Outcome, Verdict};
use tidemill_core::policy::disposition::{DecisionInput, decide};
use tidemill_core::policy::retry::RetryPolicy;

pub use wire::{BATCH, effects};

use crate::Case;

pub struct Step {
    pub name: &'static str,
    /// What it should cost for one event, and why.
    pub sketch: &'static str,
    /// Events in one run of it.
    pub events: usize,
    pub set_up: fn() -> Ready,
}

/// Makes the next run ready. What a run takes in is made here, and not measured.
pub type Ready = Box<dyn FnMut() -> Run>;

/// One run of a step. What it makes is dropped within it, because that has to be paid for, too.
pub type Run = Box<dyn FnOnce()>;

/// In the order of the pipeline.
pub const STEPS: &[Step] = &[
    Step {
        name: "parse",
        sketch: "0.5 µs: the `redis` crate looks at 530 bytes, and makes a vector for each of the five values of an entry. \
                 By hand it would be 0.2: reading and acking takes 0.35 µs in all then, and 1.4 with the crate.",
        events: BATCH,
        set_up: wire::parse,
    },
    Step {
        name: "decode",
        sketch: "0.1 µs: an id is read, and everything else changes hands without being copied.",
        events: BATCH,
        set_up: wire::decode,
    },
    Step {
        name: "admit-user",
        sketch: "2.9 µs: 0.4 to find the head and where `data` lies, 1.6 for the tree, 0.55 for the schema, 0.27 for SHA-256.",
        events: 1,
        set_up: admit::user,
    },
    Step {
        name: "admit-order",
        sketch: "6.2 µs for 880 bytes: 0.8 for the head, 4.0 for the tree, 0.9 for the schema, 0.5 for SHA-256.",
        events: 1,
        set_up: admit::order,
    },
    Step {
        name: "admit-items-32k",
        sketch: "230 µs: 37 times the order by its bytes, and nothing in it that would not grow with them.",
        events: 1,
        set_up: admit::items_32k,
    },
    Step {
        name: "admit-text-32k",
        sketch: "45 µs: one long text is only scanned and copied, twice by 1 to 2 bytes a nanosecond; SHA-256 is half of it.",
        events: 1,
        set_up: admit::text_32k,
    },
    Step {
        name: "admit-refusal",
        sketch: "3.3 µs: as `admit-user` without the hash, and 0.7 for the words that say what is wrong.",
        events: 1,
        set_up: admit::refusal,
    },
    Step {
        name: "invoke-stateless-live",
        sketch: "3 µs: 2.4 for a Rust guest that only takes the event, and a little JSON.",
        events: 1,
        set_up: || guest::live(Case::Stateless),
    },
    Step {
        name: "invoke-emit-live",
        sketch: "9 µs: 6 for a Rust guest that reads and writes JSON, 3 to admit what it emits as any other event.",
        events: 1,
        set_up: || guest::live(Case::Emit),
    },
    Step {
        name: "invoke-keyed-live",
        sketch: "7 µs: 6 for a Rust guest that reads and writes JSON, and two calls of the host.",
        events: 1,
        set_up: || guest::live(Case::Keyed),
    },
    Step {
        name: "invoke-stateless-new",
        sketch: "18 µs: pooled, with pages that are wiped in place; nearly all of it is the kernel's and the wiping.",
        events: 1,
        set_up: || guest::new(Case::Stateless),
    },
    Step {
        name: "invoke-stateless-fresh",
        sketch: "21 µs: a new instance and one call of it.",
        events: 1,
        set_up: || guest::fresh(Case::Stateless),
    },
    Step {
        name: "invoke-emit-fresh",
        sketch: "27 µs: a new instance and one call of it.",
        events: 1,
        set_up: || guest::fresh(Case::Emit),
    },
    Step {
        name: "invoke-keyed-fresh",
        sketch: "25 µs: a new instance and one call of it.",
        events: 1,
        set_up: || guest::fresh(Case::Keyed),
    },
    Step {
        name: "decide-done",
        sketch: "0.02 µs: one branch, and 100 bytes change hands twice.",
        events: BATCH,
        set_up: || decided(|| Ok(Outcome::Done(Effects::default()))),
    },
    Step {
        name: "decide-failed",
        sketch: "0.15 µs: two short texts for the record, a power for the wait, and no more.",
        events: BATCH,
        set_up: || decided(|| Ok(Outcome::Failed { reason: "busy".to_owned(), after: None, log: Vec::new() })),
    },
    Step {
        name: "encode-stateless",
        sketch: "0.1 µs: three arguments of 50 bytes in all go into a buffer that has room for them.",
        events: BATCH,
        set_up: || wire::encode(Case::Stateless),
    },
    Step {
        name: "encode-emit",
        sketch: "0.25 µs: five more arguments, one of them an event of 400 bytes that is copied once.",
        events: BATCH,
        set_up: || wire::encode(Case::Emit),
    },
    Step {
        name: "encode-keyed",
        sketch: "0.4 µs: the name of a key is put together and looked up twice, and seven more arguments.",
        events: BATCH,
        set_up: || wire::encode(Case::Keyed),
    },
];

const RETRY: RetryPolicy = RetryPolicy {
    max: 5,
    base: std::time::Duration::from_secs(1),
    factor: 2.0,
    cap: std::time::Duration::from_secs(300),
};

/// A batch is decided on.
fn decided(verdict: fn() -> Verdict) -> Ready {
    Box::new(move || {
        let verdicts: Vec<Verdict> = (0..BATCH).map(|_| verdict()).collect();
        Box::new(move || {
            let facts = DecisionInput {
                attempts: 1,
                retry: &RETRY,
                now_ms: 1_769_860_800_000,
                plugin: "0123456789ab",
                jitter: 0.5,
                canary: false,
            };
            let decided = |verdict| decide(std::hint::black_box(verdict), &facts);
            std::hint::black_box(verdicts.into_iter().map(decided).collect::<Vec<Disposition>>());
        })
    })
}
