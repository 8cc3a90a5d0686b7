//! What a plugin hands the host: scripts for the guest `puppet`, which asks for whatever its event says. Whatever it
//! asked for, what comes out of an attempt keeps to the rules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidemill_config::read;
use tidemill_core::limits;
use tidemill_core::model::delivery::Effects;
use tidemill_core::model::outcome::Outcome;
use tidemill_runtime::build;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::worlds::handler::{Call, Instance};
use tidemill_schema::Registry;
use tidemill_schema::event::Event;
use uuid::Uuid;

use super::Target;
use super::cost::Bounds;
use super::targets::admitted;
use crate::chance::{self, one_of, size};

/// The event that goes beyond the bound is not counted before its envelope is there.
const EMIT_BYTES_MAX: usize = (limits::EMIT_BYTES.0 + limits::PAYLOAD_BYTES_MAX.0) as usize;

/// What an attempt may cost: its guest has 64 MiB and a second, and what it asks for is bounded by `limits`, not by what its
/// event has.
const ATTEMPT: Bounds = Bounds {
    memory_per_byte: 20,
    memory_anyway_bytes: (64 << 20) + limits::MEMORY.0 + 20 * limits::EMIT_BYTES.0,
    time_per_byte: Duration::from_micros(2),
    time_anyway: Duration::from_secs(4),
};

const WORDS: &[&str] = &[
    "emit",
    "set",
    "get",
    "delete",
    "log",
    "ask",
    "retry",
    "reject",
    "panic",
    "kind",
    "version",
    "key",
    "attributes",
    "data",
    "Test.Thing.Done",
    "Forbidden.Thing.Done",
    "Test.Thing.Asked",
    r#"{"n":1}"#,
    r#"{"n":"one"}"#,
    r#"1},"data":{"n":2"#,
    "\u{ff}",
    "\u{0}",
    "",
    "n",
    "tenant",
];

/// Scripts that do a little of everything, and some that ask for much.
const SEEDS: &[&str] = &[
    r#"[{"emit":{"kind":"Test.Thing.Done","version":1,"key":"k","attributes":[["tenant","a"]],"data":"{\"n\":1}"}},{"set":["n","1"]},{"get":"n"},{"delete":"n"},{"log":[2,"here","a line"]}]"#,
    r#"[{"emit":{"kind":"Test.Thing.Done","version":1,"key":null,"data":"{\"n\":1,\"data\":{}}"}},{"retry":["later",5]}]"#,
    r#"[{"set":[["n",300],"x"]},{"set":["n",["x",300000]]},{"log":[4,["c",3000],["é",3000]]}]"#,
    r#"[{"emit":{"kind":"Test.Thing.Done","version":1,"key":["k",1000],"attributes":[["a",["v",100000]]],"data":["[",1000]}},{"reject":["no",5000]}]"#,
    r#"[{"ask":"tenant"},{"panic":"as told"}]"#,
];

/// The guest with its instance: takes scripts.
pub struct Puppet {
    plugin: Arc<Plugin>,
    registry: Arc<Registry>,
    live: Option<Instance>,
    instance_events_max: u32,
}

impl Puppet {
    /// `extra` goes into the handler's table.
    pub fn new(extra: &str) -> Self {
        let text = crate::world::config("sqlite::memory:", &crate::guest("puppet"), "fuzz", extra, "");
        let config = read::parse(&text, "fuzz.toml".as_ref(), crate::root(), &[]).expect("a good configuration");
        let checked = build::check(&config).expect("a good configuration");
        let plugin = build::plugins(&config, &checked).expect("a good plugin").all.remove(0);
        let instance_events_max = config.handlers["mischief"].instance_events_max;
        Self { plugin, registry: checked.schemas, live: None, instance_events_max }
    }

    pub fn run(&mut self, event: &Arc<Event>) -> Outcome {
        let mut live = self.live.take().unwrap_or_else(|| Instance::new(&self.plugin).expect("an instance"));
        let outcome = handle(&mut live, event, Duration::from_secs(1));
        if !matches!(outcome, Outcome::Crashed { .. }) && live.calls() < self.instance_events_max {
            self.live = Some(live);
        }
        outcome
    }

    /// An event that carries this script; none if it is not JSON.
    pub fn event(&self, script: &[u8]) -> Option<Arc<Event>> {
        let steps: &RawValue = serde_json::from_slice(script).ok()?;
        let id = Uuid::nil();
        let body = format!(
            r#"{{"event_id":"{id}","event_type":"Test.Thing.Asked","version":"1","timestamp":"2026-01-31T12:00:00Z","correlation_id":"{id}","data":{{"do":"script","steps":{steps}}}}}"#
        );
        admitted(&self.registry, &Bytes::from(body)).ok().map(Arc::new)
    }
}

/// Scripts that are changed at random.
pub(super) fn effects() -> Target {
    let seeds = SEEDS.iter().map(|script| script.as_bytes().to_vec()).collect();
    Target { name: "effects", seeds, words: WORDS, make: None, bounds: Some(ATTEMPT), run: runs() }
}

/// Scripts that ask for as much as a limit allows, and for more.
pub(super) fn effect_limits() -> Target {
    Target {
        name: "effect-limits",
        seeds: Vec::new(),
        words: &[],
        make: Some(Box::new(script)),
        bounds: Some(ATTEMPT),
        run: runs(),
    }
}

fn runs() -> super::Run {
    let mut puppet = Puppet::new("instance_events_max = 16");
    Box::new(move |input: &[u8]| {
        let Some(event) = puppet.event(input) else { return "not JSON".to_owned() };
        let outcome = puppet.run(&event);
        if let Outcome::Done(effects) = &outcome {
            check(&puppet.registry, &event, effects);
        }
        let mut said = format!("{outcome:?}");
        said.truncate(said.floor_char_boundary(300));
        said
    })
}

/// A script of few steps that are large, or of many that are small.
fn script(rng: &mut StdRng) -> Vec<u8> {
    let many = rng.random_range(0..20) == 0;
    let steps = if many { size(rng, 400) } else { size(rng, 6) }.max(1);
    let most = if many { 2 << 10 } else { 2 << 20 };
    let steps: Vec<Value> = (0..steps).map(|_| step(rng, most)).collect();
    Value::from(steps).to_string().into_bytes()
}

/// A text of the guest's own making: `[unit, times]`.
fn long(rng: &mut StdRng, most: usize) -> Value {
    let unit = one_of(rng, &["c", "\u{ff}", "\u{0}", "\u{1b}", "[", "{\"a\":", "0,", "9"]);
    json!([unit, size(rng, most) / unit.len()])
}

fn step(rng: &mut StdRng, most: usize) -> Value {
    // Half of the data is JSON, with one long number or text in it.
    let data = |rng: &mut StdRng| {
        let bytes = size(rng, most.min(16 << 10));
        match rng.random_range(0..4) {
            0 => long(rng, most),
            1 => json!("{\"n\":1}"),
            2 => json!(format!("{{\"n\":{}}}", chance::number(rng, bytes))),
            _ => json!(format!("{{\"n\":1,\"more\":{}}}", chance::value(rng, bytes))),
        }
    };
    match rng.random_range(0..8) {
        0..3 => {
            let key = if rng.random() { Value::Null } else { long(rng, most) };
            let attributes = if rng.random() { json!([]) } else { json!([[long(rng, 300), long(rng, most)]]) };
            json!({ "emit": {
                "kind": "Test.Thing.Done", "version": 1, "key": key, "attributes": attributes, "data": data(rng)
            } })
        }
        3 | 4 => json!({ "set": [long(rng, 300), long(rng, most)] }),
        5 => json!({ "log": [rng.random_range(0..6), long(rng, 300), long(rng, most)] }),
        6 => json!({ "get": long(rng, 300) }),
        _ => match rng.random_range(0..8) {
            0 => json!({ "retry": [long(rng, most), 5] }),
            1 => json!({ "reject": long(rng, most) }),
            2 => json!({ "panic": long(rng, most) }),
            3 => json!({ "stack": size(rng, 4_000) }),
            _ => json!({ "ask": long(rng, 300) }),
        },
    }
}

/// What holds of all that an attempt may commit.
fn check(registry: &Registry, subscription: &Event, effects: &Effects) {
    let emitted: usize = effects.emits.iter().map(|emit| emit.body.len()).sum();
    assert!(effects.emits.len() <= limits::EMITS, "more events than an attempt may emit");
    assert!(emitted <= EMIT_BYTES_MAX, "more bytes than an attempt may emit");
    for emit in &effects.emits {
        assert_eq!(&*emit.stream, "done-fuzz", "an event goes to the stream that takes it");
        let event = admitted(registry, &emit.body).expect("what is emitted can be admitted");
        assert_eq!((&*event.name().kind, event.name().version), ("Test.Thing.Done", 1), "only what is granted");
        assert_eq!(event.correlation_id(), subscription.correlation_id(), "one correlation");
        assert_eq!(event.causation_id(), Some(subscription.id()), "one cause");
    }
    let written: usize = effects.writes.values().flatten().map(Bytes::len).sum();
    assert!(written <= limits::STATE.as_u64() as usize, "more state than an attempt may write");
    assert!(
        effects.writes.iter().all(|(name, value)| value.is_none() || (1..=256).contains(&name.len())),
        "a name's length"
    );
}

/// Calls the plugin with an event: its first attempt, on a stream of no other.
pub(super) fn handle(live: &mut Instance, event: &Arc<Event>, deadline: Duration) -> Outcome {
    let (stream, now) = ("asked-fuzz".into(), "2026-01-31T12:00:00.000Z".into());
    let (ids, values) = (Ids::default(), Arc::default());
    let call = Call { event, stream: &stream, now: &now, ids, attempt: 1, values, state_version: 0, deadline };
    live.call(&call).outcome
}
