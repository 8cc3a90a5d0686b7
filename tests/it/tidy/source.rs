//! Reading the project's files as a reviewer does: Rust without its comments and the insides of its texts, Markdown as
//! tables. Text alone, no parser of Rust: what a rule looks for must be plain enough to be found that way.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A Rust file, twice: as it is, and with comments and the insides of texts blanked, byte for byte in the same places.
pub(super) struct Source {
    /// From the project's root, with `/`.
    pub path: String,
    pub raw: String,
    pub code: String,
}

impl Source {
    pub(super) fn new(path: String, raw: String) -> Self {
        let code = blanked(&raw);
        Self { path, raw, code }
    }

    /// `host/core/src/x.rs:12`
    pub(super) fn place(&self, at: usize) -> String {
        let line = self.raw.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}", self.path)
    }

    /// Where this word stands in the code, by itself: `redis` is not found in `is_redis`.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        let apart = move |at: usize| {
            let (first, last) = (bytes[at], bytes[at + word.len() - 1]);
            let before = at.checked_sub(1).is_none_or(|before| !is_ident(bytes[before]));
            let after = bytes.get(at + word.len()).is_none_or(|after| !is_ident(*after));
            (before || !is_ident(first)) && (after || !is_ident(last))
        };
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| apart(*at))
    }

    /// From a `{` to just behind its `}`; to the end of the file if there is none.
    pub(super) fn block(&self, open: usize) -> Range<usize> {
        let mut depth = 0;
        for (at, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'{' => depth += 1,
                b'}' if depth == 1 => return open..at + 1,
                b'}' => depth -= 1,
                _ => {}
            }
        }
        open..self.code.len()
    }

    /// The first `{` or `;` from here that is not inside of brackets.
    pub(super) fn body_or_end(&self, from: usize) -> Option<usize> {
        let mut depth = 0;
        self.code.bytes().enumerate().skip(from).find_map(|(at, byte)| {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth -= 1,
                b'{' | b';' if depth == 0 => return Some(at),
                _ => {}
            }
            None
        })
    }

    /// What stands under `#[cfg(test)]` in this file.
    pub(super) fn test_blocks(&self) -> Vec<Range<usize>> {
        let item = |at| self.body_or_end(at + TEST_ONLY.len()).map(|open| at..self.end_of(open));
        self.code.match_indices(TEST_ONLY).filter_map(|(at, _)| item(at)).collect()
    }

    /// The modules that `#[cfg(test)] mod NAME;` declares: as paths that a file of theirs begins with.
    pub(super) fn test_modules(&self) -> Vec<String> {
        let folder = match self.path.rsplit_once('/') {
            Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = |range: &Range<usize>| {
            let name = self.code[range.clone()].strip_suffix(';')?.rsplit_once("mod ")?.1.trim().to_owned();
            Some(format!("{folder}/{name}"))
        };
        self.test_blocks().iter().filter_map(declared).collect()
    }

    fn end_of(&self, open: usize) -> usize {
        if self.code.as_bytes()[open] == b';' { open + 1 } else { self.block(open).end }
    }
}

const TEST_ONLY: &str = "#[cfg(test)]";

pub(super) fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The identifier that begins here.
pub(super) fn ident(code: &str) -> &str {
    let end = code.bytes().position(|byte| !is_ident(byte)).unwrap_or(code.len());
    &code[..end]
}

/// Blanks comments and the insides of strings and characters; line ends and the quotes stay.
fn blanked(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_text(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        if bytes[at] == b'"' && end > at {
            (code[at], code[end - 1]) = (b'"', b'"');
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).unwrap_or_else(|_| raw.to_owned())
}

/// Where the comment, string or character that begins here ends; `at` if none does.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |what: &[u8]| rest.windows(what.len()).position(|window| window == what);
    match rest {
        [b'/', b'/', ..] => at + find(b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + end_of_block_comment(rest),
        [b'"', ..] => at + end_of_string(rest),
        [b'r', b'"' | b'#', ..] if at == 0 || !is_ident(bytes[at - 1]) || matches!(bytes[at - 1], b'b' | b'c') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return at; // a raw identifier
            }
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            let inside = &rest[2 + hashes..];
            let length = inside.windows(close.len()).position(|window| window == close).unwrap_or(inside.len());
            (at + 2 + hashes + length + close.len()).min(bytes.len())
        }
        [b'\'', b'\\', ..] => at + 3 + rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(0, |end| end + 1),
        // A lifetime has no second quote right behind its first character.
        [b'\'', first, ..] => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { at + 2 + width } else { at }
        }
        _ => at,
    }
}

fn end_of_block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn end_of_string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The project's root: two folders above `tests/it`.
pub(super) fn root() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").expect("set CARGO_MANIFEST_DIR to the folder tests/it");
    Path::new(&tests).ancestors().nth(2).expect("tests/it lies in the project").to_owned()
}

pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder whose names end like this, in order. What is built or hidden is left alone.
pub(super) fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return found };
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder == "." { name.clone() } else { format!("{folder}/{name}") };
        if name.starts_with('.') || ["target", "dist", "node_modules", "gen"].contains(&name.as_str()) {
            continue;
        }
        if entry.path().is_dir() {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(super) fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| {
        let found = files(folder, ".rs");
        // A rule that looks at nothing holds for ever.
        assert!(!found.is_empty(), "{folder}: no Rust lies there; name the folder that it has moved to");
        found
    });
    paths.map(|path| Source::new(path.clone(), read(&path))).collect()
}

/// A row of a Markdown table: its line, and its cells.
pub(super) struct Row {
    pub line: usize,
    pub cells: Vec<String>,
}

/// The rows of the table below `<!-- rows: WHAT -->`, without its head.
pub(super) fn table(path: &str, what: &str) -> Vec<Row> {
    let (text, marker) = (read(path), format!("<!-- rows: {what} -->"));
    let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim() != marker).skip(1);
    let rows = lines.skip_while(|(_, line)| line.trim().is_empty()).take_while(|(_, line)| line.starts_with('|'));
    let rows: Vec<Row> = rows.skip(2).map(|(at, line)| Row { line: at + 1, cells: cells(line) }).collect();
    assert!(!rows.is_empty(), "{path}: no table stands below `{marker}`; put the line back above the table");
    rows
}

pub(super) fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\0");
    inner.split('|').map(|cell| cell.replace('\0', "|").trim().to_owned()).collect()
}

/// Fails with all findings at once: a reviewer reads the whole list.
pub(super) fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}\n", findings.join("\n  "));
}
