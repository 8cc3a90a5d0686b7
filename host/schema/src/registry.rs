//! The event schemas: one file for each full name, `schemas/Order.Created.v1.json`, compiled once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tidemill_json::Json;
use tidemill_json::schema::{Mismatch, Mismatches};

use tidemill_core::model::name::{EventName, is_reserved};
use tidemill_core::model::outcome::NotRun;

/// The largest schema file, in bytes: a schema is code that runs for every event.
pub(crate) const SCHEMA_BYTES_MAX: u64 = 256 * 1024;
/// How deep a schema may nest.
pub(crate) const SCHEMA_DEPTH_MAX: usize = 64;
/// How many objects a schema may hold in all.
pub(crate) const SUBSCHEMAS_MAX: usize = 2_000;
/// How many findings an error lists before it stops.
const FINDINGS_MAX: usize = 3;
/// The longest kind that is searched for among those that have schemas.
const KIND_BYTES_MAX: usize = 128;
/// How much of each part of a finding is said.
const FINDING_BYTES_MAX: usize = 300;

/// All schemas of a folder. Immutable: a changed folder makes a new registry.
#[derive(Debug, Default)]
pub struct Registry {
    schemas: BTreeMap<Arc<str>, BTreeMap<u32, RegisteredSchema>>,
}

#[derive(Debug)]
pub struct RegisteredSchema {
    pub name: EventName,
    compiled: tidemill_json::Schema,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the schemas in {}: {cause}\n  hint: [schemas] path names the folder", path.display())]
    Folder { path: PathBuf, cause: std::io::Error },
    #[error("schema {}: {what}", path.display())]
    Schema { path: PathBuf, what: String },
}

impl Registry {
    /// Loads every `*.json` in the folder; subfolders hold examples and are left alone. All files are looked at, so
    /// that one call names all that is wrong.
    pub fn load(folder: &Path) -> Result<Self, Vec<Error>> {
        let unreadable = |cause| vec![Error::Folder { path: folder.to_owned(), cause }];
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut registry = Self::default();
        let mut errors = Vec::new();
        for path in paths {
            match load_schema(&path) {
                Ok(schema) => registry.insert(schema),
                Err(what) => errors.push(Error::Schema { path, what }),
            }
        }
        if errors.is_empty() { Ok(registry) } else { Err(errors) }
    }

    /// Compiles one schema from its text.
    pub fn add(&mut self, full_name: &str, text: &str) -> Result<(), String> {
        let name = EventName::parse(full_name).map_err(|error| error.to_string())?;
        self.insert(compile(name, text)?);
        Ok(())
    }

    fn insert(&mut self, schema: RegisteredSchema) {
        self.schemas.entry(schema.name.kind.clone()).or_default().insert(schema.name.version, schema);
    }

    pub fn get(&self, kind: &str, version: u32) -> Option<&RegisteredSchema> {
        self.schemas.get(kind)?.get(&version)
    }

    pub fn names(&self) -> impl Iterator<Item = &EventName> {
        self.schemas.values().flat_map(|versions| versions.values().map(|schema| &schema.name))
    }

    /// The schema for an event, or the words that say why there is none.
    pub fn find(&self, kind: &str, version: u32) -> Result<&RegisteredSchema, NotRun> {
        self.get(kind, version).ok_or_else(|| NotRun::Unknown(self.explain_unknown(kind, version).into()))
    }

    fn explain_unknown(&self, kind: &str, version: u32) -> String {
        // A longer one was never meant as one of ours: no search, and not all of it is said.
        if kind.len() > KIND_BYTES_MAX {
            let begins = &kind[..kind.floor_char_boundary(KIND_BYTES_MAX)];
            return format!("event_type \"{begins}...\" has {} bytes, and no schema", kind.len());
        }
        if let Some(versions) = self.schemas.get(kind) {
            let known: Vec<String> = versions.keys().map(|version| format!("\"{version}\"")).collect();
            return format!("{kind} has no version \"{version}\"; there is {}", known.join(", "));
        }
        if let Some((stem, major)) = kind.rsplit_once(".v")
            && self.schemas.contains_key(stem)
        {
            return format!("event_type \"{kind}\": write \"{stem}\" and version \"{major}\"");
        }
        let nearest =
            self.schemas.keys().max_by(|a, b| strsim::jaro_winkler(a, kind).total_cmp(&strsim::jaro_winkler(b, kind)));
        match nearest {
            Some(name) if strsim::jaro_winkler(name, kind) > 0.8 => {
                format!("event_type \"{kind}\" has no schema; did you mean \"{name}\"?")
            }
            _ => format!("event_type \"{kind}\" has no schema (schemas/{kind}.v{version}.json)"),
        }
    }
}

impl RegisteredSchema {
    /// Checks a whole envelope of this size. The error names, for each finding, where in the event, what, and where in the
    /// schema.
    pub fn check(&self, envelope: &Json<'_>, event_bytes: usize) -> Result<(), NotRun> {
        self.compiled.check(envelope, event_bytes, FINDINGS_MAX).map_err(|Mismatches { first, more }| {
            let mut findings: Vec<String> = first.iter().map(|finding| self.describe(finding)).collect();
            findings.extend(more.then(|| "and more".to_owned()));
            NotRun::Invalid(findings.join("; ").into())
        })
    }

    fn describe(&self, Mismatch { at, text, said, rule }: &Mismatch) -> String {
        let place = if at.is_empty() { "the event" } else { truncate(at) };
        let dots = if said.len() > truncate(said).len() { "..." } else { "" };
        let hint = match (&**at, text) {
            ("/timestamp", Some(_)) => " (hint: RFC 3339 with a zone, for example 2026-01-31T12:00:00Z)",
            ("/event_type", Some(text)) if text.contains(".v") => " (hint: the version goes into the member version)",
            _ => "",
        };
        let rule = rule.as_deref().map_or_else(String::new, |rule| format!(" {}", truncate(rule)));
        format!("{place}: {}{dots}{hint} [{}{rule}]", truncate(said), self.name)
    }
}

fn truncate(text: &str) -> &str {
    &text[..text.floor_char_boundary(FINDING_BYTES_MAX)]
}

fn load_schema(path: &Path) -> Result<RegisteredSchema, String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or("its name is not UTF-8")?;
    let name = EventName::parse(stem).map_err(|error| error.to_string())?;
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > SCHEMA_BYTES_MAX {
        return Err(format!("it has {size} bytes; at most {SCHEMA_BYTES_MAX} (schema_bytes_max) are allowed"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    compile(name, &text)
}

fn compile(name: EventName, text: &str) -> Result<RegisteredSchema, String> {
    if is_reserved(&name.kind) {
        return Err("events whose kind begins with \"Tidemill.\" are the host's own, and have no schema".to_owned());
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let mut subschemas = 0;
    measure(&schema, 0, &mut subschemas)?;
    Ok(RegisteredSchema { name, compiled: tidemill_json::Schema::compile(text)? })
}

/// Refuses schemas that are too deep or too large to be worth the risk.
fn measure(value: &Value, depth: usize, subschemas: &mut usize) -> Result<(), String> {
    if depth > SCHEMA_DEPTH_MAX {
        return Err(format!("it nests deeper than {SCHEMA_DEPTH_MAX} (schema_depth_max)"));
    }
    match value {
        Value::Object(members) => {
            *subschemas += 1;
            if *subschemas > SUBSCHEMAS_MAX {
                return Err(format!("it has more than {SUBSCHEMAS_MAX} subschemas (subschemas_max)"));
            }
            if let Some(Value::String(reference)) = members.get("$ref")
                && !reference.starts_with('#')
            {
                return Err(format!(
                    "\"$ref\": \"{reference}\" leaves the file\n  hint: only references within it (\"#/...\") are followed"
                ));
            }
            members.values().try_for_each(|member| measure(member, depth + 1, subschemas))
        }
        Value::Array(items) => items.iter().try_for_each(|item| measure(item, depth + 1, subschemas)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Registry::default().add("Test.Made.v1", text).unwrap_err()
    }

    #[test]
    fn bombs_are_refused_when_they_are_loaded() {
        assert!(refused(r#"{"$ref": "http://example.com/x.json"}"#).contains("leaves the file"));
        let deep = format!("{}{}", r#"{"not":"#.repeat(100), "{}".to_owned() + &"}".repeat(100));
        assert!(refused(&deep).contains("schema_depth_max"));
        let wide = format!(r#"{{"oneOf":[{}]}}"#, vec!["{}"; 10_000].join(","));
        assert!(refused(&wide).contains("subschemas_max"));
        assert!(refused(r#"{"type":"string","format":"credit-card"}"#).contains("credit-card"));
        assert!(!refused(r#"{"pattern":"(a+"}"#).is_empty());
    }

    /// Reaches `SCHEMA_DEPTH_MAX` and `SUBSCHEMAS_MAX`.
    #[test]
    fn a_schema_may_be_as_deep_and_as_wide_as_its_bounds() {
        let compiled = |text: &str| Registry::default().add("Test.Made.v1", text);
        let deep = |levels: usize| format!("{}{{}}{}", r#"{"not":"#.repeat(levels), "}".repeat(levels));
        assert_eq!(compiled(&deep(SCHEMA_DEPTH_MAX)), Ok(()));
        assert!(refused(&deep(SCHEMA_DEPTH_MAX + 1)).contains("deeper than 64 (schema_depth_max)"));
        let wide = |objects: usize| format!(r#"{{"anyOf":[{}]}}"#, vec!["{}"; objects - 1].join(","));
        assert_eq!(compiled(&wide(SUBSCHEMAS_MAX)), Ok(()));
        assert!(refused(&wide(SUBSCHEMAS_MAX + 1)).contains("more than 2000 subschemas"));
    }

    /// Reaches `SCHEMA_BYTES_MAX`.
    #[test]
    fn a_schema_s_file_has_a_bound() {
        let folder = std::env::temp_dir().join(format!("tidemill-schemas-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let load = |bytes: u64| {
            std::fs::write(folder.join("Test.Made.v1.json"), format!("{{}}{}", " ".repeat(bytes as usize - 2)))
                .unwrap();
            Registry::load(&folder).map(|registry| registry.names().count()).map_err(|errors| errors[0].to_string())
        };
        assert_eq!(load(SCHEMA_BYTES_MAX), Ok(1));
        let refused = load(SCHEMA_BYTES_MAX + 1).unwrap_err();
        assert!(refused.contains("it has 262145 bytes; at most 262144 (schema_bytes_max)"), "{refused}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Reaches `FINDINGS_MAX` and `FINDING_BYTES_MAX`.
    #[test]
    fn a_refusal_says_the_first_few_things_and_of_each_the_beginning() {
        let mut registry = Registry::default();
        registry.add("Test.Made.v1", r#"{"additionalProperties":{"type":"string"}}"#).unwrap();
        let said = |names: &[String]| {
            let members: Vec<String> = names.iter().map(|name| format!("\"{name}\":1")).collect();
            let event = format!("{{{}}}", members.join(","));
            match registry.get("Test.Made", 1).unwrap().check(&Json::read(&event).unwrap(), event.len()) {
                Err(NotRun::Invalid(text)) => String::from(text),
                other => panic!("{other:?}"),
            }
        };
        let names: Vec<String> = (0..=FINDINGS_MAX).map(|n| format!("m{n}")).collect();
        let (all, more) = (said(&names[..FINDINGS_MAX]), said(&names));
        assert_eq!((all.matches("/m").count(), all.ends_with("and more")), (FINDINGS_MAX, false), "{all}");
        assert_eq!((more.matches("/m").count(), more.ends_with("; and more")), (FINDINGS_MAX, true), "{more}");
        let place = |bytes: usize| said(&["x".repeat(bytes - 1)]).split(':').next().map_or(0, str::len);
        assert_eq!([place(FINDING_BYTES_MAX), place(FINDING_BYTES_MAX + 1)], [FINDING_BYTES_MAX; 2]);
    }

    /// Reaches `KIND_BYTES_MAX`.
    #[test]
    fn a_long_kind_is_not_searched_for() {
        let mut registry = Registry::default();
        let kind = |bytes: usize| format!("User.A{}", "a".repeat(bytes - 6));
        registry.add(&format!("{}.v1", kind(KIND_BYTES_MAX - 1)), "{}").unwrap();
        let said = |bytes: usize| match registry.find(&kind(bytes), 1) {
            Err(NotRun::Unknown(text)) => String::from(text),
            other => panic!("{other:?}"),
        };
        assert!(said(KIND_BYTES_MAX).contains("did you mean"), "{}", said(KIND_BYTES_MAX));
        let long = said(KIND_BYTES_MAX + 1);
        assert_eq!(long, format!("event_type \"{}...\" has 129 bytes, and no schema", kind(KIND_BYTES_MAX)));
    }

    #[test]
    fn the_host_s_own_events_have_no_schema() {
        assert!(Registry::default().add("Tidemill.Timer.v1", "{}").unwrap_err().contains("the host's own"));
        assert!(Registry::default().add("TidemillX.Timer.v1", "{}").is_ok());
    }

    #[test]
    fn a_catastrophic_pattern_is_harmless() {
        let mut registry = Registry::default();
        registry.add("Test.Made.v1", r#"{"properties":{"x":{"pattern":"^(a+)+$"}}}"#).unwrap();
        let event = format!(r#"{{"x":"{}b"}}"#, "a".repeat(50_000));
        assert!(registry.get("Test.Made", 1).unwrap().check(&Json::read(&event).unwrap(), event.len()).is_err());
    }

    #[test]
    fn a_near_miss_gets_a_hint() {
        let mut registry = Registry::default();
        registry.add("User.Created.v1", "{}").unwrap();
        let said = |kind, version| match registry.find(kind, version) {
            Err(NotRun::Unknown(text)) => String::from(text),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            said("User.Created.v1", 1),
            "event_type \"User.Created.v1\": write \"User.Created\" and version \"1\""
        );
        assert!(said("User.Crated", 1).contains("did you mean \"User.Created\"?"));
        assert!(said("User.Created", 2).contains("there is \"1\""));
    }
}
