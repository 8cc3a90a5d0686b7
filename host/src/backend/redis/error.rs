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
        // The limit on clients has no code of its own.
        Some("ERR") if text.contains("max number of clients") => unavailable(at, text),
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
        "WRONGTYPE" => {
            "a key that belongs to this stream holds something else; look at TYPE of the stream and of {stream}:tm:*"
        }
        "NOPERM" => {
            "give the user all commands on streams, hashes, sorted sets and scripts, and all keys of its streams (ACL SETUSER)"
        }
        "NOAUTH" | "WRONGPASS" => {
            "put the right user and password into the broker url: redis://user:password@host:port"
        }
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "this is a node of a Redis Cluster, which is not supported; use a single primary"
        }
        _ => "Redis 7.0 or newer is needed, or a Valkey",
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
        (Some(code), detail) => {
            format!("{code} {}", script_place_removed(detail.unwrap_or_default())).trim_end().into()
        }
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

/// Errors from within a script end in the script's hash and line.
fn script_place_removed(text: &str) -> &str {
    text.split(" script: ").next().unwrap_or(text)
}
