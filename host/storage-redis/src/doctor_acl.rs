//! May this user do all that a host does? First the server is asked about every command on the keys of a subscription.
//! Then it is tried: all of it is done to a scratch stream, which is removed.

use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use super::doctor::of_error;
use super::keys;
use super::keys::Keys;
use super::script::{Arguments, DoctorAclArgs};
use super::{Redis, value};
use tidemill_core::model::dead_letter::{AttemptRecord, Reason, ReasonClass};
use tidemill_core::model::delivery::{Delivery, Disposition, Effects, Emitted, Subscription, Timer};
use tidemill_storage::{
    Bounds, Consume, Finding, NewEntry, Operator, Result, Settlement, SettlementEntry, Start, finding,
};

/// What is done to a subscription, by the job that does it; `@x` is a key, `%` the group. Most jobs are named like
/// their script.
const COMMANDS: &[(&str, &str)] = &[
    ("ensure", "XGROUP CREATE @stream % 0 MKSTREAM"),
    ("ensure", "XGROUP CREATE @redelivery % 0 MKSTREAM"),
    ("ensure", "XINFO GROUPS @stream"),
    ("publish", "XADD @stream * event x"),
    ("publish", "HSET @ids x x"),
    ("fetch", "XREADGROUP GROUP % doctor STREAMS @stream >"),
    ("fetch", "XREADGROUP GROUP % doctor STREAMS @redelivery >"),
    ("tend", "HSET @position x x"),
    ("tend", "HDEL @position x"),
    ("tend", "HSET @wishes x x"),
    ("tend", "HDEL @wishes x"),
    ("look_up", "HMGET @seen x"),
    ("look_up", "HGETALL @inbox"),
    ("look_up", "HGETALL @state"),
    ("settle", "XPENDING @stream % - + 1 doctor"),
    ("settle", "XACK @stream % 0-1"),
    ("settle", "XACK @redelivery % 0-1"),
    ("settle", "XDEL @redelivery 0-1"),
    ("settle", "GET @receipt"),
    ("settle", "SET @receipt x PX 1"),
    ("settle", "HSET @seen x x"),
    ("settle", "HSET @inbox x x"),
    ("settle", "HDEL @inbox x"),
    ("settle", "PEXPIRE @inbox 1"),
    ("settle", "PEXPIRE @seen 1"),
    ("settle", "UNLINK @seen"),
    ("settle", "HINCRBY @stats committed 1"),
    ("settle", "HSET @stats x 1"),
    ("settle", "HGET @stats x"),
    ("settle", "ZCARD @due"),
    ("settle", "HDEL @stats x"),
    ("settle", "HGETALL @stats"),
    ("settle", "HSET @state v 1"),
    ("settle", "HDEL @state x"),
    ("settle", "ZADD @index 0 x"),
    ("settle", "ZADD @due 0 x"),
    ("settle", "HSET @bodies x x"),
    ("settle", "ZADD @timers 0 x"),
    ("settle", "XADD @dead * class x"),
    ("settle", "XDEL @dead 0-1"),
    ("settle", "XRANGE @dead - +"),
    ("settle", "XADD @unrun 0-1 bytes 1"),
    ("settle", "XRANGE @unrun - +"),
    ("settle", "XDEL @unrun 0-1"),
    ("settle", "UNLINK @unrun"),
    ("promote", "ZRANGEBYSCORE @due -inf 0"),
    ("promote", "ZRANGE @due 0 0"),
    ("promote", "HGET @bodies x"),
    ("promote", "ZREM @due x"),
    ("promote", "HSET @stats x 1"),
    ("promote", "ZREM @timers x"),
    ("promote", "HDEL @bodies x"),
    ("promote", "XADD @redelivery * x x"),
    ("takeover", "XCLAIM @stream % doctor 0 0-1"),
    ("takeover", "HGET @crashes x"),
    ("takeover", "HSET @crashes x 1"),
    ("takeover", "SET @reclaimer x PX 1"),
    ("takeover", "GET @reclaimer"),
    ("takeover", "PTTL @heartbeat"),
    ("takeover", "PEXPIRE @heartbeat 1"),
    ("takeover", "PTTL @reclaimer"),
    ("takeover", "PEXPIRE @reclaimer 1"),
    ("settle", "XCLAIM @stream % doctor 0 0-1"),
    ("settle", "HDEL @crashes x"),
    ("reap_consumers", "XINFO CONSUMERS @stream %"),
    ("reap_consumers", "XGROUP DELCONSUMER @stream % doctor"),
    ("replay", "XDEL @dead 0-1"),
    ("replay", "XADD @audit MAXLEN = 1 * verb x"),
    ("replay", "XRANGE @dead - +"),
    ("trim", "XTRIM @stream MINID 0"),
    ("status", "XINFO STREAM @stream"),
    ("status", "HMGET @stats base"),
    ("heartbeat", "SET @heartbeat x PX 1"),
    ("heartbeat", "ZADD @hosts 0 x"),
    ("heartbeat", "ZREMRANGEBYSCORE @hosts -inf 0"),
    ("heartbeat", "DEL @heartbeat"),
    ("start", "SET @ids-key x NX"),
    ("start", "GET @ids-key"),
    (GATE, "GET @rewritten"),
    (GATE, "SET @rewritten x"),
    (GATE, "BGREWRITEAOF"),
];

/// The job that is done only where it is allowed: see `aof_guard.rs`.
const GATE: &str = "aof_guard";

impl Redis {
    /// Asks about all commands on the keys of these subscriptions.
    pub(super) async fn ask_for_rights(&self, subscriptions: &[Subscription]) -> Vec<Finding> {
        let mut denied: Vec<Finding> = Vec::new();
        for (number, subscription) in subscriptions.iter().enumerate() {
            match self.denied(subscription).await {
                Ok(rows) => {
                    // The guard is one for all of them.
                    let rows = rows.into_iter().filter(|((job, _), _)| number == 0 || *job != GATE);
                    denied.extend(rows.map(|(row, known)| refusal(subscription, row, known)));
                }
                // It would be the same for every subscription.
                Err(error) => return vec![of_error("rights", &error)],
            }
        }
        denied
    }

    /// The rows of [`COMMANDS`] that this user may not run on the keys of a subscription; and whether the server knows
    /// the command.
    async fn denied(&self, subscription: &Subscription) -> Result<Vec<(&'static (&'static str, &'static str), bool)>> {
        let mut call = DoctorAclArgs {}.call();
        for (_, command) in COMMANDS {
            call.cmd.arg(spelled(command, subscription).join("\u{1f}"));
        }
        let mut denied = Vec::new();
        for number in value::array(self.run_script(&call, subscription).await?)? {
            let at = usize::try_from(value::count(&number)?).unwrap_or_default();
            let row = at.checked_sub(1).and_then(|at| COMMANDS.get(at % COMMANDS.len()));
            denied.extend(row.map(|row| (row, at <= COMMANDS.len())));
        }
        Ok(denied)
    }

    /// Does everything that hosts do to a scratch stream, with the user of this connection.
    pub(super) async fn try_rights(&self) -> Vec<Finding> {
        let scratch =
            Subscription { stream: format!("tidemill-doctor-{}", Uuid::new_v4()).into(), handler: "doctor".into() };
        let token = Uuid::new_v4();
        let lived = self.live(&scratch, token).await;
        let removed = self.remove_scratch(&scratch, token).await;
        let mut found = Vec::new();
        match lived {
            Ok(()) => found.push(finding::good("rights", "the scripts run with this user, tried on a scratch stream")),
            Err((job, error)) => {
                let mut finding = of_error("rights", &error);
                finding.text = format!("{job}, tried on a scratch stream: {}", finding.text);
                found.push(finding);
            }
        }
        if let Err(error) = removed {
            let mut finding = of_error("rights", &error);
            finding.text = format!("the scratch stream could not be removed: {}", finding.text);
            finding.hint = format!("remove the keys that begin with {{{}}} and that stream", scratch.stream);
            found.push(finding);
        }
        found
    }

    /// From creating the group to deregistering its consumer; the error comes with the job that failed.
    async fn live(
        &self,
        scratch: &Subscription,
        token: Uuid,
    ) -> std::result::Result<(), (&'static str, tidemill_storage::Error)> {
        let at = |job: &'static str| move |error| (job, error);
        let (consumer, none) = (consumer_of(token), Default::default());
        self.say_alive(&consumer, Duration::from_secs(60), "").await.map_err(at("heartbeat"))?;
        self.make_group(scratch, Start::Beginning, None).await.map_err(at("ensure"))?;
        let new = |_| NewEntry { body: "{}".into(), dedup_key: Some((Uuid::new_v4(), [0; 16])) };
        let entries: Vec<NewEntry> = (0..3).map(new).collect();
        self.publish_all(&scratch.stream, &entries).await.map_err(at("publish"))?;
        let mut got = Vec::new();
        // Each queue has half of what is asked for.
        while got.len() < entries.len() {
            let some = self.fetch_batch(scratch, &consumer, 8, Duration::ZERO).await.map_err(at("fetch"))?.deliveries;
            if some.is_empty() {
                let cause = "the entries that were published did not come".to_owned();
                return Err(("fetch", tidemill_storage::Error::Unavailable { what: "a scratch stream".into(), cause }));
            }
            got.extend(some);
        }
        self.read_inbox_and_state(scratch, &[token], &["key".into()]).await.map_err(at("look_up"))?;
        let entries = got.into_iter().zip(0..).map(|(delivery, number)| step(delivery, number, scratch)).collect();
        let settlement = Settlement {
            subscription: scratch.clone(),
            consumer: consumer.as_str().into(),
            plugin: "".into(),
            token,
            entries,
        };
        self.settle(&settlement).await.map_err(at("settle"))?;
        self.promote_due(scratch, 2).await.map_err(at("promote"))?;
        let dead = self.list_dead(scratch, None, 1).await.map_err(at("dead letters"))?;
        let ids: Vec<_> = dead.iter().map(|letter| letter.id).collect();
        self.replay_letters(scratch, &ids, &Operator::default()).await.map_err(at("replay"))?;
        self.recover_some(scratch, &consumer, &none, Duration::from_secs(60), 1).await.map_err(at("takeover"))?;
        self.look_after(scratch, &consumer, "{}", Duration::ZERO).await.map_err(at("tend"))?;
        self.read_counters(scratch).await.map_err(at("status"))?;
        let bounds = Bounds { maxlen: Some(0), ..Bounds::default() };
        self.trim_stream(&scratch.stream, &bounds).await.map_err(at("trim"))?;
        self.deregister_consumer(&consumer, std::slice::from_ref(scratch)).await.map_err(at("deregister"))?;
        Ok(())
    }

    async fn remove_scratch(&self, scratch: &Subscription, token: Uuid) -> Result<()> {
        let (keys, consumer) = (Keys::of(scratch), consumer_of(token));
        self.readers.close(&consumer);
        self.witness.forget(scratch);
        let mut cmd = redis::cmd("UNLINK");
        for key in
            [keys.stream(), keys.redelivery(), keys.due(), keys.due_bodies(), keys.dead(), keys.crashes(), keys.stats()]
        {
            cmd.arg(key);
        }
        cmd.arg(keys.state_index())
            .arg(keys.reclaimer())
            .arg(keys.audit())
            .arg(keys.timers())
            .arg(keys.position())
            .arg(keys.wishes())
            .arg(keys.unrun())
            .arg(keys.state_prefix() + "key")
            .arg(keys.receipt(token));
        // The buckets of both inboxes are numbered by the server's time.
        let bucket = self.server_ms().await? / self.inbox_window_ms();
        for base in [keys.seen(), keys::published_ids(&scratch.stream)] {
            cmd.arg(&base);
            for number in bucket.saturating_sub(1)..=bucket + 1 {
                cmd.arg(format!("{base}:{number}"));
            }
        }
        self.run(&cmd, scratch).await?;
        // In another slot.
        self.run(redis::cmd("UNLINK").arg(keys::heartbeat(&consumer)), scratch).await?;
        Ok(())
    }

    /// The server's clock.
    pub(super) async fn server_ms(&self) -> Result<u64> {
        let [seconds, micros]: [Value; 2] = value::tuple(self.run(&redis::cmd("TIME"), &"TIME").await?)?;
        Ok(value::count(&seconds)? * 1000 + value::count(&micros)? / 1000)
    }
}

fn consumer_of(token: Uuid) -> String {
    format!("doctor-{token}")
}

/// One entry is committed with an effect of each kind, one retried at once, one given up.
fn step(delivery: Delivery, number: u32, scratch: &Subscription) -> SettlementEntry {
    let (class, reason, plugin) = ("failed".to_owned(), "tried by doctor".to_owned(), String::new());
    let record = AttemptRecord { attempt: 1, at_ms: 0, class, reason, plugin, log: Vec::new() };
    let disposition = match number {
        0 => Disposition::Commit(Effects {
            emits: vec![Emitted { stream: scratch.stream.clone(), body: "{}".into() }],
            writes: [("name".to_owned(), Some("value".into()))].into(),
            timers: vec![Timer { after: Duration::ZERO, body: "{}".into() }],
        }),
        1 => Disposition::Retry { after: Duration::ZERO, record },
        _ => Disposition::DeadLetter {
            // One that never ran: then all that is done to a letter is tried.
            reason: Reason { class: ReasonClass::Unknown, text: "tried by doctor".into() },
            record: None,
        },
    };
    let state = (number == 0).then(|| ("key".into(), 0));
    let dedup_key = (number == 0).then(|| (Uuid::new_v4(), [0; 16]));
    SettlementEntry { delivery, dedup_key, state, disposition }
}

/// `mischief on orders: trim needs XTRIM on orders, which this user may not`
fn refusal(subscription: &Subscription, (job, command): &(&str, &str), known: bool) -> Finding {
    let words = || command.split(' ');
    let key = spelled(command, subscription).into_iter().zip(words()).find(|(_, word)| word.starts_with('@'));
    let key = key.map(|(key, _)| format!(" on {key}")).unwrap_or_default();
    // XGROUP and XINFO have a second word.
    let name: Vec<&str> =
        words().take_while(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase())).collect();
    let why = if known {
        "which this user may not"
    } else {
        "which this server does not know: it is renamed or switched off"
    };
    let text = format!("{subscription}: {job} needs {}{key}, {why}", name.join(" "));
    if *job == GATE {
        return finding::warning(
            "rights",
            format!(
                "{text}. Hosts work without it, and cannot have the append-only file rewritten after a start of the \
                 server: a power cut in the middle of a script may then leave it torn"
            ),
            "ask who runs the server whether its append-only file is refused when its end is torn (aof-load-truncated \
             no); where you run it yourself: ACL SETUSER +bgrewriteaof ~{tm}:*",
        );
    }
    let hint = if known {
        "ACL SETUSER: +@stream +@hash +@sortedset +@string +@scripting +@keyspace +bgrewriteaof, and the keys of the \
         streams: ~NAME ~{NAME}:tm:* ~{tm}:*"
    } else {
        "ask who runs the server: without this command hosts cannot work on it"
    };
    finding::bad("rights", text, hint)
}

/// A row of [`COMMANDS`] with the names of this subscription in it.
fn spelled(command: &str, subscription: &Subscription) -> Vec<String> {
    let keys = Keys::of(subscription);
    let word = |word: &str| match word {
        "@stream" => keys.stream(),
        "@redelivery" => keys.redelivery(),
        "@due" => keys.due(),
        "@timers" => keys.timers(),
        "@bodies" => keys.due_bodies(),
        "@dead" => keys.dead(),
        "@unrun" => keys.unrun(),
        "@crashes" => keys.crashes(),
        "@stats" => keys.stats(),
        "@index" => keys.state_index(),
        "@state" => keys.state_prefix() + "key",
        "@position" => keys.position(),
        "@wishes" => keys.wishes(),
        "@inbox" => keys.seen(),
        "@seen" => keys.seen() + ":0",
        "@ids" => keys::published_ids(&subscription.stream) + ":0",
        "@receipt" => keys.receipt(Uuid::nil()),
        "@audit" => keys.audit(),
        "@reclaimer" => keys.reclaimer(),
        "@hosts" => keys::HOSTS.to_owned(),
        "@ids-key" => keys::IDS_KEY.to_owned(),
        "@rewritten" => keys::REWRITTEN.to_owned(),
        "@heartbeat" => keys::heartbeat("doctor"),
        "%" => subscription.handler.to_string(),
        other => other.to_owned(),
    };
    command.split(' ').map(word).collect()
}
