//! Tests whose names hold a word: run, and counted from what they print. libtest is content with none, and whoever has
//! mistyped a name would read that all is well.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cargo;

/// Longer lines are of no test binary.
const LINE_BYTES_MAX: usize = 4096;

/// Runs `cargo test` with these words and options, and answers the code that it ended with.
///
/// # Errors
/// No test matches.
pub(crate) fn run(command: &mut Command, words: &[String]) -> anyhow::Result<u8> {
    // Tests see a pipe where the terminal was.
    if std::io::stdout().is_terminal() && !words.iter().any(|word| word.starts_with("--color")) {
        command.arg("--color=always");
    }
    counted(command, words, &mut std::io::stdout())
}

fn counted(command: &mut Command, words: &[String], out: &mut impl Write) -> anyhow::Result<u8> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("running cargo")?;
    let mut pipe = child.stdout.take().context("a pipe from cargo")?;
    let (mut seen, mut chunk) = (Seen::default(), [0; 8192]);
    loop {
        // Passed on as they come: a test that hangs shows its name before the end of its line.
        let length = pipe.read(&mut chunk).context("reading what cargo prints")?;
        if length == 0 {
            break;
        }
        seen.add(&chunk[..length]);
        out.write_all(&chunk[..length]).and_then(|()| out.flush()).context("passing on what cargo prints")?;
    }
    let code = cargo::code_of("cargo", child.wait().context("waiting for cargo")?)?;
    if code == 0 && seen.tests == 0 {
        bail!("no test matches: {}\n  hint: `cargo xtask test --list` names all of them", words.join(" "));
    }
    Ok(code)
}

/// What test binaries have said so far.
#[derive(Default)]
struct Seen {
    line: Vec<u8>,
    tests: u64,
}

impl Seen {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.tests += tests(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(*byte);
            }
        }
    }
}

/// `running 3 tests` before they run, `a::test: test` in a list.
fn tests(line: &str) -> u64 {
    let listed = u64::from(line.ends_with(": test"));
    let running =
        line.strip_prefix("running ").and_then(|rest| rest.strip_suffix(" tests").or(rest.strip_suffix(" test")));
    listed + running.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script in place of cargo.
    #[cfg(unix)]
    fn said(script: &str) -> anyhow::Result<u8> {
        counted(Command::new("sh").args(["-c", script]), &["no_such_word".to_owned()], &mut Vec::new())
    }

    #[test]
    #[cfg(unix)]
    fn a_word_that_no_test_holds_fails() {
        let none = "printf '\nrunning 0 tests\n\ntest result: ok. 0 passed\n\nrunning 0 tests\n'";
        assert!(said(none).unwrap_err().to_string().starts_with("no test matches: no_such_word\n"));
        assert_eq!(said(&format!("{none}; printf 'running 1 test\n'")).unwrap(), 0);
        assert_eq!(said("printf 'running 0 tests\n'; exit 101").unwrap(), 101, "what went wrong before is said");
        assert_eq!(said("printf 'a::test: test\n1 test, 0 benchmarks\n'").unwrap(), 0, "a list");
    }

    #[test]
    fn tests_are_counted_wherever_a_chunk_ends() {
        let mut seen = Seen::default();
        for chunk in ["runn", "ing 12 te", "sts\ntest a ... ok\nrunning", " 1 test\nrunning late\n"] {
            seen.add(chunk.as_bytes());
        }
        assert_eq!(seen.tests, 13);
    }
}
