//! Untrusted components: what is looked at before anything is compiled, and the whole way from a file to a call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_config::read;
use tidemill_runtime::{build, loading};
use tidemill_sandbox::component::inspect::{SECTION, inspect};
use tidemill_sandbox::component::manifest;
use tidemill_sandbox::worlds::handler::Instance;
use wasm_encoder::{ComponentSection, CustomSection};

use super::Target;
use super::effects::handle;
use super::targets::admitted;

const COMPONENT_WORDS: &[&str] = &[
    "\0asm\x01\0\0\0",
    "\0asm\x0d\0\x01\0",
    "tidemill:plugin/emit@0.1.1",
    "tidemill:plugin/handler@0.1.1",
    "handle",
    "wasi:",
    "tidemill:manifest",
    "name",
    "producers",
    "permissions",
    "emit",
    "state",
    "http",
    "\\u0000",
    "\u{1b}[2J",
    "cabi_realloc",
    "memory",
    "@9.9.9",
    "@0.1",
    "\0",
    "\x7f",
    "\0\x04name",
];

/// What is looked at before anything is compiled: a component, or a manifest that is put into an empty one.
pub(super) fn manifest() -> Target {
    let read = |wasm: &[u8]| manifest::of(wasm, &inspect(wasm)?);
    let run = move |input: &[u8]| {
        let mut wasm = EMPTY_COMPONENT.to_vec();
        if input.starts_with(b"\0asm") {
            wasm = input.to_vec();
        } else {
            CustomSection { name: SECTION.into(), data: input.into() }.append_to_component(&mut wasm);
        }
        match read(&wasm) {
            Err(error) => error,
            Ok(None) => "a component without a manifest".to_owned(),
            Ok(Some(found)) => {
                // What this version does not know is left out, the rest is what it was.
                if let Ok(stamped) = manifest::stamp(&wasm, &found.manifest) {
                    let again = read(&stamped).map(|again| again.map(|again| again.manifest));
                    assert_eq!(again, Ok(Some(found.manifest)), "what is stamped is what is read");
                }
                format!("a manifest, {} unknown", if found.unknown.is_empty() { "nothing" } else { "something" })
            }
        }
    };
    let mut seeds: Vec<Vec<u8>> =
        ["cache-service", "payment-service"].map(|name| std::fs::read(crate::guest(name)).expect("a guest")).to_vec();
    seeds.push(MANIFEST.as_bytes().to_vec());
    Target { name: "manifest", seeds, words: COMPONENT_WORDS, make: None, bounds: None, run: Box::new(run) }
}

const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const MANIFEST: &str = r#"{"name":"payment-service","version":"0.1.0","sdk":"rust 0.1.0","wit":"0.1.1","permissions":{"emit":["Payment.Order.*"],"state":true,"timer":false,"http":["GET https://a.example/*"],"secrets":["token"],"wasi":[]}}"#;

/// A component through everything that stands between a file and a plugin. One that is still loaded has to run, too.
pub(super) fn component(folder: &Path) -> Target {
    let path = folder.join("fuzzed.wasm");
    let text = crate::world::config("sqlite::memory:", &path, "fuzz", "limits = { memory = \"4MiB\" }", "");
    let mut config = read::parse(&text, "fuzz.toml".as_ref(), crate::root(), &[]).expect("a good configuration");
    // What is compiled here is of no use to anybody.
    config.host.cache = Some(folder.join("cache"));
    let checked = build::check(&config).expect("a good configuration");
    let loader = loading::Loader::new(&config).expect("an engine");
    let body = Bytes::from(crate::world::event(uuid::Uuid::nil(), serde_json::json!({ "do": "ok" })).to_string());
    let event = Arc::new(admitted(&checked.schemas, &body).expect("a good event"));
    let run = move |input: &[u8]| {
        std::fs::write(&path, input).expect("a file can be written");
        let plugin = match loader.load(&config, &checked, "mischief") {
            Ok(plugin) => plugin,
            Err(error) => return error.to_string(),
        };
        match Instance::new(&plugin) {
            Ok(mut live) => format!("{:?}", handle(&mut live, &event, Duration::from_millis(50))),
            Err(error) => format!("{error:?}"),
        }
    };
    let seeds =
        ["cache-service", "bench-check", "mischief"].map(|name| std::fs::read(crate::guest(name)).expect("a guest"));
    Target {
        name: "component",
        seeds: seeds.to_vec(),
        words: COMPONENT_WORDS,
        make: None,
        bounds: None,
        run: Box::new(run),
    }
}
