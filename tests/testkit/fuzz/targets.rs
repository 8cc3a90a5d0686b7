//! What is fuzzed: every place where untrusted bytes come in, through the functions that the host itself uses.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_config::{check, read};
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::entry::EntryId;
use tidemill_core::model::name;
use tidemill_core::model::name::EventName;
use tidemill_core::policy::route::Pattern;
use tidemill_schema::Registry;
use tidemill_schema::admit::{AdmitOptions, admit};
use tidemill_schema::event::Event;
use tidemill_storage::wire;

use super::bounds::ADMISSION;
use super::{Target, bounds, components, effects, letters};

/// All targets by name, the quick ones first.
pub const NAMES: [&str; 9] =
    ["records", "letters", "manifest", "config", "envelope", "bounds", "effects", "effect-limits", "component"];

/// Prepares a target. `folder` is for files that it has to write.
pub fn target(name: &str, folder: &Path) -> Option<Target> {
    Some(match name {
        "component" => components::component(folder),
        "effect-limits" => effects::effect_limits(),
        "bounds" => bounds::bounds(folder),
        "config" => config(),
        "letters" => letters::letters(),
        "envelope" => envelope(),
        "effects" => effects::effects(),
        "manifest" => components::manifest(),
        "records" => records(),
        _ => return None,
    })
}

const ENVELOPE_WORDS: &[&str] = &[
    "event_id",
    "event_type",
    "version",
    "timestamp",
    "correlation_id",
    "causation_id",
    "key",
    "attributes",
    "data",
    "\"data\":",
    "null",
    "1e400",
    "-0",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "{",
    "}",
    "[[[[",
    ",",
    "\"",
    "\\",
    " \r\n",
    "2026-01-31T12:00:00Z",
    "0191d3a0-0000-7000-8000-000000000000",
    "Order.Created",
    "1",
    "18446744073709551616",
];

/// Every event in the examples of the schemas, the valid and the invalid ones, held against those schemas.
fn envelope() -> Target {
    let registry = Registry::load(&crate::root().join("schemas")).expect("good schemas");
    let run = move |input: &[u8]| {
        let bytes = Bytes::copy_from_slice(input);
        match admitted(&registry, &bytes) {
            Ok(event) => event.name().to_string(),
            Err(refusal) => refusal,
        }
    };
    let seeds = files(&crate::root().join("schemas/examples"), "json");
    Target { name: "envelope", seeds, words: ENVELOPE_WORDS, make: None, bounds: Some(ADMISSION), run: Box::new(run) }
}

/// Admission, and what holds of everything that is admitted.
pub(super) fn admitted(registry: &Registry, bytes: &Bytes) -> Result<Event, String> {
    let key = ["/data/user_id".to_owned(), "/data/order_id".to_owned(), "/data//~1".to_owned()];
    let terms = AdmitOptions { wants: &|_, _| true, key: &key, payload_bytes_max: 1 << 20 };
    let event = admit(registry, bytes, &terms).map_err(|refusal| format!("{refusal:?}"))?;
    assert_eq!(event.envelope(), bytes, "the bytes of an event are those that came in");
    assert!(bytes.windows(event.data().len().max(1)).any(|part| part == event.data()), "`data` is a part of them");
    serde_json::from_slice::<&serde_json::value::RawValue>(event.data()).expect("`data` is JSON by itself");
    assert!(!event.key().is_empty(), "every event has a key");
    assert!(registry.get(&event.name().kind, event.name().version).is_some(), "an event has a schema");
    let again = admit(registry, bytes, &terms).map_err(|refusal| format!("{refusal:?}"));
    assert_eq!(again.map(|again| again.hash()), Ok(event.hash()), "admission knows no chance");
    Ok(event)
}

const CONFIG_WORDS: &[&str] = &[
    "[backend]",
    "url",
    "redis://h:1",
    "sqlite::memory:",
    "[handlers.a]",
    "[handlers.a.grants]",
    "emit",
    "state",
    "events",
    "Order.*",
    "*",
    "retry",
    "max",
    "base",
    "deadline",
    "limits",
    "memory",
    "64MiB",
    "18446744073709551615",
    "1e308",
    "nan",
    "0s",
    "9999999999999y",
    "-1",
    "\"\"",
    "'''",
    "\"\"\"",
    "= { }",
    "[[handlers]]",
    "[streams.\"\"]",
    "partitions",
    "#env TIDEMILL__HOST__WORKERS=-1\n",
    "#env TIDEMILL__=\n",
    "#env TIDEMILL____A=[\n",
    "2026-01-01",
    "\\u0000",
    "\n",
    "[",
    "]",
];

/// A configuration, with the lines `#env NAME=VALUE` as its environment. What can be read is checked, too.
fn config() -> Target {
    let registry = Registry::load(&crate::root().join("schemas")).expect("good schemas");
    let run = move |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let variable = |line: &str| {
            let (name, value) = line.strip_prefix("#env ")?.split_once('=')?;
            name.starts_with(read::ENV_PREFIX).then(|| (name.to_owned(), value.to_owned()))
        };
        let variables: Vec<_> = text.lines().filter_map(variable).collect();
        match read::parse(&text, Path::new("fuzz.toml"), PathBuf::new(), &variables) {
            Err(error) => error.to_string(),
            Ok(config) => {
                let findings = check::check(&config, &registry);
                findings.iter().map(|finding| check::describe(finding, Path::new("fuzz.toml"), &text)).collect()
            }
        }
    };
    let root = crate::root();
    let seeds = ["tidemill.toml", "host/tidemill/src/cli/init/project/tidemill.toml"];
    let mut seeds: Vec<Vec<u8>> =
        seeds.iter().map(|file| std::fs::read(root.join(file)).expect("a configuration")).collect();
    seeds.push(b"#env TIDEMILL__BACKEND__URL=redis://h:1\n#env TIDEMILL__HANDLERS__A__RETRY__MAX=7\n[handlers.a]\nplugin = \"a.wasm\"\n".to_vec());
    Target { name: "config", seeds, words: CONFIG_WORDS, make: None, bounds: None, run: Box::new(run) }
}

const RECORD_WORDS: &[&str] = &[
    "[{",
    "}]",
    "attempt",
    "at_ms",
    "class",
    "reason",
    "plugin",
    "log",
    "failed",
    "crashed",
    "Order.Created.v1",
    ".v",
    "*",
    ".",
    "0-0",
    "18446744073709551615-18446744073709551615",
    "-",
    "undecodable",
    "Order.*",
    "v01",
    "\u{130}",
];

/// What backends hand back: records of attempts, ids, names and patterns, as text that somebody may have changed.
fn records() -> Target {
    let run = |input: &[u8]| {
        let history = wire::read_history(input);
        let written = wire::write_history(&history);
        assert_eq!(
            wire::write_history(&wire::read_history(written.as_bytes())),
            written,
            "what is read is what was written"
        );
        let text = String::from_utf8_lossy(input);
        let mut answer = format!("{} records", if history.is_empty() { "no" } else { "some" });
        if let Ok(id) = text.parse::<EntryId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
            answer += ", an id";
        }
        if let Ok(name) = EventName::parse(&text) {
            assert!(name::is_kind(&name.kind), "{name} holds a kind");
            assert_eq!(EventName::parse(&name.to_string()).map(|again| again.to_string()).ok(), Some(name.to_string()));
            answer += ", a name";
        }
        if let Ok(pattern) = text.parse::<Pattern>() {
            assert!(pattern.overlaps(&pattern), "a pattern overlaps itself");
            answer += ", a pattern";
        }
        if ReasonClass::parse(&text).is_some() {
            answer += ", a class";
        }
        answer
    };
    let seeds = [
        r#"[{"attempt":1,"at_ms":1770000000000,"class":"failed","reason":"the gateway is busy","plugin":"0123456789ab","log":["a line"]}]"#,
        "1700000000000-0",
        "Order.Created.v1",
        "Order.*",
        "exhausted",
    ];
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    Target { name: "records", seeds, words: RECORD_WORDS, make: None, bounds: Some(ADMISSION), run: Box::new(run) }
}

/// All files with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(std::fs::read(&path).expect("a file"));
        }
    }
    found
}
