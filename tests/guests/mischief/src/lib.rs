//! A hostile guest: it misbehaves as its event's data says, so that the tests can see the host's answer.
//!
//! | `do` | does | reads |
//! |---|---|---|
//! | `ok` | nothing | |
//! | `loop` | never ends | |
//! | `memory` | takes, touches and keeps that many blocks of 1 MiB; a refused one is a trap | `count` |
//! | `stack` | calls itself, that deep | `count` |
//! | `trap` | panics, which is `unreachable` | |
//! | `emit-many` | emits `Test.Thing.Done.v1` {"n": 0, 1, ..} | `count`, `stubborn` |
//! | `emit-forbidden` | emits `Forbidden.Thing.Done.v1`, which no grant names | `stubborn` |
//! | `emit-invalid` | emits `Test.Thing.Done.v1` with data against its schema | `stubborn` |
//! | `emit-then-trap` | emits, then panics | |
//! | `state-then-trap` | sets state `n`, then panics | |
//! | `state-count` | adds 1 to state `n`, a JSON integer | |
//! | `state-big` | sets state `big`, raw, to that many bytes | `bytes`, `stubborn` |
//! | `state-name` | sets a value whose name has that many bytes | `bytes`, `stubborn` |
//! | `retry` | fails, may be retried | |
//! | `retry-after` | the same, not before that time | `after_ms` |
//! | `reject` | fails for good | |
//! | `log-flood` | writes that many log lines | `count` |
//! | `log-then-trap` | writes that many log lines of that many bytes, then panics | `count`, `bytes` |
//! | `state-delete-many` | deletes that many values, each with a name of its own of 200 bytes | `count` |
//! | `return-big` | fails for good, with a reason of that many bytes | `bytes` |
//! | `remember` | counts in its own memory, emits {"n": how often this instance was asked} | |
//! | `timer` | sets that many timers (1) called `again`, with the data `then` | `count`, `after_ms`, `then`, `stubborn` |
//! | `timer-name` | sets a timer whose name has that many bytes | `bytes`, `stubborn` |
//! | `timer-raw` | sets a timer whose data is this text, JSON or not | `raw`, `stubborn` |
//! | `timer-bomb` | sets as many timers as it may, and each of them does the same | |
//! | `timer-then-trap` | sets a timer, then panics | |
//! | `tell-timer` | emits {"n": 1} with the attribute `timer`: the name of the timer whose event this is | |
//! | `emit-again` | emits `Test.Thing.Asked.v1` with its own data: a handler that wants it goes round in a circle | `count`, `stubborn` |
//! | `fail-until` | retries, and at that attempt emits {"n": the attempt} | `attempt` |
//!
//! Without `count` there is no end.
//! `"stubborn": true`: goes on as if nothing had happened when the host refuses, and returns ok.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tidemill_sdk::prelude::*;
use tidemill_sdk::serde_json::Value;

handler!(handle);

#[derive(Deserialize)]
struct Data {
    r#do: String,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    after_ms: u64,
    #[serde(default)]
    bytes: usize,
    count: Option<u64>,
    #[serde(default)]
    then: Value,
    #[serde(default)]
    raw: String,
    #[serde(default)]
    stubborn: bool,
}

fn handle(event: &Event) -> Result<(), Failure> {
    let data: Data = event.json()?;
    let count = data.count.unwrap_or(u64::MAX);
    match data.r#do.as_str() {
        "ok" => {}
        "loop" => endless(),
        "memory" => memory(count),
        "stack" => stack(count),
        "trap" => panic!("as told"),
        "emit-many" => (0..count).try_for_each(|n| data.unless_stubborn(emit_n(n)))?,
        "emit-forbidden" => data.unless_stubborn(emit("Forbidden.Thing.Done.v1", &json!({ "n": 1 })))?,
        "emit-invalid" => data.unless_stubborn(emit("Test.Thing.Done.v1", &json!({ "n": "one" })))?,
        "emit-then-trap" => emit_n(1).map(|_| panic!("as told, after an emit"))?,
        "state-then-trap" => state::set("n", &1000).map(|()| panic!("as told, after a write"))?,
        "state-count" => state::set("n", &(state::get::<u64>("n")?.unwrap_or(0) + 1))?,
        "state-big" => data.unless_stubborn(state::set_raw("big", &vec![b'x'; data.bytes]))?,
        "state-name" => data.unless_stubborn(state::set_raw(&"n".repeat(data.bytes), b"x"))?,
        "retry" => return Err(Failure::retry("as told")),
        "retry-after" => return Err(Failure::retry("as told").after(Duration::from_millis(data.after_ms))),
        "reject" => return Err(Failure::reject("as told")),
        "timer" => (0..data.count.unwrap_or(1)).try_for_each(|_| {
            let wait = Duration::from_millis(data.after_ms);
            data.unless_stubborn(timer::after(wait, "again", &data.then))
        })?,
        "timer-name" => {
            let hour = Duration::from_secs(3600);
            data.unless_stubborn(timer::after(hour, &"n".repeat(data.bytes), &data.then))?
        }
        "timer-raw" => data.unless_stubborn(timer::after_raw(Duration::ZERO, "raw", data.raw.as_bytes()))?,
        "timer-bomb" => {
            (0..16).try_for_each(|_| timer::after(Duration::ZERO, "bomb", &json!({ "do": "timer-bomb" })))?
        }
        "timer-then-trap" => {
            timer::after(Duration::ZERO, "no", &json!({})).map(|()| panic!("as told, after a timer"))?
        }
        "tell-timer" => {
            let name = timer::name(event).unwrap_or_default();
            Emit::new("Test.Thing.Done.v1").attribute("timer", name).send(&json!({ "n": 1 })).map(drop)?
        }
        "log-flood" => (0..count).for_each(|n| log::info(format!("line {n}"))),
        "log-then-trap" => {
            (0..count).for_each(|n| log::info(format!("line {n} {}", "x".repeat(data.bytes))));
            panic!("as told, after {count} lines");
        }
        "state-delete-many" => (0..count).for_each(|n| state::delete(&format!("{n:0200}"))),
        "return-big" => return Err(Failure::reject("x".repeat(data.bytes))),
        "remember" => emit_n(remember()).map(drop)?,
        "emit-again" => {
            let mine: Value = event.json()?;
            let again = |_| data.unless_stubborn(emit("Test.Thing.Asked.v1", &mine));
            (0..data.count.unwrap_or(1)).try_for_each(again)?;
        }
        "fail-until" if event.attempt < data.attempt => return Err(Failure::retry("as told, too early")),
        "fail-until" => emit_n(event.attempt.into()).map(drop)?,
        unknown => return Err(Failure::reject(format!("no mischief is called {unknown:?}"))),
    }
    Ok(())
}

impl Data {
    fn unless_stubborn<T>(&self, answer: Result<T, Failure>) -> Result<(), Failure> {
        if self.stubborn { Ok(()) } else { answer.map(drop) }
    }
}

fn emit_n(n: u64) -> Result<String, Failure> {
    emit("Test.Thing.Done.v1", &json!({ "n": n }))
}

fn endless() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn memory(blocks: u64) {
    let mut held = Vec::new();
    for n in 0..blocks {
        held.push(black_box(vec![n as u8 | 1; 1 << 20]));
    }
}

fn stack(depth: u64) {
    black_box(dive(0, depth));
}

/// The end is not known when this is compiled, and the rotation needs the inner result: so this stays a recursion. It
/// keeps nothing in memory, so what runs out is the host's stack for guests, not the guest's own.
#[inline(never)]
fn dive(depth: u64, end: u64) -> u64 {
    if depth == end {
        return depth;
    }
    dive(depth + 1, end).rotate_left(7) ^ depth
}

/// What no handler should do: a static outlives the event, as long as its instance does.
fn remember() -> u64 {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    ASKED.fetch_add(1, Relaxed) + 1
}
