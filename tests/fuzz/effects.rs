//! What a plugin hands the host: scripts for the guest `puppet`, which asks for whatever its event says. Whatever it
//! asked for, what comes out of an attempt keeps to the rules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tidemill::capability::ids::Ids;
use tidemill::config::{limits, read};
use tidemill::model::delivery::Effects;
use tidemill::model::event::Event;
use tidemill::model::outcome::Outcome;
use tidemill::plugin::Plugin;
use tidemill::plugin::invoke::{Call, Live};
use tidemill::schema::Registry;
use tidemill::service::build;
use uuid::Uuid;

use super::Target;
use super::targets::admitted;

/// The event that goes beyond the bound is not counted before its envelope is there.
const EMIT_BYTES_MAX: usize = (limits::EMIT_BYTES.0 + limits::PAYLOAD_BYTES_MAX.0) as usize;

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
    live: Option<Live>,
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
        let mut live = self.live.take().unwrap_or_else(|| Live::new(&self.plugin).expect("an instance"));
        let (stream, now) = ("asked-fuzz".into(), "2026-01-31T12:00:00.000Z".into());
        let (values, deadline) = (Arc::default(), Duration::from_secs(1));
        let outcome = live
            .call(&Call { event, stream: &stream, now: &now, ids: Ids::default(), attempt: 1, values, deadline })
            .outcome;
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

pub fn effects() -> Target {
    let mut puppet = Puppet::new("instance_events_max = 16");
    let run = move |input: &[u8]| {
        let Some(event) = puppet.event(input) else { return "not JSON".to_owned() };
        let outcome = puppet.run(&event);
        if let Outcome::Done(effects) = &outcome {
            check(&puppet.registry, &event, effects);
        }
        let mut said = format!("{outcome:?}");
        said.truncate(said.floor_char_boundary(300));
        said
    };
    let seeds = SEEDS.iter().map(|script| script.as_bytes().to_vec()).collect();
    Target { name: "effects", seeds, words: WORDS, run: Box::new(run) }
}

/// What holds of all that an attempt may commit.
fn check(registry: &Registry, source: &Event, effects: &Effects) {
    let emitted: usize = effects.emits.iter().map(|emit| emit.body.len()).sum();
    assert!(effects.emits.len() <= limits::EMITS, "more events than an attempt may emit");
    assert!(emitted <= EMIT_BYTES_MAX, "more bytes than an attempt may emit");
    for emit in &effects.emits {
        assert_eq!(&*emit.stream, "done-fuzz", "an event goes to the stream that takes it");
        let event = admitted(registry, &emit.body).expect("what is emitted can be admitted");
        assert_eq!((&*event.name().kind, event.name().version), ("Test.Thing.Done", 1), "only what is granted");
        assert_eq!(event.correlation_id(), source.correlation_id(), "one correlation");
        assert_eq!(event.causation_id(), Some(source.id()), "one cause");
    }
    let written: usize = effects.writes.values().flatten().map(Bytes::len).sum();
    assert!(written <= limits::STATE.as_u64() as usize, "more state than an attempt may write");
    assert!(
        effects.writes.iter().all(|(name, value)| value.is_none() || (1..=256).contains(&name.len())),
        "a name's length"
    );
}
