//! The crates of the host: who may use whom, which library only one of them knows, and names that are there once.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, files, none, read, sources};

/// Who may use whom. Cargo refuses circles; that nothing looks upward is said here.
const USES: [(&str, &[&str]); 13] = [
    ("json", &[]),
    ("core", &[]),
    ("process", &["core"]),
    ("schema", &["core", "json"]),
    ("config", &["core", "schema", "storage"]),
    ("storage", &["core"]),
    ("conformance", &["core", "storage"]),
    ("storage-redis", &["core", "process", "storage"]),
    ("storage-sqlite", &["core", "process", "storage"]),
    ("sandbox", &["config", "core", "json", "process", "schema"]),
    ("runtime", &["config", "core", "process", "sandbox", "schema", "storage"]),
    ("server", &["core", "process", "runtime", "storage"]),
    (
        "tidemill",
        &[
            "config",
            "core",
            "process",
            "runtime",
            "sandbox",
            "schema",
            "server",
            "storage",
            "storage-redis",
            "storage-sqlite",
        ],
    ),
];

/// Libraries that one crate alone knows: what another one needs of them goes through that crate.
const ONE_OWNER: [(&str, &[&str]); 8] = [
    ("axum", &["server"]),
    ("clap", &["tidemill"]),
    ("jsonschema", &["json"]),
    ("notify", &["runtime"]),
    ("prometheus-client", &["runtime"]),
    ("redis", &["storage-redis"]),
    ("rusqlite", &["storage-sqlite"]),
    ("wasmtime", &["sandbox"]),
];

#[test]
fn crates_use_only_what_lies_below_them() {
    let mut findings = Vec::new();
    for manifest in files("host", "Cargo.toml").iter().filter(|path| path.matches('/').count() == 2) {
        let name = manifest.split('/').nth(1).unwrap_or_default();
        let Some((_, below)) = USES.iter().find(|(known, _)| *known == name) else {
            findings.push(format!("{manifest}: give `{name}` a row in USES of tests/it/tidy/crates.rs"));
            continue;
        };
        for dependency in dependencies(&read(manifest)) {
            let ours = dependency.strip_prefix("tidemill-").filter(|ours| !below.contains(ours));
            if let Some(ours) = ours {
                findings.push(format!(
                    "{manifest}: `{name}` uses `{ours}`, which is not below it; move what it needs down"
                ));
            }
            let owners = ONE_OWNER.iter().find(|(library, _)| *library == dependency).map(|(_, owners)| owners);
            if let Some(owners) = owners.filter(|owners| !owners.contains(&name)) {
                findings.push(format!("{manifest}: `{dependency}` is known to {owners:?} alone; go through it"));
            }
        }
    }
    none("crates use what lies below them (ARCHITECTURE.md, crates)", &findings);
}

/// Those of the shipped code: `[dependencies]`, not `[dev-dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let inside = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let lines = inside.lines().take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| Some(line.split_once('.')?.0.trim().to_owned()))
        .filter(|name| !name.starts_with('#'))
        .collect()
}

/// Names that every module may have: what they are is said by where they stand.
const EVERYWHERE: [&str; 4] = ["Args", "Command", "Error", "Result"];

#[test]
fn a_public_type_is_named_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources(&["host"]).iter().filter(|source| !source.path.contains("/project/")) {
        for (name, place) in public_types(source) {
            places.entry(name).or_default().push(place);
        }
    }
    let doubled = places.into_iter().filter(|(name, found)| found.len() > 1 && !EVERYWHERE.contains(&&**name));
    let findings: Vec<String> = doubled
        .map(|(name, found)| format!("`{name}` is {}; one name, one thing: rename all but one", found.join(" and ")))
        .collect();
    none("a public type is named once", &findings);
}

fn public_types(source: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for word in ["struct", "enum", "trait", "type", "union"] {
        for at in source.words(word) {
            let line = source.code[..at].rsplit('\n').next().unwrap_or_default().trim_start();
            if line.starts_with("pub") && !line.contains("const") {
                let name = super::ident(source.code[at + word.len()..].trim_start());
                // In a macro the name is a parameter.
                if !name.is_empty() {
                    found.push((name.to_owned(), source.place(at)));
                }
            }
        }
    }
    found
}

/// What is `pub` is a promise to somebody: another crate, a test or a bench names it, or it stands in what one of these names.
#[test]
fn what_is_public_is_used_elsewhere() {
    let all = sources(&["host", "tests", "benches"]);
    let mut words: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &all {
        words.entry(unit(source)).or_default().extend(source.code.split(|c: char| !c.is_alphanumeric() && c != '_'));
    }
    let mut findings = Vec::new();
    for source in all.iter().filter(|source| source.path.starts_with("host/") && source.path.contains("/src/")) {
        let own = unit(source);
        let named = |name: &str| words.iter().any(|(unit, words)| *unit != own && words.contains(name));
        for (name, place) in public_items(source) {
            let in_a_signature = || all.iter().filter(|other| unit(other) == own).any(|other| signs_with(other, &name));
            if !named(&name) && !in_a_signature() {
                findings.push(format!("{place}: no other crate names `{name}`; make it `pub(crate)`, or private"));
            }
        }
    }
    none("what is public is used by another crate", &findings);
}

/// The crate of a file: `host/core/src/x.rs` -> host/core; a program of its own crate is a user of its library.
fn unit(source: &Source) -> &str {
    let end = source.path.match_indices('/').nth(1).map_or(source.path.len(), |(at, _)| at);
    if source.path.ends_with("/main.rs") { &source.path } else { &source.path[..end] }
}

fn public_items(source: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, line) in source.code.lines().scan(0, |at, line| Some((std::mem::replace(at, *at + line.len() + 1), line)))
    {
        let Some(rest) = line.trim_start().strip_prefix("pub ") else { continue };
        let rest = ["const ", "async ", "unsafe "].iter().fold(rest, |rest, word| match rest.strip_prefix(word) {
            // `const NAME` is an item, `const fn` a function.
            Some(next) if *word != "const " || next.starts_with("fn ") => next,
            _ => rest,
        });
        let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = match kind {
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => super::ident(rest),
            field => field.strip_suffix(':').unwrap_or_default(),
        };
        if !name.is_empty() {
            found.push((name.to_owned(), source.place(at)));
        }
    }
    found
}

/// Whether something public of this file has the name in what it takes, answers or is made of.
fn signs_with(source: &Source, name: &str) -> bool {
    let defines = |line: &str| line.contains(&format!(" {name} {{")) && line.contains("struct ");
    source.words(name).any(|at| {
        let line = source.code[..at].rfind('\n').map_or(0, |end| end + 1);
        let text = source.code[line..].lines().next().unwrap_or_default();
        let head = source.code[..at].rfind("pub fn").or_else(|| source.code[..at].rfind("pub async fn"));
        let in_head =
            head.is_some_and(|from| !source.code[from..at].contains('{') && !source.code[from..at].contains(';'));
        let variant = text.trim_start().starts_with(|c: char| c.is_uppercase());
        in_head
            || variant
            || (text.trim_start().starts_with("pub ") && !defines(text) && !text.contains(&format!("enum {name} ")))
    })
}
