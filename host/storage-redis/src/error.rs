//! What an error of Redis or of the connection means to the caller: try again, recreate the group, or give up.

use std::fmt::Display;

use redis::{ErrorKind, RedisError};

use tidemill_storage::Error;

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

/// `at` is the server's address, `subject` the subscription or stream that the command was about.
pub(super) fn meaning(at: &str, subject: &dyn Display, error: &RedisError) -> Error {
    let text = plain(error);
    match error.code() {
        Some("NOGROUP") => Error::GroupGone { subscription: subject.to_string() },
        Some(code) if NOT_NOW.contains(&code) => unavailable(at, text),
        // Some errors that matter have no code of their own.
        Some("ERR") if text.contains("max number of clients") => unavailable(at, text),
        Some("ERR") if text.contains("exhausted the last possible ID") => {
            refused(at, subject, &text, code_hint("EXHAUSTED"))
        }
        Some("ERR") if forbidden_in_script(&text) => refused(at, subject, &text, code_hint("NOPERM")),
        Some(code) => refused(at, subject, &text, code_hint(code)),
        None if error.kind() == ErrorKind::AuthenticationFailed => refused(at, subject, &text, code_hint("WRONGPASS")),
        // What is left is I/O, time-outs, and answers that end in the middle.
        None => unavailable(at, text),
    }
}

/// The words of Redis 7.0, and those of later versions and of Valkey.
fn forbidden_in_script(text: &str) -> bool {
    text.contains("user executing the script") || text.contains("ACL failure in script")
}

/// An answer whose form is not the one that this command has: not something that trying again would change.
pub(super) fn odd_answer(wanted: &str) -> Error {
    Error::Permanent(format!("redis answered in a form that is not known here: {wanted} was to come"))
}

fn unavailable(at: &str, cause: String) -> Error {
    Error::Unavailable { what: format!("redis at {at}"), cause }
}

fn refused(at: &str, subject: &dyn Display, text: &str, hint: &str) -> Error {
    Error::Permanent(format!("redis at {at} refuses work on {subject}: {text}\n  hint: {hint}"))
}

fn code_hint(code: &str) -> &'static str {
    match code {
        "WRONGTYPE" => "one of its keys holds something else; look at TYPE of the stream and of {stream}:tm:*",
        "EXHAUSTED" => {
            "a producer gave an entry the highest of all ids: RENAME the stream, and the next event recreates it; \
             or delete that entry and XSETID, as `tidemill doctor` says"
        }
        "NOPERM" => "ACL SETUSER: allow streams, hashes, sorted sets and scripts, and all keys of the streams",
        "NOAUTH" | "WRONGPASS" => "write user and password into the backend url: redis://user:password@host:port",
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "this is a node of a Redis Cluster, which is not supported: use a single primary"
        }
        _ => "is it Redis 7.0 or newer, or a Valkey, and did only Tidemill change keys named {stream}:tm:*?",
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

/// Errors from within a script end in ` script: <hash>, on @user_script:<line>.`
fn script_place_removed(text: &str) -> &str {
    let place = text.rfind(", on @").and_then(|on| text[..on].rfind(" script: "));
    &text[..place.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str, text: &str) -> Error {
        meaning("here", &"h on s", &redis::make_extension_error(code.into(), Some(text.into())))
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for code in NOT_NOW {
            assert!(matches!(answer(code, "x"), Error::Unavailable { .. }), "{code}");
        }
        let lost = meaning("here", &"h on s", &std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
        assert_eq!(lost.to_string(), "redis at here: connection reset");
        assert!(matches!(answer("ERR", "max number of clients reached"), Error::Unavailable { .. }));
    }

    #[test]
    fn what_needs_a_person_is_refused_with_a_hint() {
        for code in ["WRONGTYPE", "NOPERM", "NOAUTH", "WRONGPASS", "ERR"] {
            let Error::Permanent(text) = answer(code, "no script: 0123abcd, on @user_script:7.") else {
                panic!("{code}")
            };
            assert!(text.contains("h on s") && text.contains("\n  hint: ") && !text.contains("0123abcd"), "{text}");
        }
    }

    #[test]
    fn a_stream_whose_ids_are_used_up_is_told_from_what_is_odd() {
        for (code, text) in [
            ("EXHAUSTED", "the stream s takes no more entries"),
            ("ERR", "The stream has exhausted the last possible ID, unable to add more items"),
        ] {
            let Error::Permanent(said) = answer(code, text) else { panic!("{code}") };
            assert!(said.contains("RENAME the stream"), "{said}");
        }
    }

    #[test]
    fn a_missing_group_is_named() {
        assert!(matches!(answer("NOGROUP", "x"), Error::GroupGone { subscription } if subscription == "h on s"));
    }
}
