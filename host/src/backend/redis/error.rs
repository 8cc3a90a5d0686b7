//! What an error of Redis or of the connection means to the caller: try again, make the group anew, or give up.

use std::fmt::Display;

use redis::{ErrorKind, RedisError};

use crate::backend::Error;

/// Answers by which Redis says: not now.
const NOT_NOW: [&str; 11] = [
    "MISCONF",
    "OOM",
    "NOREPLICAS",
    "LOADING",
    "READONLY",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "UNBLOCKED",
    "MASTERDOWN",
    "NOSCRIPT",
];

/// `at` is the server's address, `subject` the source or stream that the command was about.
pub(super) fn meaning(at: &str, subject: &dyn Display, error: &RedisError) -> Error {
    let text = plain(error);
    match error.code() {
        Some("NOGROUP") => Error::GroupGone { source_name: subject.to_string() },
        Some(code) if NOT_NOW.contains(&code) => unavailable(at, text),
        // Some errors that matter have no code of their own.
        Some("ERR") if text.contains("max number of clients") => unavailable(at, text),
        Some("ERR") if text.contains("user executing the script") => refused(at, subject, &text, code_hint("NOPERM")),
        Some(code) => refused(at, subject, &text, code_hint(code)),
        None if error.kind() == ErrorKind::AuthenticationFailed => refused(at, subject, &text, code_hint("WRONGPASS")),
        // What is left is I/O, time-outs, and answers that end in the middle.
        None => unavailable(at, text),
    }
}

/// An answer whose form is not the one that this command has: not something that trying again would change.
pub(super) fn odd_answer(wanted: &str) -> Error {
    Error::Refused(format!("redis answered in a form that is not known here: {wanted} was to come"))
}

fn unavailable(at: &str, cause: String) -> Error {
    Error::Unavailable { what: format!("redis at {at}"), cause }
}

fn refused(at: &str, subject: &dyn Display, text: &str, hint: &str) -> Error {
    Error::Refused(format!("redis at {at} refuses work on {subject}: {text}\n  hint: {hint}"))
}

fn code_hint(code: &str) -> &'static str {
    match code {
        "WRONGTYPE" => "one of its keys holds something else; look at TYPE of the stream and of {stream}:tm:*",
        "EXHAUSTED" => "somebody gave an entry the highest of all ids; copy the stream to a new one",
        "NOPERM" => "ACL SETUSER: allow streams, hashes, sorted sets and scripts, and all keys of the streams",
        "NOAUTH" | "WRONGPASS" => "write user and password into the broker url: redis://user:password@host:port",
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "this is a node of a Redis Cluster, which is not supported: use a single primary"
        }
        _ => "is it Redis 7.0 or newer, or a Valkey, and did nobody else change keys named {stream}:tm:*?",
    }
}

/// The error without what only a programmer would want to read.
pub(super) fn plain(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "connection refused".into();
    }
    if error.is_timeout() {
        return "no answer in time".into();
    }
    match (error.code(), error.detail()) {
        (Some("ERR"), Some(detail)) => script_place_removed(detail).to_owned(),
        (Some(code), Some(detail)) => format!("{code} {}", script_place_removed(detail)),
        (Some(code), None) => code.to_owned(),
        (None, Some(detail)) => first_line(detail),
        (None, None) => first_line(&error.to_string()),
    }
}

/// Without the names of kinds and numbers that the library and the operating system add.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let end = [" - ", " (os error"].iter().filter_map(|cut| line.find(cut)).min();
    line[..end.unwrap_or(line.len())].to_owned()
}

/// Errors from within a script end in the script's hash and line.
fn script_place_removed(text: &str) -> &str {
    text.split(" script: ").next().unwrap_or(text)
}
