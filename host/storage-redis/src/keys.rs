//! The name of every key in Redis, and the only place that knows them.
//!
//! An input stream keeps the name that its user gave it, say `orders`. Whatever belongs to it is named
//! `{orders}:tm:<what>[:<handler>[:...]]`: the braces put all of it in the stream's own cluster slot.
//! What belongs to hosts is named `{tm}:<what>` and is in one slot of its own: no script touches both
//! (docs/decisions/0035).
//!
//! | key | type | what |
//! |---|---|---|
//! | `{s}:tm:redelivery:H` | stream | redelivery queue of handler H: due retries and timers, replayed dead letters |
//! | `{s}:tm:due:H` and `...:body` | sorted set, hash | retries that wait, by the time they are due; their records |
//! | `{s}:tm:timers:H` | sorted set | timers that wait, by the time they are due; `due:H:body` has their records, too |
//! | `{s}:tm:dead:H` and `...:unrun` | streams | dead letters; the bytes of those that never ran, under the same ids |
//! | `{s}:tm:seen:H:<bucket>` | hash | inbox: event id -> payload hash; scripts add the bucket (see `common.lua`) |
//! | `{s}:tm:seen:H` | hash | the buckets that are there -> the window of the hosts that wrote them, in ms |
//! | `{s}:tm:ids:<bucket>` and `{s}:tm:ids` | hashes | the same for events published on `s` with a deduplication key |
//! | `{s}:tm:position:H` | hash | position and pending ids of the group, to recreate it there (see `tend.lua`) |
//! | `{s}:tm:wishes:H` | hash | each host's wish for the subscription, and until when it counts (see `tend.lua`) |
//! | `{s}:tm:state:H:<key>` | hash | state of one event key: `v` is its version, `=<name>` a value |
//! | `{s}:tm:keys:H` | sorted set | the keys that have state, in the order of their names |
//! | `{s}:tm:crashes:H` | hash | deliveries in flight when a host crashed -> how often |
//! | `{s}:tm:stats:H` | hash | counters; `by:<digest>` and `at:<digest>` per plugin version; `paused` while paused |
//! | `{s}:tm:audit:H` | stream | what operators did to the subscription, the newest records |
//! | `{s}:tm:reclaimer:H` | string | the elected reclaimer of dead hosts' deliveries |
//! | `{s}:tm:receipt:<token>` | string | the answer to a settlement, for two minutes |
//! | `{tm}:host:<consumer>` | string | the heartbeat of a host: its report |
//! | `{tm}:hosts` | sorted set | live hosts, by the time at which their heartbeats expire |
//! | `{tm}:ids-key` | string | the secret by which emitted events get their ids |
//! | `{tm}:rewritten` | string | the server's `run_id` for which its append-only file was rewritten (see `aof_guard`) |

use std::borrow::Cow;

use uuid::Uuid;

use tidemill_core::model::delivery::Subscription;

/// The keys of one subscription.
pub(super) struct Keys {
    stream: String,
    prefix: String,
    handler: String,
}

impl Keys {
    pub(crate) fn of(subscription: &Subscription) -> Self {
        Self {
            stream: subscription.stream.to_string(),
            prefix: prefix(&subscription.stream),
            handler: escape(&subscription.handler, &[':']).into_owned(),
        }
    }

    pub(crate) fn stream(&self) -> String {
        self.stream.clone()
    }
    pub(crate) fn redelivery(&self) -> String {
        self.name("redelivery")
    }
    pub(crate) fn due(&self) -> String {
        self.name("due")
    }
    pub(crate) fn due_bodies(&self) -> String {
        self.name("due") + ":body"
    }
    pub(crate) fn timers(&self) -> String {
        self.name("timers")
    }
    pub(crate) fn dead(&self) -> String {
        self.name("dead")
    }
    /// Scripts make it of `dead` (see `letters.lua`).
    pub(crate) fn unrun(&self) -> String {
        self.name("dead") + ":unrun"
    }
    pub(crate) fn seen(&self) -> String {
        self.name("seen")
    }
    pub(crate) fn crashes(&self) -> String {
        self.name("crashes")
    }
    pub(crate) fn reclaimer(&self) -> String {
        self.name("reclaimer")
    }
    pub(crate) fn stats(&self) -> String {
        self.name("stats")
    }
    pub(crate) fn audit(&self) -> String {
        self.name("audit")
    }
    pub(crate) fn position(&self) -> String {
        self.name("position")
    }
    pub(crate) fn wishes(&self) -> String {
        self.name("wishes")
    }
    pub(crate) fn state_index(&self) -> String {
        self.name("keys")
    }
    /// What every state key of this handler begins with; the event's key follows.
    pub(crate) fn state_prefix(&self) -> String {
        self.name("state") + ":"
    }
    pub(crate) fn receipt(&self, token: Uuid) -> String {
        format!("{}receipt:{}", self.prefix, token.simple())
    }

    fn name(&self, what: &str) -> String {
        format!("{}{what}:{}", self.prefix, self.handler)
    }
}

/// The base of the buckets that remember what was published on a stream.
pub(super) fn published_ids(stream: &str) -> String {
    prefix(stream) + "ids"
}

pub(super) const IDS_KEY: &str = "{tm}:ids-key";

pub(super) const REWRITTEN: &str = "{tm}:rewritten";

/// The counters of every subscription of a stream: this and the handler's name, escaped. Only `trim.lua` puts it
/// together.
pub(super) fn stats_prefix(stream: &str) -> String {
    prefix(stream) + "stats:"
}

/// What the names of heartbeats begin with; the consumer's follows.
pub(super) const HEARTBEAT_PREFIX: &str = "{tm}:host:";

pub(super) fn heartbeat(consumer: &str) -> String {
    format!("{HEARTBEAT_PREFIX}{consumer}")
}

pub(super) const HOSTS: &str = "{tm}:hosts";

/// Whether this names a redelivery queue, on which only Tidemill writes.
pub(super) fn is_again(key: &[u8]) -> bool {
    let has = |mark: &[u8]| key.windows(mark.len()).any(|part| part == mark);
    key.starts_with(b"{") && (has(b"}:tm:redelivery:") || has(b"}:tm%:redelivery:"))
}

/// A name without braces stands in them as it is: only then is the slot that of the stream. One with braces cannot (the
/// configuration refuses it), and `tm%` keeps what it is escaped to apart from a stream that has that name.
fn prefix(stream: &str) -> String {
    if stream.contains(['{', '}']) {
        return format!("{{{}}}:tm%:", escape(stream, &['{', '}']));
    }
    format!("{{{stream}}}:tm:")
}

/// Two different names must never make the same key, however odd they are: what separates the parts is escaped in them.
fn escape<'a>(name: &'a str, reserved: &[char]) -> Cow<'a, str> {
    if !name.contains(|c| c == '%' || reserved.contains(&c)) {
        return name.into();
    }
    let mut escaped = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        if c == '%' || reserved.contains(&c) {
            escaped += &format!("%{:02x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(stream: &str, handler: &str) -> Keys {
        Keys::of(&Subscription { stream: stream.into(), handler: handler.into() })
    }

    #[test]
    fn plain_names_stay_readable() {
        let keys = keys("orders", "fraud");
        assert_eq!(keys.redelivery(), "{orders}:tm:redelivery:fraud");
        assert_eq!(keys.due_bodies(), "{orders}:tm:due:fraud:body");
        assert_eq!(keys.state_prefix() + "a:b", "{orders}:tm:state:fraud:a:b");
    }

    #[test]
    fn what_letters_lua_adds_is_what_is_asked_for() {
        let keys = keys("orders", "fraud");
        assert_eq!(keys.unrun(), keys.dead() + ":unrun");
        assert!(include_str!("lua/letters.lua").contains("dead .. ':unrun'"));
    }

    #[test]
    fn the_counters_of_all_groups_have_one_prefix() {
        let plain = keys("orders", "fraud").stats();
        assert_eq!(plain, stats_prefix("orders") + "fraud");
        assert_eq!(keys("s", "a:b%").stats(), stats_prefix("s") + "a%3ab%25", "trim.lua escapes in the same way");
    }

    #[test]
    fn odd_names_never_meet() {
        assert_ne!(keys("s", "a").state_prefix() + "b:c", keys("s", "a:b").state_prefix() + "c");
        assert_ne!(keys("s", "a:b").dead(), keys("s", "a%3ab").dead());
        assert_ne!(keys("s", "a").due_bodies(), keys("s", "a:body").due());
        assert_ne!(keys("a}:tm:state:H:x", "h").dead(), keys("a", "H").state_prefix() + "x}:tm:dead:h");
        assert_ne!(keys("a}", "h").dead(), keys("a%7d", "h").dead());
        assert!(is_again(keys("a%", "h").redelivery().as_bytes()) && is_again(keys("a}", "h").redelivery().as_bytes()));
    }
}
