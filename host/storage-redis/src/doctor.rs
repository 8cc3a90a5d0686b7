//! `doctor` on Redis: the server's settings, known bugs, and clock; then rights (`doctor_acl`) and streams
//! (`doctor_streams`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::server::{Info, POLICY_HINT, SAFE_POLICY};
use super::{Redis, doctor_versions, value};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::finding::{bad, good, short, warning};
use tidemill_storage::{Error, Finding, Result};

/// Clocks that differ by less are as good as equal to people who compare logs.
const SKEW_MAX: Duration = Duration::from_secs(1);
/// Shares of the memory from which on it is worth a warning, and is nearly used up.
const MEMORY_WARNING: f64 = 0.8;
const MEMORY_BAD: f64 = 0.95;
/// The share of `maxmemory` that all dead letters together may be allowed to take.
const LETTERS_SHARE: f64 = 0.5;
/// A replica that is further behind is none to fail over to.
const REPLICA_BYTES_MAX: u64 = 10 << 20;
const REPLICA_SILENCE_MAX: u64 = 10;

/// Settings that INFO does not report.
type Settings = HashMap<String, String>;

impl Redis {
    pub(super) async fn diagnose_server(
        &self,
        subscriptions: &[Subscription],
        targets: &[Arc<str>],
    ) -> Result<Vec<Finding>> {
        let info = Info::read(&self.link, &self.at).await?;
        let (settings, unasked) = self.settings().await?;
        let version = info.version();
        let mut found = vec![good(
            "server",
            format!("{} {} at {}, run id {}", version.kind(), version.text, self.at, info.fact("run_id")),
        )];
        let cut_when_torn = settings.get("aof-load-truncated").is_none_or(|set| set == "yes");
        found.extend(doctor_versions::known(&version, info.fact("aof_enabled") == "1" && cut_when_torn));
        found.push(eviction(&info));
        found.push(memory(&info));
        found.extend(room_for_letters(&info, subscriptions.len() as u64, self.options.dead_letters_bytes_max));
        found.extend(room_for_timers(&info, self.options.timers_bytes));
        found.extend(unasked.map(|why| settings_unknown(&why)));
        found.push(durability(&info, &settings));
        found.extend(persistence(&info));
        found.extend(replication(&info));
        found.push(self.clock().await?);
        if !subscriptions.is_empty() {
            let denied = self.ask_for_rights(subscriptions).await;
            let all_allowed = denied.is_empty();
            found.extend(denied);
            found.extend(self.try_rights().await.into_iter().filter(|finding| all_allowed || !finding.hint.is_empty()));
            match self.diagnose_streams(subscriptions, targets).await {
                Ok(streams) => found.extend(streams),
                Err(error) => found.push(of_error("streams", &error)),
            }
        }
        Ok(found)
    }

    /// Empty where CONFIG is forbidden or renamed, as on many managed servers; and the error text of that.
    async fn settings(&self) -> Result<(Settings, Option<String>)> {
        let mut settings = Settings::new();
        for name in ["appendfsync", "save", "min-replicas-to-write", "aof-load-truncated"] {
            let mut cmd = redis::cmd("CONFIG");
            cmd.arg("GET").arg(name);
            match self.run(&cmd, &"CONFIG").await {
                Ok(answer) => {
                    if let [_, setting] = &value::array(answer)?[..] {
                        settings.insert(name.to_owned(), value::text(setting.clone())?);
                    }
                }
                Err(Error::Permanent(text)) => {
                    let why = text.lines().next().unwrap_or_default().to_owned();
                    return Ok((Settings::new(), Some(why)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((settings, None))
    }

    async fn clock(&self) -> Result<Finding> {
        let asked = SystemTime::now();
        let theirs = Duration::from_millis(self.server_ms().await?);
        let took = asked.elapsed().unwrap_or_default();
        let ours = (asked + took / 2).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(clocks(ours, theirs, took))
    }
}

/// Half of the round trip is the uncertainty.
fn clocks(ours: Duration, theirs: Duration, round_trip: Duration) -> Finding {
    let skew = ours.abs_diff(theirs);
    if skew <= SKEW_MAX + round_trip {
        return good("clock", "this machine and the server agree on the time");
    }
    let which = if ours < theirs { "behind" } else { "ahead of" };
    warning(
        "clock",
        format!("this machine's clock is {} {which} the server's", humantime::format_duration(rounded(skew))),
        "run a time service (chrony, systemd-timesyncd) on both; Tidemill itself goes by the server's clock",
    )
}

/// A check that failed is a finding, too.
pub(super) fn of_error(check: &'static str, error: &Error) -> Finding {
    let text = error.to_string();
    match text.split_once("\n  hint: ") {
        Some((text, hint)) => bad(check, text, hint),
        None => bad(check, text, "hosts wait until this has passed; look at the server's log and at INFO"),
    }
}

fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What then has to be looked up elsewhere.
fn settings_unknown(why: &str) -> Finding {
    warning(
        "settings",
        format!("the server's settings cannot be asked: {why}"),
        "look them up where the server is run: appendfsync (always loses nothing, everysec up to two seconds), \
         aof-load-truncated (no), save, min-replicas-to-write; or let this user ask: ACL SETUSER .. +config|get",
    )
}

fn eviction(info: &Info) -> Finding {
    match info.fact("maxmemory_policy") {
        "" => warning(
            "eviction",
            "the server does not say what it does when its memory is full",
            "look up maxmemory-policy where the server is run: it has to be noeviction",
        ),
        SAFE_POLICY => good("eviction", "maxmemory-policy is noeviction"),
        policy => bad(
            "eviction",
            format!("the server throws data away when its memory is full: maxmemory-policy is {policy}"),
            POLICY_HINT,
        ),
    }
}

fn memory(info: &Info) -> Finding {
    let (used, max) = (info.number("used_memory"), info.number("maxmemory"));
    let (of, bound) = match max {
        0 => ("the machine's memory; maxmemory is not set", info.number("total_system_memory")),
        max => ("maxmemory", max),
    };
    let share = if bound == 0 { 0.0 } else { used as f64 / bound as f64 };
    let text = format!("{} MiB in use, {:.0} % of {of}", used >> 20, share * 100.0);
    let hint = "give it more memory, bound the streams (maxlen, retention), or look what fills it: tidemill status; \
                a full server takes no events, and hosts wait";
    match share {
        share if share >= MEMORY_BAD => bad("memory", text, hint),
        share if share >= MEMORY_WARNING => warning("memory", text, hint),
        _ => good("memory", text),
    }
}

/// Dead letters are taken when the memory is full: what they may take in all has to fit.
fn room_for_letters(info: &Info, subscriptions: u64, bytes_max: u64) -> Option<Finding> {
    let (max, wanted) = (info.number("maxmemory"), subscriptions.saturating_mul(bytes_max));
    (max > 0 && wanted as f64 > LETTERS_SHARE * max as f64).then(|| {
        warning(
            "dead letters",
            format!(
                "{subscriptions} subscriptions may keep {} MiB of dead letters, more than half of maxmemory, {} MiB",
                wanted >> 20,
                max >> 20
            ),
            "lower host.dead_letters_bytes_max, which each handler has for each of its streams, or raise maxmemory; a \
             server that is full of dead letters takes no events",
        )
    })
}

/// Handlers fill what they may, if an event can make them.
fn room_for_timers(info: &Info, wanted: u64) -> Option<Finding> {
    let max = info.number("maxmemory");
    (max > 0 && wanted as f64 > LETTERS_SHARE * max as f64).then(|| {
        warning(
            "timers",
            format!("handlers may set timers of {} MiB, more than half of maxmemory, {} MiB", wanted >> 20, max >> 20),
            "lower host.timers_max or the limits.timer_bytes of the handlers that set timers, or raise maxmemory",
        )
    })
}

/// What is left after the server, or its machine, has died.
fn durability(info: &Info, settings: &Settings) -> Finding {
    let setting = |name: &str| settings.get(name).map(String::as_str);
    let replicas: u64 = setting("min-replicas-to-write").and_then(|set| set.parse().ok()).unwrap_or(0);
    let replicated =
        if replicas > 0 { format!(", replicated ({replicas} replicas must be near)") } else { String::new() };
    let hint = match settings.is_empty() {
        true => "CONFIG cannot be used here: have it set where the server is run (appendonly yes, appendfsync always)",
        false => "CONFIG SET appendonly yes, CONFIG SET appendfsync always, and the same in redis.conf",
    };
    if info.fact("aof_enabled") != "1" {
        let snapshots = match setting("save") {
            Some("") => "nothing survives a restart",
            _ => "a restart goes back to the last snapshot, minutes ago",
        };
        return bad("durability", format!("volatile{replicated}: the append-only file is off, {snapshots}"), hint);
    }
    match setting("appendfsync") {
        Some("always") => good(
            "durability",
            format!("always{replicated}: what was acknowledged is on the disk; a failover may still lose the newest"),
        ),
        Some("everysec") => warning(
            "durability",
            format!(
                "everysec{replicated}: a crash may lose up to two seconds of acknowledged work, never half of a step"
            ),
            hint,
        ),
        Some(_) => warning(
            "durability",
            format!("volatile{replicated}: appendfsync is no, so a crash of the machine may lose half a minute"),
            hint,
        ),
        None => warning(
            "durability",
            "the append-only file is on, but appendfsync cannot be asked: with everysec, two seconds may be lost",
            "look up appendfsync where the server is run",
        ),
    }
}

/// Whether what should get to the disk does.
fn persistence(info: &Info) -> Vec<Finding> {
    let mut found = Vec::new();
    if info.fact("loading") == "1" {
        let hint = "wait; hosts do";
        found.push(warning("persistence", "the server is loading its data and answers nothing until then", hint));
    }
    let rows = [
        ("rdb_last_bgsave_status", "the last snapshot (BGSAVE) failed; the server may refuse writes (MISCONF)"),
        ("aof_last_write_status", "the append-only file could not be written; the server refuses writes (MISCONF)"),
        ("aof_last_bgrewrite_status", "the append-only file could not be rewritten, and grows"),
    ];
    for (fact, text) in rows {
        if info.fact(fact) == "err" {
            found.push(bad(
                "persistence",
                text,
                "look at the server's log, at the free space and the rights of its folder",
            ));
        }
    }
    if found.is_empty() {
        found.push(good("persistence", "the last writes to disk went well"));
    }
    found
}

fn replication(info: &Info) -> Vec<Finding> {
    if info.fact("role") == "slave" {
        let hint = "write the primary's address into the backend url";
        return vec![bad("replication", "this server is a replica: it takes no writes", hint)];
    }
    let mut found = Vec::new();
    for number in 0..info.number("connected_slaves") {
        let row: HashMap<&str, &str> =
            info.fact(&format!("slave{number}")).split(',').filter_map(|part| part.split_once('=')).collect();
        let number = |name: &str| row.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (behind, silent) = (info.number("master_repl_offset").saturating_sub(number("offset")), number("lag"));
        let place = format!("{}:{}", row.get("ip").unwrap_or(&"?"), row.get("port").unwrap_or(&"?"));
        let text = format!(
            "replica {place} is {} KiB behind, last ack {} ago",
            behind >> 10,
            short(Duration::from_secs(silent))
        );
        if behind > REPLICA_BYTES_MAX || silent > REPLICA_SILENCE_MAX {
            found.push(warning(
                "replication",
                text,
                "a failover now would lose that much: look at its network and load",
            ));
        } else {
            found.push(good("replication", text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_storage::Level;

    /// Reaches `SKEW_MAX`.
    #[test]
    fn clocks_that_differ_are_told() {
        let (now, round_trip) = (Duration::from_secs(1_700_000_000), Duration::from_millis(3));
        let most = SKEW_MAX + round_trip;
        for theirs in [now + most, now - most] {
            assert_eq!(clocks(now, theirs, round_trip).level, Level::Good);
        }
        let beyond = Duration::from_millis(1);
        for (theirs, said) in [(now + most + beyond, "behind the server's"), (now - most - beyond, "ahead of")] {
            let finding = clocks(now, theirs, round_trip);
            assert!(finding.level == Level::Warning && finding.text.contains(said), "{finding:?}");
        }
    }

    /// Reaches `REPLICA_BYTES_MAX` and `REPLICA_SILENCE_MAX`.
    #[test]
    fn a_replica_that_is_far_behind_is_told() {
        let level = |behind: u64, silent: u64| {
            let info = Info::of(&format!(
                "role:master\r\nconnected_slaves:1\r\nmaster_repl_offset:{}\r\n\
                 slave0:ip=10.0.0.2,port=6379,state=online,offset=1000,lag={silent}\r\n",
                1000 + behind
            ));
            replication(&info)[0].level
        };
        assert_eq!(level(REPLICA_BYTES_MAX, REPLICA_SILENCE_MAX), Level::Good);
        assert_eq!(level(REPLICA_BYTES_MAX + 1, 0), Level::Warning);
        assert_eq!(level(0, REPLICA_SILENCE_MAX + 1), Level::Warning);
    }
}
