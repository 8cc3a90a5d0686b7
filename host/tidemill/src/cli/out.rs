//! The one way to stdout and stderr of a command. What is printed for people is made plain here, wherever it comes from
//! ([`plain_text`]); JSON says exactly what it said. A reader that goes away ends the command, quietly.

use std::fmt;
use std::io::{self, Write};

use serde_json::Value;

use super::table::Table;
use tidemill_core::model::plain_text;

/// What a shell shows of a command that a signal has ended is so much more than the signal's number.
const SIGNAL_BASE: i32 = 128;

/// The exit code of a command that a signal has stopped.
pub(crate) const INTERRUPTED: u8 = SIGNAL_BASE as u8 + rustix::process::Signal::INT.as_raw() as u8;

/// One line of a result. Line ends in it are escaped, so that nothing that it quotes looks like a line of its own.
macro_rules! outln {
    ($($part:tt)*) => { $crate::cli::out::line(format_args!($($part)*)) };
}

/// One line of what is no result, on stderr.
macro_rules! errln {
    ($($part:tt)*) => { $crate::cli::out::note(format_args!($($part)*)) };
}

pub(crate) use {errln, outln};

pub(super) fn line(text: fmt::Arguments<'_>) {
    to_stdout(&format!("{}\n", plain_text::line(text)));
}

/// Several lines of our own words, each made plain.
pub(super) fn lines(text: &dyn fmt::Display) {
    to_stdout(&format!("{}\n", plain_text::lines(&text.to_string())));
}

/// A table; its cells are plain.
pub(super) fn table(table: &Table) {
    to_stdout(&table.to_string());
}

/// A JSON document on a line.
pub(super) fn json(value: &Value) {
    to_stdout(&format!("{}\n", plain_text::json(&value.to_string())));
}

/// An untrusted text, the whole of it: lines after one another are marked as such. JSON stays JSON, with
/// the same value.
pub(super) fn quoted(text: &str) {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let plain = |line: &str| match is_json {
        // Between the tokens of JSON one white space is as good as another.
        true => plain_text::json(&line.replace(['\t', '\r'], " ")).into_owned(),
        false => plain_text::line(line),
    };
    match text.trim_end_matches('\n').split_once('\n') {
        None => to_stdout(&format!("{}\n", plain(text.trim_end_matches('\n')))),
        Some(_) => text.lines().for_each(|line| to_stdout(&format!("| {}\n", plain(line)))),
    }
}

/// What is made for a program and holds no untrusted text.
pub(super) fn exact(bytes: &[u8]) {
    ended(io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()));
}

pub(super) fn note(text: fmt::Arguments<'_>) {
    to_stderr(&format!("{}\n", plain_text::line(text)));
}

/// An error with its hints, or findings: several lines, each made plain.
pub(super) fn notes(text: &str) {
    to_stderr(&format!("{}\n", plain_text::lines(text)));
}

/// A question, with the cursor behind it.
pub(super) fn ask(text: &str) {
    to_stderr(&plain_text::line(text));
}

fn to_stdout(text: &str) {
    ended(io::stdout().lock().write_all(text.as_bytes()));
}

/// A failure here cannot be reported; what was asked for is done all the same.
fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A result that is not written is a failure. Where the reader is gone (`tidemill .. | head`) the command ends as if by
/// SIGPIPE, which Rust's programs ignore; a full disk is an error that is reported.
pub(super) fn ended(written: io::Result<()>) {
    let Err(error) = written else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(SIGNAL_BASE + rustix::process::Signal::PIPE.as_raw());
    }
    note(format_args!("error: cannot write the result: {error}"));
    std::process::exit(1);
}
