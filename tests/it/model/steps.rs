//! The steps that a case is made of, and how likely each is. They name things by small numbers that always mean
//! something, so that any list of steps is a case, and a shorter one, too.

use proptest::collection::vec;
use proptest::option::weighted as maybe;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any};
use proptest::prop_oneof;

/// From one on, so that a case that fails can be made as short as it gets.
pub(super) const STEPS_MAX: usize = 90;
pub(super) const CONSUMERS: usize = 3;
/// Two handlers that are there from the start, and one that may come later.
pub(super) const SUBSCRIPTIONS: usize = 3;
pub(super) const IDS: u8 = 4;
pub(super) const KEYS: [&str; 2] = ["k", "l"];
pub(super) const NAMES: [&str; 2] = ["m", "n"];

#[derive(Debug, Clone)]
pub(super) enum Step {
    Publish {
        to_output: bool,
        dedup_keys: Vec<Option<Mark>>,
    },
    Fetch {
        subscription: usize,
        by: usize,
        max: usize,
    },
    Settle {
        subscription: usize,
        by: usize,
        planned: Vec<PlannedEntry>,
        twice: bool,
    },
    /// A settlement of long ago arrives once more.
    Resend {
        nth: usize,
    },
    /// `known`: which of its deliveries the consumer still knows of, a bit each.
    Recover {
        subscription: usize,
        by: usize,
        known: u16,
        lease_is_over: bool,
        max: usize,
    },
    Beat {
        by: usize,
    },
    Leave {
        by: usize,
    },
    TakeSuspect {
        subscription: usize,
        by: usize,
    },
    Promote {
        subscription: usize,
        max: usize,
    },
    /// `nths` among all letters that were ever seen; those beyond never were.
    Replay {
        subscription: usize,
        nths: Vec<usize>,
    },
    Trim {
        output: bool,
        maxlen: u64,
    },
    /// `ensure_group`; the third subscription is there only after this.
    Join {
        subscription: usize,
        from_beginning: bool,
    },
}

/// An event's id and its payload hash, both out of a few, so that they meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub id: u8,
    pub other_hash: bool,
}

/// One entry of a settlement.
#[derive(Debug, Clone)]
pub(super) struct PlannedEntry {
    /// A delivery of the next consumer's is settled, not the consumer's own.
    pub stolen: bool,
    /// One that is lost, settled or taken over may be chosen, too.
    pub stale: bool,
    pub nth: usize,
    pub dedup_key: Option<Mark>,
    pub state: Option<(usize, Version)>,
    pub does: Does,
}

/// The version of the state that the handler is said to have read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Version {
    /// What it is now, and the writes of earlier entries of the settlement on top.
    Chained,
    Now,
    /// One too many.
    Wrong,
}

#[derive(Debug, Clone)]
pub(super) enum Does {
    /// `emits`: to the input stream (true) or the output stream. `writes`: name and value, or nothing to delete it.
    /// `timers`: due in an hour (true) or now.
    Commit {
        emits: Vec<bool>,
        writes: Vec<(usize, Option<u8>)>,
        timers: Vec<bool>,
    },
    Skip {
        duplicate: bool,
    },
    Retry {
        later: bool,
    },
    DeadLetter {
        counted: bool,
    },
    Quarantine,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..=STEPS_MAX)
}

fn step() -> BoxedStrategy<Step> {
    // Mostly one handler and one consumer: spread evenly, little would come far.
    let subscription = prop_oneof![4 => Just(0), 1 => 0..SUBSCRIPTIONS].boxed();
    let by = prop_oneof![2 => Just(0), 1 => 0..CONSUMERS].boxed();
    let at = (subscription.clone(), by.clone());
    let max = 1..8usize;
    let rarely = || proptest::bool::weighted(0.1);
    let known = prop_oneof![3 => Just(u16::MAX), 2 => any::<u16>()];
    prop_oneof![
        6 => (rarely(), vec(maybe(0.5, dedup_key()), 1..6)).prop_map(|(to_output, dedup_keys)| Step::Publish { to_output, dedup_keys }),
        8 => (at.clone(), max.clone()).prop_map(|((subscription, by), max)| Step::Fetch { subscription, by, max }),
        12 => (at.clone(), vec(planned_entry(), 1..7), proptest::bool::weighted(0.2))
            .prop_map(|((subscription, by), planned, twice)| Step::Settle { subscription, by, planned, twice }),
        1 => (0..20usize).prop_map(|nth| Step::Resend { nth }),
        3 => at.clone().prop_map(|(subscription, by)| Step::TakeSuspect { subscription, by }),
        4 => (at, known, proptest::bool::weighted(0.8), max.clone()).prop_map(
            |((subscription, by), known, lease_is_over, max)| Step::Recover { subscription, by, known, lease_is_over, max }),
        2 => by.clone().prop_map(|by| Step::Beat { by }),
        2 => by.prop_map(|by| Step::Leave { by }),
        4 => (subscription.clone(), max).prop_map(|(subscription, max)| Step::Promote { subscription, max }),
        3 => (subscription.clone(), vec(0..10usize, 1..4)).prop_map(|(subscription, nths)| Step::Replay { subscription, nths }),
        2 => (rarely(), prop_oneof![Just(0), Just(4)]).prop_map(|(output, maxlen)| Step::Trim { output, maxlen }),
        1 => (subscription, any::<bool>())
            .prop_map(|(subscription, from_beginning)| Step::Join { subscription, from_beginning }),
    ]
    .boxed()
}

fn dedup_key() -> impl Strategy<Value = Mark> {
    (0..IDS, proptest::bool::weighted(0.25)).prop_map(|(id, other_hash)| Mark { id, other_hash })
}

fn planned_entry() -> impl Strategy<Value = PlannedEntry> {
    let version = prop_oneof![6 => Just(Version::Chained), 1 => Just(Version::Now), 1 => Just(Version::Wrong)];
    let odd = proptest::bool::weighted;
    (odd(0.08), odd(0.15), 0..16usize, maybe(0.6, dedup_key()), maybe(0.5, (0..KEYS.len(), version)), does()).prop_map(
        |(stolen, stale, nth, dedup_key, state, does)| PlannedEntry { stolen, stale, nth, dedup_key, state, does },
    )
}

fn does() -> impl Strategy<Value = Does> {
    let odd = proptest::bool::weighted;
    let write = (0..NAMES.len(), maybe(0.7, any::<u8>()));
    prop_oneof![
        5 => (vec(odd(0.2), 0..3), vec(write, 0..3), vec(odd(0.2), 0..2))
            .prop_map(|(emits, writes, timers)| Does::Commit { emits, writes, timers }),
        1 => any::<bool>().prop_map(|duplicate| Does::Skip { duplicate }),
        3 => proptest::bool::weighted(0.2).prop_map(|later| Does::Retry { later }),
        3 => any::<bool>().prop_map(|counted| Does::DeadLetter { counted }),
        1 => Just(Does::Quarantine),
    ]
}
