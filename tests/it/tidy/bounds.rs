//! A bound that no test has reached is a guess. So each one has a test that reaches it, and the test says so in the
//! comment above it: a sentence that begins with `Reaches` and has the names in backticks, `state::NAME_BYTES_MAX` where
//! the name alone is that of several files. To reach a bound means both: something at the bound passes, and something
//! beyond it is refused, cut or put off. A default of the configuration is reached by what passes with it and not with a
//! key set lower, or by what goes beyond it.

use std::collections::BTreeSet;

use super::source::{Source, files, ident, none, read, sources};

/// Where bounds lie, and where tests do.
const BOUNDED: [&str; 1] = ["host"];
const TESTED: [&str; 2] = ["host", "tests"];

/// A constant with one of these in its name bounds something.
const WORDS: [&str; 10] = ["MAX", "MOST", "MIN", "LEAST", "BYTES", "BYTE", "KEPT", "SHOWN", "DIGITS", "STEP"];
/// All of its constants are bounds; and all tables of ranges, of which each row is one.
const LIMITS: &str = "host/core/src/limits.rs";
const RANGES: &str = "&[Row<";

const EXAM: &str = "host/conformance/src/";

/// What looks like a bound and stops nothing: nobody can break it, so there is nothing to reach.
const EXEMPT: [(&str, &str); 38] = [
    // What one thing is taken to weigh: the bounds that it counts for are reached.
    ("TIMER_ENVELOPE_BYTES", "what stands around a timer's data, for `doctor`"),
    ("ATTRIBUTE_BYTES", "the quotes, the colon and the comma around an attribute"),
    ("FACTS_BYTES", "counts for RECENT_BYTES_MAX"),
    ("FIELD_BYTES", "counts for FETCH_BYTES"),
    ("MAC_BYTES", "what SHA-256 has"),
    ("KEY_BYTES", "the same"),
    ("RANDOM_BYTES", "how much chance a token has"),
    ("NAME_DIGITS", "a form of names"),
    ("RANDOM_DIGITS", "a form of names"),
    ("LOG_HEADER_BYTES", "SQLite's own form"),
    ("FRAME_HEADER_BYTES", "SQLite's own form"),
    ("FILE_HEADER_BYTES", "SQLite's own form"),
    // What is reserved or read at once: more only takes another turn.
    ("MEMBER_BYTES", "a capacity to begin with"),
    ("replies::READ_BYTES", "a buffer"),
    ("lines::READ_BYTES", "a buffer"),
    ("CHUNK_LINES_MAX", "lines that are read ahead: the others are read later"),
    ("CHUNKS_AHEAD_MAX", "the same"),
    ("PAGE_BYTES", "the size of the next page, by that of the last one"),
    ("BATCH_BYTES_MAX", "the event that goes beyond it goes along"),
    ("beside::KEPT", "files that are open, one for each database that a process has looked into"),
    ("JOBS_PER_TRANSACTION_MAX", "the others have the next transaction"),
    (
        "BURIAL_CALLS_MAX",
        "the others go with the next recovery; a hundred thousand dead consumers take too long for a test",
    ),
    ("io_pool::JOBS_MAX", "who finds the queue full asks again, and each asks for one job at a time"),
    ("IDLE_CONNECTIONS_MAX", "handed to the HTTP library, whose pool it is"),
    ("SILENCE_MAX", "handed to the kernel, which asks a peer whether it still lives"),
    // How long a person or the next try waits: nothing but another try comes of it.
    ("SINGLE_WAIT_MAX", "how often the other queue is looked at"),
    ("aof_guard::WAIT_MAX", "whoever waits for the rewrite is told so and asks again"),
    ("LEAVE_EARLY_MAX", "patience with a backend that hangs while a failed start is undone"),
    ("LEAVE_MAX", "the life of the last heartbeat"),
    ("START_WAIT_MAX", "a minute; patience is tested with a shorter one"),
    ("COMMAND_WAIT_MAX", "the same"),
    ("LOOKS_MAX", "how often a log that somebody begins anew meanwhile is looked at"),
    ("CLOSE_MAX", "a disk that takes ten seconds for what the log holds"),
    ("SHUTDOWN_MAX", "what a command that has ended waits for its threads"),
    ("CONNECTION_MAX", "a quarter of an hour, for reloads"),
    ("io_pool::SILENT_MAX", "ten minutes; `tasks::STUCK_MAX` is reached"),
    ("reload::ANSWER_MAX", "ten minutes of a person's patience"),
    ("reload::CONNECT_MAX", "seconds of a person's patience"),
];

/// A constant that bounds something.
struct Bound {
    /// Where it stands, as a path of modules: `host::src::capability::state::NAME_BYTES_MAX`.
    path: String,
    place: String,
}

impl Bound {
    fn is_called(&self, name: &str) -> bool {
        self.path.strip_suffix(name).is_some_and(|rest| rest.ends_with("::"))
    }
}

#[test]
fn every_bound_is_reached() {
    let all = sources(&TESTED);
    let bounds = bounds(&all);
    let (mut findings, mut reached) = (Vec::new(), BTreeSet::new());
    let find = |place: &str, name: &str| {
        let found: Vec<&Bound> = bounds.iter().filter(|bound| bound.is_called(name)).collect();
        match found[..] {
            [one] => Ok(one.path.clone()),
            [] => Err(format!("{place}: there is no bound `{name}`; mend the name")),
            [..] => {
                let paths: Vec<&str> = found.iter().map(|bound| &*bound.path).collect();
                Err(format!("{place}: `{name}` may be {}; put as much of the path before it", paths.join(" or ")))
            }
        }
    };
    for marker in all.iter().flat_map(markers) {
        if !marker.above_a_test {
            findings.push(format!("{}: no test stands below this; move it there", marker.place));
        }
        for name in &marker.names {
            match find(&marker.place, name) {
                Ok(path) => _ = reached.insert(path),
                Err(said) => findings.push(said),
            }
        }
    }
    for (name, reason) in EXEMPT {
        match find("tests/it/tidy/bounds.rs", name) {
            Ok(path) if !reached.insert(path.clone()) => {
                findings.push(format!("EXEMPT: `{name}` is reached; take its row out"))
            }
            Ok(_) if reason.is_empty() => findings.push(format!("EXEMPT: `{name}` needs a reason")),
            Ok(_) => {}
            Err(said) => findings.push(said),
        }
    }
    for Bound { path, place } in bounds.iter().filter(|bound| !reached.contains(&bound.path)) {
        let name = path.rsplit("::").next().unwrap_or(path);
        findings.push(format!("{place}: no test reaches `{name}`; write one, and `Reaches `{name}`.` above it"));
    }
    none("every bound has a test that reaches it", &findings);
}

/// Every bound of the host, by its path.
fn bounds(all: &[Source]) -> Vec<Bound> {
    let tests: Vec<String> = all.iter().flat_map(Source::test_modules).collect();
    let shipped = |path: &str| {
        BOUNDED.iter().any(|folder| path.starts_with(folder))
            && !path.starts_with(EXAM)
            && !tests.iter().any(|test| path.starts_with(test.as_str()))
    };
    let mut found = Vec::new();
    for source in all.iter().filter(|source| shipped(&source.path)) {
        let blocks = source.test_blocks();
        let words = ["const", "static"].into_iter().flat_map(|word| source.words(word).map(|at| at + word.len()));
        for at in words.filter(|at| !blocks.iter().any(|block| block.contains(at))) {
            let rest = source.code[at..].trim_start();
            let name = ident(rest);
            let kind = rest[name.len()..].strip_prefix(": ").unwrap_or_default();
            if is_bound(name) || kind.starts_with(RANGES) || source.path == LIMITS && !kind.is_empty() {
                found.push(Bound { path: module(&source.path, name), place: source.place(at) });
            }
        }
    }
    for path in files("host", ".lua") {
        for (at, line) in read(&path).lines().enumerate() {
            let names =
                line.trim_start().strip_prefix("local ").and_then(|rest| rest.split_once('=')).unwrap_or_default();
            for name in names.0.split(',').map(str::trim).filter(|name| is_bound(name)) {
                found.push(Bound { path: module(&path, name), place: format!("{path}:{}", at + 1) });
            }
        }
    }
    found
}

fn is_bound(name: &str) -> bool {
    let constant = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    constant && name.split('_').any(|word| WORDS.contains(&word))
}

/// host/storage/src/finding.rs -> host::storage::src::finding::NAME
fn module(path: &str, name: &str) -> String {
    let stem = path.trim_end_matches(".rs").trim_end_matches(".lua").trim_end_matches("/mod");
    format!("{}::{name}", stem.replace('/', "::"))
}

/// What a comment says that the test below it reaches.
struct Marker {
    place: String,
    names: Vec<String>,
    above_a_test: bool,
}

fn markers(source: &Source) -> Vec<Marker> {
    let lines: Vec<&str> = source.raw.lines().map(str::trim_start).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if comment(line).is_none_or(|words| !words.starts_with("Reaches `")) {
            continue;
        }
        let sentence: Vec<&str> = lines[at..].iter().map_while(|line| comment(line)).collect();
        let sentence = sentence.join(" ");
        // Between two backticks is a name; the first full stop outside of them ends the sentence.
        let mut names = Vec::new();
        for (turn, part) in sentence.split('`').enumerate() {
            match turn % 2 {
                1 => names.push(part.to_owned()),
                _ if part.contains('.') => break,
                _ => {}
            }
        }
        let below =
            lines[at..].iter().position(|line| comment(line).is_none()).map_or(&[][..], |below| &lines[at + below..]);
        let place = format!("{}:{}", source.path, at + 1);
        found.push(Marker { place, names, above_a_test: begins_a_test(source, below) });
    }
    found
}

fn comment(line: &str) -> Option<&str> {
    line.strip_prefix("///").or_else(|| line.strip_prefix("//")).map(str::trim)
}

/// Whether these lines begin with a test, with a row of a macro that makes tests, or with a story of the exam.
fn begins_a_test(source: &Source, lines: &[&str]) -> bool {
    let attributes: Vec<&str> = lines.iter().copied().take_while(|line| line.starts_with("#[")).collect();
    let Some(first) = lines.get(attributes.len()) else { return false };
    if source.path.starts_with(EXAM) {
        return first.starts_with("pub(crate) async fn ");
    }
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let function = first.starts_with("fn ") || first.starts_with("async fn ");
    // A story of `on_both_backends!`.
    if first.starts_with("async fn ") && first.contains("(url: &str)") && source.code.contains("on_both_backends! {") {
        return true;
    }
    let name = ident(first);
    let row = [": {", " \"", ": "].iter().any(|then| !name.is_empty() && first[name.len()..].starts_with(then));
    function && attributes.iter().any(is_test) || row && attributes.is_empty() && makes_tests(source)
}

/// Whether a macro of this file makes tests of its rows.
fn makes_tests(source: &Source) -> bool {
    let bodies = source.words("macro_rules").filter_map(|at| source.body_or_end(at)).map(|open| source.block(open));
    bodies
        .into_iter()
        .any(|body| ["#[test]", "#[tokio::test"].iter().any(|test| source.code[body.clone()].contains(test)))
}
