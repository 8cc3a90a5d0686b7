//! `doctor` inspects the streams: those that take no more entries, ids that no clock gave, unknown groups, leaked
//! consumers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys::{HEARTBEAT_PREFIX, Keys};
use super::script::{Arguments, DoctorAclArgs, DoctorStreamsArgs};
use super::value::Fields;
use super::{Redis, value};
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::finding;
use tidemill_storage::finding::{Signs, bad, good, short, signs, warning};
use tidemill_storage::{Finding, Result, SubscriptionStatus};

/// Consumers of one group that are inspected: the others are counted only.
const CONSUMERS_MAX: usize = 10_000;
/// Heartbeats asked for at a time.
const HEARTBEATS_AT_ONCE: usize = 1000;
/// How far a stream's ids may be ahead of the clock. A clock that was set back a little is no alarm.
const AHEAD_MAX: Duration = Duration::from_secs(60);

struct Stream {
    name: String,
    kind: String,
    length: u64,
    last: EntryId,
    first: Option<EntryId>,
    now_ms: u64,
    groups: BTreeMap<String, Group>,
}

struct Group {
    delivered: EntryId,
    pending: u64,
    first_pending: Option<EntryId>,
    held_for: Duration,
    consumers: u64,
    silent: u64,
    silent_holding: u64,
}

impl Redis {
    pub(super) async fn diagnose_streams(
        &self,
        subscriptions: &[Subscription],
        targets: &[Arc<str>],
    ) -> Result<Vec<Finding>> {
        let mut by_stream: BTreeMap<&str, Vec<&Subscription>> = BTreeMap::new();
        for subscription in subscriptions {
            by_stream.entry(&subscription.stream).or_default().push(subscription);
        }
        for target in targets {
            by_stream.entry(target).or_default();
        }
        let mut found = Vec::new();
        for (name, subscriptions) in by_stream {
            if targets.iter().any(|target| **target == *name) {
                found.extend(self.may_emit_to(name).await);
            }
            let stream = self.inspect(name).await?;
            if subscriptions.is_empty() {
                found.push(stream.as_target());
                continue;
            }
            found.extend(stream.findings(&subscriptions));
            for subscription in subscriptions {
                if let Some(group) = stream.groups.get(&*subscription.handler) {
                    found.extend(signs(subscription, &self.signs(subscription, group).await?, &self.options));
                }
            }
        }
        Ok(found)
    }

    async fn inspect(&self, name: &str) -> Result<Stream> {
        let call = DoctorStreamsArgs { stream: name.to_owned(), consumers_max: CONSUMERS_MAX }.call();
        let mut answer = Fields::of(self.run_script(&call, &name).await?)?;
        let mut groups = BTreeMap::new();
        for row in answer.list("groups")? {
            let mut row = Fields::of(row)?;
            let group = String::from_utf8_lossy(&value::bytes(row.take("name")?)?).into_owned();
            let (idle, holding) = (self.silent(row.list("idle")?).await?, self.silent(row.list("holding")?).await?);
            let facts = Group {
                delivered: row.id("delivered")?,
                pending: row.count("pending")?,
                first_pending: row.id_if_any("first_pending")?,
                held_for: Duration::from_millis(row.count("held_ms")?),
                consumers: row.count("consumers")?,
                silent: idle + holding,
                silent_holding: holding,
            };
            groups.insert(group, facts);
        }
        Ok(Stream {
            name: name.to_owned(),
            kind: answer.text("type")?,
            length: answer.count("length")?,
            last: answer.id("last")?,
            first: answer.id_if_any("first")?,
            now_ms: answer.count("now_ms")?,
            groups,
        })
    }

    /// How many of these consumers have no heartbeat.
    async fn silent(&self, consumers: Vec<Value>) -> Result<u64> {
        let mut silent = 0;
        for some in consumers.chunks(HEARTBEATS_AT_ONCE) {
            let mut ask = redis::cmd("EXISTS");
            for consumer in some {
                ask.arg([HEARTBEAT_PREFIX.as_bytes(), &value::bytes(consumer.clone())?].concat());
            }
            silent += some.len() as u64 - value::count(&self.run(&ask, &"heartbeats").await?)?;
        }
        Ok(silent)
    }

    /// The counters as far as they are about dead letters: reading all of them may take long.
    async fn letters(&self, subscription: &Subscription) -> Result<SubscriptionStatus> {
        let (keys, mut ask) = (Keys::of(subscription), Pipeline::with_capacity(3));
        ask.cmd("XLEN").arg(keys.dead()).cmd("XLEN").arg(keys.unrun());
        ask.cmd("HMGET").arg(keys.stats()).arg("letters_bytes").arg("evicted_ran").arg("evicted_unrun");
        let [dead, unrun, counters] = value::tuple(Value::Array(self.run_all(&ask, subscription).await?))?;
        let counters: [Value; 3] = value::tuple(counters)?;
        let count = |counter: &Value| if *counter == Value::Nil { Ok(0) } else { value::count(counter) };
        Ok(SubscriptionStatus {
            dead: value::count(&dead)?,
            dead_unrun: value::count(&unrun)?,
            dead_bytes: count(&counters[0])?,
            evicted_ran: count(&counters[1])?,
            evicted_unrun: count(&counters[2])?,
            ..SubscriptionStatus::default()
        })
    }

    /// A settlement with emits is refused if one of them is.
    async fn may_emit_to(&self, stream: &str) -> Option<Finding> {
        let mut call = DoctorAclArgs {}.call();
        call.cmd.arg(["XADD", stream, "*", "event", "x"].join("\u{1f}"));
        let denied = self.run_script(&call, &stream).await.and_then(value::array);
        match denied {
            Ok(denied) if denied.is_empty() => None,
            Ok(_) => Some(bad(
                "rights",
                format!("{stream}: this user may not run XADD on it, and handlers emit to it"),
                format!("ACL SETUSER .. +xadd ~{stream}; what was to be emitted is kept until then"),
            )),
            // Reported for the subscriptions already.
            Err(_) => None,
        }
    }

    async fn signs(&self, subscription: &Subscription, group: &Group) -> Result<Signs> {
        Ok(Signs {
            letters: self.letters(subscription).await?,
            pending_age: (group.pending > 0).then_some(group.held_for),
            silent: group.silent,
            silent_holding: group.silent_holding,
        })
    }
}

impl Stream {
    /// What it holds is no stream: nothing can be read from it, or emitted to it.
    fn wrong_type(&self) -> Option<Finding> {
        let Self { name, kind, .. } = self;
        let hint = "give the stream another name, or move that key away (RENAME)";
        let text = || format!("{name}: this key is a {kind}, not a stream");
        (kind != "stream" && kind != "none").then(|| bad("streams", text(), hint))
    }

    /// It is only emitted to: its readers are outside this configuration.
    fn as_target(&self) -> Finding {
        let name = &self.name;
        match self.wrong_type() {
            Some(wrong) => wrong,
            None if self.kind == "none" => good("streams", format!("{name}: it is made with the first event")),
            None => self.ids(),
        }
    }

    fn findings(&self, subscriptions: &[&Subscription]) -> Vec<Finding> {
        let name = &self.name;
        if let Some(wrong) = self.wrong_type() {
            return vec![wrong];
        }
        if self.kind == "none" {
            let hint = "it is made when a host starts, or with the first event that is published";
            return vec![warning("streams", format!("{name}: there is no such stream yet"), hint)];
        }
        let mut found = vec![self.ids()];
        for subscription in
            subscriptions.iter().filter(|subscription| !self.groups.contains_key(&*subscription.handler))
        {
            let hint =
                "it is made when a host starts: a new one where `start` says, one that was destroyed where it was";
            found.push(warning("groups", format!("{subscription}: there is no such group"), hint));
        }
        let known = |group: &str| subscriptions.iter().any(|subscription| *subscription.handler == *group);
        for (group, facts) in self.groups.iter().filter(|(group, _)| !known(group)) {
            found.push(self.stranger(group, facts));
        }
        if found.iter().all(|finding| finding.level == tidemill_storage::Level::Good) {
            let consumers: u64 = self.groups.values().map(|group| group.consumers).sum();
            let groups = self.groups.len();
            found.push(good(
                "streams",
                format!("{name}: {} entries, {groups} groups, {consumers} consumers", self.length),
            ));
        }
        found
    }

    /// Ids are times by the server's clock, unless a producer sets them.
    fn ids(&self) -> Finding {
        let (name, last) = (&self.name, self.last);
        if last.0 == u64::MAX {
            // Tried on Redis 7.0: XSETID goes back only behind an entry that is deleted.
            let hint = format!(
                "an entry was given the highest of all ids. Let its handlers read it to the end; then XDEL {name} \
                 {last}, XSETID {name} <the id of the last entry left, or 0-1> ENTRIESADDED <entries added> \
                 MAXDELETEDID 0-0, and XGROUP SETID {name} GROUP $ for each group. Or RENAME it: the next event \
                 recreates it. Take from producers the right to set ids (ACL)"
            );
            return bad("stream ids", format!("{name}: it takes no more entries, its last id is {last}"), hint);
        }
        let ahead = Duration::from_millis(last.0.saturating_sub(self.now_ms));
        if ahead > AHEAD_MAX {
            let hint = "a producer sets ids (XADD without *), or the clock was set back: all later ids follow that \
                        one, so ages and the retention are wrong until then; let producers write XADD .. *";
            return bad("stream ids", format!("{name}: its last id {last} lies {} in the future", short(ahead)), hint);
        }
        good("stream ids", format!("{name}: ids follow the server's clock"))
    }

    /// A group that is not in the configuration: what it has not finished stays on the stream for ever.
    fn stranger(&self, group: &str, facts: &Group) -> Finding {
        let name = &self.name;
        let needs = facts.first_pending.unwrap_or(facts.delivered).min(facts.delivered);
        let behind = facts.pending > 0 || facts.delivered < self.last;
        let text = format!("{name}: by the configuration no handler {group} reads this stream");
        // What it needs is gone already, or it has all: nothing stays because of it.
        let pins = behind && self.first.is_some_and(|first| first <= self.last && needs < self.last);
        if !pins {
            return finding::good("groups", text + ", and has nothing left to do");
        }
        let age = Duration::from_millis(self.now_ms.saturating_sub(needs.0.max(self.first.map_or(0, |first| first.0))));
        let hint = format!(
            "if its handler is still needed, configure it again and let it finish. If not: XGROUP DESTROY {name} \
             {group} deletes its position and pending entries for good: a program that recreates it would get all \
             entries once more. Trimming spares what it has not finished"
        );
        let text = format!("{text}, and keeps the last {} of the stream ({} pending)", short(age), facts.pending);
        warning("groups", text, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_storage::Level;

    /// Reaches `doctor_streams::AHEAD_MAX`.
    #[test]
    fn ids_that_lie_in_the_future_are_told() {
        let (now_ms, ahead) = (1_700_000_000_000, AHEAD_MAX.as_millis() as u64);
        let level = |last: u64| {
            let (name, kind, groups) = ("s".to_owned(), "stream".to_owned(), BTreeMap::new());
            let first = Some(EntryId(1, 0));
            Stream { name, kind, length: 1, last: EntryId(last, 0), first, now_ms, groups }.ids().level
        };
        assert_eq!((level(now_ms + ahead), level(now_ms + ahead + 1)), (Level::Good, Level::Bad));
    }
}
