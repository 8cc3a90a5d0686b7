//! The rules of the house that a machine can check. Each failure names the file, the line, and what to do.

#[path = "tidy/bounds.rs"]
mod bounds;
#[path = "tidy/builds.rs"]
mod builds;
#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, files, ident, none, read, root, sources};

/// Where Rust of ours lies.
const RUST: [&str; 5] = ["host/src", "xtask/src", "tests", "benches", "plugins"];

const FILE_LINES_MAX: usize = 400;
/// What fits on a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// The layers of `host/src`, from the bottom. A module may use those with a lower number.
const LAYERS: [(&str, u32); 17] = [
    ("fault", 0),
    ("files", 0),
    ("tasks", 5),
    ("model", 0),
    ("policy", 10),
    ("schema", 10),
    ("config", 15),
    ("clock", 15),
    ("backend", 20),
    ("plugin", 20),
    ("capability", 20),
    ("observe", 25),
    ("pipeline", 30),
    ("service", 40),
    ("cli", 50),
    ("web", 50),
    ("main", 50),
];

/// Neighbours in one layer that may use each other: (file or folder that does, module that it uses).
const NEIGHBOURS: [(&str, &str); 4] = [
    ("host/src/plugin/", "capability"),
    ("host/src/capability/", "plugin"),
    ("host/src/cli/run.rs", "web"),
    ("host/src/main.rs", "cli"),
];

#[test]
fn layers_point_down() {
    let mut findings = Vec::new();
    for source in sources(&["host/src"]).iter().filter(|source| source.path != "host/src/lib.rs") {
        let from = layer_of(&source.path);
        for (at, to) in crate_names(source) {
            let wrong = match (rank(from), rank(to)) {
                (None, _) => format!("give `{from}` a place in LAYERS of tests/tidy.rs"),
                (_, None) => format!("give `{to}` a place in LAYERS of tests/tidy.rs"),
                (Some(here), Some(there)) if from == to || there < here => continue,
                _ if NEIGHBOURS.iter().any(|(path, name)| source.path.starts_with(path) && *name == to) => continue,
                _ => format!("`{from}` uses `{to}`, which is not below it; move what it needs down"),
            };
            findings.push(format!("{}: {wrong}", source.place(at)));
        }
    }
    none("imports point down only (ARCHITECTURE.md, layers)", &findings);
}

fn layer_of(path: &str) -> &str {
    let inner = path.trim_start_matches("host/src/");
    inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
}

fn rank(layer: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, rank)| *rank)
}

/// Every top-level module of the crate that this file names: by `crate::` (`tidemill::` in `main.rs`, which is a crate
/// of its own) or by enough `super::`.
fn crate_names(source: &Source) -> Vec<(usize, &str)> {
    let inner = source.path.trim_start_matches("host/src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = if inner == "main" { 0 } else { inner.split('/').count() };
    let inline = source.inline_modules();
    let mut found = Vec::new();
    let root = if depth == 0 { "tidemill::" } else { "crate::" };
    found.extend(source.words(root).map(|at| (at, at + root.len())));
    for at in source.words("super::") {
        let ups = source.code[at..].split("::").take_while(|part| *part == "super").count();
        let continues = source.code[..at].ends_with("super::");
        let here = depth + inline.iter().filter(|block| block.contains(&at)).count();
        if !continues && ups == here {
            found.push((at, at + ups * "super::".len()));
        }
    }
    let names = |(at, from): (usize, usize)| names_after(&source.code[from..]).into_iter().map(move |name| (at, name));
    found.into_iter().flat_map(names).filter(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

/// `model::x` -> model; `{config::limits, model}` -> config, model.
fn names_after(code: &str) -> Vec<&str> {
    let Some(group) = code.strip_prefix('{') else { return vec![ident(code)] };
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, true);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => begins = true,
            _ if begins && !byte.is_ascii_whitespace() => {
                names.push(ident(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn only_backend_and_build_know_redis_or_sqlite() {
    let mut findings = Vec::new();
    for source in sources(&["host/src"]).iter().filter(|source| !source.path.starts_with("host/src/backend/")) {
        let wires = source.path == "host/src/service/build.rs";
        let wiring = |at: &usize| wires && source.code[..*at].ends_with("backend::");
        for name in ["redis::", "rusqlite", "sqlite::"] {
            for at in source.words(name).filter(|at| !wiring(at)) {
                let place = source.place(at);
                findings.push(format!("{place}: `{name}` belongs below host/src/backend; use the traits of `backend`"));
            }
        }
    }
    none("only backend/ and the wiring in service/build.rs know Redis or SQLite", &findings);
}

/// A host function that does not would be one to storm.
#[test]
fn host_functions_count_their_calls() {
    let mut findings = Vec::new();
    for source in sources(&["host/src/capability"]) {
        let lines: Vec<&str> = source.raw.lines().collect();
        let mut inside = false;
        for (at, line) in lines.iter().enumerate() {
            inside = (inside || line.contains("::Host for Context {")) && !line.starts_with('}');
            if inside && line.starts_with("    fn ") {
                let body =
                    lines[at..].iter().position(|line| line.ends_with('{')).map(|open| lines[at + open + 1].trim());
                if body != Some("self.enter()?;") {
                    findings.push(format!("{}:{}: begin it with `self.enter()?;`", source.path, at + 1));
                }
            }
        }
    }
    none("every host function counts its calls (limits.host_calls)", &findings);
}

/// `tidemill init` writes the SDK out; a module that it forgets is found by nobody but its users.
#[test]
fn init_writes_all_of_the_sdk() {
    let listed = sources(&["host/src/cli/init"]).remove(0).raw;
    let modules = sources(&["plugins/sdk/rust/src"]);
    let missing = modules.iter().filter(|module| !listed.contains(&format!("(\"{}\",", module.path)));
    let findings: Vec<String> =
        missing.map(|module| format!("{}: not in host/src/cli/init/mod.rs", module.path)).collect();
    none("`init` writes every module of the SDK", &findings);
}

/// Whoever prints past it prints what a terminal obeys, and panics where nobody reads.
#[test]
fn only_the_one_writer_prints() {
    let mut findings = Vec::new();
    for source in sources(&["host/src"]).iter().filter(|source| source.path != "host/src/cli/out.rs") {
        for name in ["println!", "print!", "eprintln!", "eprint!"] {
            for at in source.words(name) {
                let place = source.place(at);
                findings.push(format!("{place}: `{name}`; print by host/src/cli/out.rs, log by `tracing`"));
            }
        }
    }
    none("only host/src/cli/out.rs prints", &findings);
}

/// A URL with its password, and a secret, are texts only where they are used.
#[test]
fn secrets_are_exposed_where_they_are_used() {
    let uses = ["backend/redis/link.rs", "capability/http/headers.rs", "capability/secrets.rs", "cli/reload.rs"];
    let mut findings = Vec::new();
    for source in sources(&["host/src"]).iter().filter(|source| !uses.iter().any(|path| source.path.ends_with(path))) {
        let blocks = source.test_blocks();
        for at in source.words(".expose()").filter(|at| !blocks.iter().any(|block| block.contains(at))) {
            let place = source.place(at);
            findings.push(format!(
                "{place}: `.expose()`; show the URL as it is displayed, or connect in backend/redis/link.rs"
            ));
        }
    }
    none("a password is a text only where it is used", &findings);
}

/// One that is started elsewhere may die unseen (docs/decisions/0032).
#[test]
fn tasks_and_threads_are_started_in_one_place() {
    let all = sources(&["host/src"]);
    let mut exempt: Vec<String> = all.iter().flat_map(Source::test_modules).collect();
    exempt.extend(["host/src/tasks/", "host/src/backend/conformance/", "host/src/cli/init/"].map(str::to_owned));
    let mut findings = Vec::new();
    for source in all.iter().filter(|source| !exempt.iter().any(|path| source.path.starts_with(path.as_str()))) {
        let blocks = source.test_blocks();
        let shipped = |at: &usize| !blocks.iter().any(|block| block.contains(at));
        // A program of its own is started without an argument.
        let bare = |at: &usize| !source.code[*at..].starts_with(".spawn()");
        let started =
            ["tokio::spawn", "spawn_blocking", "spawn_local", "spawn_scoped", "thread::spawn", "thread::Builder"];
        let named = started.iter().flat_map(|name| source.words(name));
        for at in named.chain(source.words(".spawn(").filter(bare)).filter(shipped) {
            findings.push(format!("{}: start it by `tasks`, with a row in its table", source.place(at)));
        }
    }
    none("tasks and threads are started in host/src/tasks alone", &findings);
}

#[test]
fn only_plugin_and_capability_know_wasmtime() {
    let knows = ["host/src/plugin/", "host/src/capability/"];
    let mut findings = Vec::new();
    for source in sources(&["host/src"]) {
        if knows.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for at in source.words("wasmtime") {
            let place = source.place(at);
            findings.push(format!("{place}: wasmtime is named here; go through `plugin`"));
        }
    }
    none("only plugin/ and capability/ know wasmtime", &findings);
}

/// Whoever judges the host must not take its word for anything.
#[test]
fn the_checker_shares_no_code_with_the_host() {
    let mut findings = Vec::new();
    for source in sources(&["tests/checker"]) {
        let others = source.words("crate::").filter(|at| !source.code[*at..].starts_with("crate::checker"));
        let host = ["tidemill", "tidemill_tests"].into_iter().flat_map(|name| source.words(name).collect::<Vec<_>>());
        for at in host.chain(others) {
            let place = source.place(at);
            findings.push(format!("{place}: the checker reads the store for itself; write down here what it needs"));
        }
    }
    none("the checker shares no code with the host", &findings);
}

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    for source in sources(&RUST) {
        let lines = source.raw.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}; split it by jobs", source.path));
        }
        for (at, name, lines) in functions(&source) {
            if lines > FUNCTION_LINES_MAX {
                let place = source.place(at);
                findings
                    .push(format!("{place}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}; take steps out"));
            }
        }
    }
    none("files are short, functions fit on a screen", &findings);
}

/// Every function with a body: where it begins, its name, its lines.
fn functions(source: &Source) -> Vec<(usize, &str, usize)> {
    let mut found = Vec::new();
    for at in source.words("fn") {
        let name = ident(source.code[at + 2..].trim_start());
        let Some(open) = source.body_or_end(at) else { continue };
        if !name.is_empty() && source.code.as_bytes()[open] == b'{' {
            let lines = source.code[at..source.block(open).end].lines().count();
            found.push((at, name, lines));
        }
    }
    found
}

#[test]
fn every_file_opens_with_its_job() {
    let mut findings = Vec::new();
    for source in sources(&RUST) {
        // A package without code of its own has an empty lib.rs, because Cargo wants one.
        if !source.raw.is_empty() && !source.raw.starts_with("//! ") {
            findings.push(format!("{}:1: begin with `//! ` and one sentence that says its job", source.path));
        }
    }
    for path in files("host/src", ".lua").into_iter().chain(files("host/src", ".sql")) {
        let text = read(&path);
        let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        if !first.starts_with("-- ") {
            findings.push(format!("{path}:1: begin with `-- ` and one sentence that says its job"));
        }
    }
    none("a file opens with its job", &findings);
}

#[test]
fn no_unwrap_without_a_reason() {
    let all = sources(&["host/src"]);
    let mut tests: Vec<String> = all.iter().flat_map(Source::test_modules).collect();
    tests.push("host/src/backend/conformance/".to_owned());
    let mut findings = Vec::new();
    for source in all.iter().filter(|source| !tests.iter().any(|test| source.path.starts_with(test.as_str()))) {
        let blocks = source.test_blocks();
        let shipped = |at: &usize| !blocks.iter().any(|block| block.contains(at));
        for at in source.words(".unwrap()").filter(shipped) {
            let place = source.place(at);
            findings
                .push(format!("{place}: `.unwrap()`; handle it, or say in `.expect(\"...\")` why it cannot happen"));
        }
        for at in source.words(".expect(").filter(shipped) {
            if !source.code[at + ".expect(".len()..].trim_start().starts_with('"') {
                let place = source.place(at);
                findings.push(format!("{place}: `.expect` needs a text that says why it cannot happen"));
            }
        }
    }
    none("nothing is unwrapped without a reason", &findings);
}

#[test]
fn no_unfinished_business() {
    let mut findings = Vec::new();
    for source in sources(&RUST) {
        for mark in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            for at in source.words(mark) {
                findings.push(format!("{}: `{mark}`; finish it or take it out", source.place(at)));
            }
        }
    }
    none("nothing is left half done", &findings);
}

#[test]
fn schemas_have_examples() {
    let mut findings = Vec::new();
    let schemas: Vec<String> =
        files("schemas", ".json").into_iter().filter(|path| path.matches('/').count() == 1).collect();
    for schema in &schemas {
        let name = schema.trim_start_matches("schemas/").trim_end_matches(".json");
        for kind in ["valid", "invalid"] {
            let folder = format!("schemas/examples/{name}/{kind}");
            if files(&folder, ".json").is_empty() {
                findings.push(format!("{schema}: has no {kind} example; put one into {folder}/"));
            }
        }
    }
    for entry in std::fs::read_dir(root().join("schemas/examples")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !schemas.contains(&format!("schemas/{name}.json")) {
            findings.push(format!("schemas/examples/{name}: there is no schemas/{name}.json; rename the folder"));
        }
    }
    none("every schema has examples of both kinds", &findings);
}
