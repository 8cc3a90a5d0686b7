//! The rules of the house that a machine can check. Each failure names the file, the line, and what to do.

mod bounds;
mod builds;
mod crates;
mod docs;
mod source;

use source::{Source, files, ident, none, read, root, sources};

/// Where Rust of ours lies.
const RUST: [&str; 5] = ["host", "xtask/src", "tests", "benches", "plugins"];

const FILE_LINES_MAX: usize = 400;
/// What fits on a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// A host function that does not would be one to storm.
#[test]
fn host_functions_count_their_calls() {
    let mut findings = Vec::new();
    for source in sources(&["host/sandbox/src/capability"]) {
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
    let listed = sources(&["host/tidemill/src/cli/init"]).remove(0).raw;
    let modules = sources(&["plugins/sdk/rust/src"]);
    let missing = modules.iter().filter(|module| !listed.contains(&format!("(\"{}\",", module.path)));
    let findings: Vec<String> =
        missing.map(|module| format!("{}: not in host/tidemill/src/cli/init/mod.rs", module.path)).collect();
    none("`init` writes every module of the SDK", &findings);
}

/// Whoever prints past it prints what a terminal obeys, and panics where nobody reads.
#[test]
fn only_the_one_writer_prints() {
    let mut findings = Vec::new();
    for source in sources(&["host"]).iter().filter(|source| source.path != "host/tidemill/src/cli/out.rs") {
        for name in ["println!", "print!", "eprintln!", "eprint!"] {
            for at in source.words(name) {
                let place = source.place(at);
                findings.push(format!("{place}: `{name}`; print by host/tidemill/src/cli/out.rs, log by `tracing`"));
            }
        }
    }
    none("only host/tidemill/src/cli/out.rs prints", &findings);
}

/// A URL with its password, and a secret, are texts only where they are used.
#[test]
fn secrets_are_exposed_where_they_are_used() {
    let uses = ["storage-redis/src/link.rs", "capability/http/headers.rs", "capability/secrets.rs", "cli/reload.rs"];
    let mut findings = Vec::new();
    for source in sources(&["host"]).iter().filter(|source| !uses.iter().any(|path| source.path.ends_with(path))) {
        let blocks = source.test_blocks();
        for at in source.words(".expose()").filter(|at| !blocks.iter().any(|block| block.contains(at))) {
            let place = source.place(at);
            findings.push(format!(
                "{place}: `.expose()`; show the URL as it is displayed, or connect in storage-redis/src/link.rs"
            ));
        }
    }
    none("a password is a text only where it is used", &findings);
}

/// One that is started elsewhere may die unseen (docs/decisions/0032).
#[test]
fn tasks_and_threads_are_started_in_one_place() {
    let all = sources(&["host"]);
    let mut exempt: Vec<String> = all.iter().flat_map(Source::test_modules).collect();
    exempt.extend(["host/process/src/tasks/", "host/conformance/", "host/tidemill/src/cli/init/"].map(str::to_owned));
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
    none("tasks and threads are started in host/process/src/tasks alone", &findings);
}

/// Whoever judges the host must not take its word for anything.
#[test]
fn the_checker_shares_no_code_with_the_host() {
    let mut findings = Vec::new();
    for source in sources(&["tests/testkit/checker"]) {
        let others = source.words("crate::").filter(|at| !source.code[*at..].starts_with("crate::checker"));
        // Any of its crates.
        let host = source.code.match_indices("tidemill").map(|(at, _)| at);
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
        if !source.raw.starts_with("//! ") {
            findings.push(format!("{}:1: begin with `//! ` and one sentence that says its job", source.path));
        }
    }
    for path in files("host", ".lua").into_iter().chain(files("host", ".sql")) {
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
    let all = sources(&["host"]);
    let mut tests: Vec<String> = all.iter().flat_map(Source::test_modules).collect();
    tests.extend(["host/conformance/", "host/json/tests/"].map(str::to_owned));
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
