//! How small and how large each number of the configuration may be: below the one nothing could work, above the other the
//! host could not keep what it promises of memory and time. What is outside is refused before the host starts.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use super::Check;
use crate::{Config, HandlerConfig, StreamConfig};
use tidemill_core::limits;
use tidemill_schema::event::HOPS_MOST;

#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Amount {
    Count(u64),
    Bytes(u64),
    Time(Duration),
    /// A part of a whole, or how many times as much.
    Ratio(f64),
}

use Amount::{Bytes, Count, Ratio, Time};

/// One number: its key, where it is found (none: it is not set), and the least and the most that it may be.
struct Row<T> {
    key: &'static str,
    of: fn(&T) -> Option<Amount>,
    least: Amount,
    most: Amount,
    hint: &'static str,
}

const fn row<T>(
    key: &'static str,
    of: fn(&T) -> Option<Amount>,
    least: Amount,
    most: Amount,
    hint: &'static str,
) -> Row<T> {
    Row { key, of, least, most, hint }
}

const fn bytes(size: ByteSize) -> Amount {
    Bytes(size.0)
}

const NONE: Amount = Count(0);
const ONE: Amount = Count(1);
const NO_BYTES: Amount = Bytes(0);
const AT_ONCE: Amount = Time(Duration::ZERO);
const MILLISECOND: Amount = Time(Duration::from_millis(1));
const SECOND: Amount = Time(Duration::from_secs(1));
const HOUR: Amount = days(1, 24);
/// Half an event in a million.
const SMALL: Amount = Ratio(0.0000005);
/// What one event, one value or one answer may be, whatever it is.
const LARGE: Amount = bytes(limits::PAYLOAD_BYTES_MOST);
/// Enough for any one attempt.
const MANY: Amount = Count(10_000);
const MILLION: Amount = Count(1_000_000);

/// So many days, divided.
const fn days(days: u64, divided: u64) -> Amount {
    Time(Duration::from_secs(days * 86_400 / divided))
}

/// Of the whole file.
const CONFIG: &[Row<Config>] = &[
    row("host.workers", |c| Some(Count(c.host.workers as u64)), NONE, Count(1_024), "0 = one for each core"),
    row("host.io_workers", |c| Some(Count(c.host.io_workers as u64)), ONE, Count(limits::IO_WORKERS_MAX as u64), ""),
    row("host.batch", |c| Some(Count(c.host.batch as u64)), ONE, Count(limits::BATCH_MAX as u64), ""),
    row(
        "host.payload_bytes_max",
        |c| Some(bytes(c.host.payload_bytes_max)),
        bytes(limits::PAYLOAD_BYTES_LEAST),
        bytes(limits::PAYLOAD_BYTES_MOST),
        "an envelope without data takes some 300 bytes; what is larger than the most belongs into a store, and its address \
         into the event",
    ),
    row(
        "host.fetch_bytes_max",
        |c| Some(bytes(c.host.fetch_bytes_max)),
        bytes(ByteSize::mib(1)),
        bytes(ByteSize::gib(16)),
        "each worker of a handler on a stream has a part of it, and room for one event in any case",
    ),
    row("host.timers_max", |c| Some(Count(c.host.timers_max)), ONE, Count(100_000_000), ""),
    row("idempotency.window", |c| Some(Time(c.idempotency.window)), SECOND, days(366, 1), ""),
    row(
        "plugins.component_bytes_max",
        |c| Some(bytes(c.plugins.component_bytes_max)),
        bytes(ByteSize::kib(1)),
        bytes(ByteSize::gib(1)),
        "",
    ),
    row("plugins.cache_bytes_max", |c| Some(bytes(c.plugins.cache_bytes_max)), NO_BYTES, bytes(ByteSize::tib(1)), ""),
    row(
        "plugins.compile_memory",
        |c| Some(bytes(c.plugins.compile_memory)),
        bytes(ByteSize::mib(16)),
        bytes(ByteSize::tib(1)),
        "",
    ),
    row("plugins.compile_cpu", |c| Some(Time(c.plugins.compile_cpu)), SECOND, HOUR, ""),
    row("plugins.compile_wall", |c| Some(Time(c.plugins.compile_wall)), MILLISECOND, HOUR, ""),
    row("plugins.stack", |c| Some(bytes(c.plugins.stack)), bytes(limits::STACK_MIN), bytes(limits::STACK_MAX), ""),
    row(
        "plugins.generations",
        |c| Some(Count(c.plugins.generations as u64)),
        ONE,
        Count(limits::GENERATIONS_MAX as u64),
        "",
    ),
];

/// Of each stream.
const STREAM: &[Row<StreamConfig>] = &[
    // Scripts on Redis count in doubles, which are exact up to here.
    row("maxlen", |s| s.maxlen.map(Count), ONE, Count(1 << 53), "leave the key out for no bound"),
    row("retention", |s| s.retention.map(Time), SECOND, days(36_500, 1), "leave the key out for no bound"),
];

/// Of each handler.
const HANDLER: &[Row<HandlerConfig>] = &[
    row("deadline", |h| Some(Time(h.deadline)), MILLISECOND, Time(limits::DEADLINE_MAX), ""),
    row(
        "retry.max",
        |h| Some(Count(h.retry.max.into())),
        NONE,
        Count(limits::RETRIES_MAX as u64),
        "to wait for longer, raise retry.base or retry.cap: the waits grow up to the cap",
    ),
    row("retry.base", |h| Some(Time(h.retry.base)), AT_ONCE, days(30, 1), ""),
    row("retry.factor", |h| Some(Ratio(h.retry.factor)), Ratio(1.0), Ratio(100.0), "2 doubles each wait"),
    row("retry.cap", |h| Some(Time(h.retry.cap)), AT_ONCE, days(30, 1), ""),
    row(
        "breaker.failure_rate",
        |h| Some(Ratio(h.breaker.failure_rate)),
        SMALL,
        Ratio(2.0),
        "0.5 opens when half of the attempts fail; 2 never opens",
    ),
    row("breaker.min_events", |h| Some(Count(h.breaker.min_events.into())), ONE, MILLION, ""),
    row("breaker.open_for", |h| Some(Time(h.breaker.open_for)), MILLISECOND, days(1, 1), ""),
    row(
        "canary.share",
        |h| h.canary.as_ref().map(|c| Ratio(c.share)),
        SMALL,
        Ratio(1.0),
        "0.1 tries it on a tenth of the keys",
    ),
    row(
        "canary.failure_rate",
        |h| h.canary.as_ref().map(|c| Ratio(c.failure_rate)),
        SMALL,
        Ratio(1.0),
        "0.05 bears 5 in 100 more",
    ),
    row(
        "canary.slower",
        |h| h.canary.as_ref().map(|c| Ratio(c.slower)),
        Ratio(1.0),
        Ratio(1000.0),
        "3 bears calls that take three times as long",
    ),
    row("canary.min_events", |h| h.canary.as_ref().map(|c| Count(c.min_events.into())), ONE, MILLION, ""),
    row("canary.min_time", |h| h.canary.as_ref().map(|c| Time(c.min_time)), Time(Duration::ZERO), days(30, 1), ""),
    row(
        "instance_events_max",
        |h| Some(Count(h.instance_events_max.into())),
        ONE,
        Count(u32::MAX as u64),
        "1 makes a fresh instance for each event",
    ),
    row(
        "limits.memory",
        |h| Some(bytes(h.limits.memory)),
        bytes(ByteSize::kib(64)),
        bytes(limits::GUEST_MEMORY_MAX),
        "memory comes in pages of 64 KiB",
    ),
    row("limits.tables", |h| Some(Count(h.limits.tables as u64)), ONE, Count(limits::GUEST_TABLES_MAX as u64), ""),
    row(
        "limits.hostcall_bytes",
        |h| Some(bytes(h.limits.hostcall_bytes)),
        bytes(ByteSize::kib(1)),
        bytes(limits::HOSTCALL_BYTES_MAX),
        "",
    ),
    row("limits.host_calls", |h| Some(Count(h.limits.host_calls.into())), ONE, Count(1_000_000_000), ""),
    row("limits.handles", |h| Some(Count(h.limits.handles as u64)), NONE, MILLION, ""),
    row("limits.emits", |h| Some(Count(h.limits.emits as u64)), NONE, MANY, ""),
    row("limits.emit_bytes", |h| Some(bytes(h.limits.emit_bytes)), NO_BYTES, LARGE, ""),
    row("limits.hops", |h| Some(Count(h.limits.hops.into())), ONE, Count(HOPS_MOST as u64), ""),
    row("limits.state", |h| Some(bytes(h.limits.state)), NO_BYTES, LARGE, ""),
    row("limits.state_total", |h| Some(bytes(h.limits.state_total)), NO_BYTES, LARGE, ""),
    row("limits.timers", |h| Some(Count(h.limits.timers as u64)), NONE, MANY, ""),
    row("limits.timer_bytes", |h| Some(bytes(h.limits.timer_bytes)), NO_BYTES, LARGE, ""),
    row("limits.timer_wait", |h| Some(Time(h.limits.timer_wait)), Time(Duration::ZERO), days(36_500, 1), ""),
    row("limits.log_lines", |h| Some(Count(h.limits.log_lines.into())), NONE, MANY, ""),
    row("limits.log_lines_per_second", |h| Some(Count(h.limits.log_lines_per_second.into())), NONE, MILLION, ""),
    row("limits.log_bytes", |h| Some(bytes(h.limits.log_bytes)), NO_BYTES, bytes(ByteSize::mib(1)), ""),
    row("limits.http_requests", |h| Some(Count(h.limits.http_requests.into())), NONE, MANY, ""),
    row("limits.http_request_bytes", |h| Some(bytes(h.limits.http_request_bytes)), NO_BYTES, LARGE, ""),
    row("limits.http_response_bytes", |h| Some(bytes(h.limits.http_response_bytes)), NO_BYTES, LARGE, ""),
    row(
        "limits.io_calls",
        |h| Some(Count(h.limits.io_calls as u64)),
        ONE,
        Count(limits::IO_WORKERS_MAX as u64),
        "1 makes one call at a time",
    ),
];

impl Check<'_> {
    pub(super) fn config_ranges(&mut self) {
        self.ranges("", CONFIG, self.config);
    }

    pub(super) fn stream_ranges(&mut self, name: &str, stream: &StreamConfig) {
        self.ranges(&format!("streams.{name}."), STREAM, stream);
    }

    pub(super) fn handler_ranges(&mut self, name: &str, handler: &HandlerConfig) {
        self.ranges(&format!("handlers.{name}."), HANDLER, handler);
    }

    fn ranges<T>(&mut self, table: &str, rows: &[Row<T>], of: &T) {
        for Row { key, of: value, least, most, hint } in rows {
            // Not a number is in no range.
            if value(of).is_some_and(|value| !(*least..=*most).contains(&value)) {
                let dash = if hint.is_empty() { "" } else { "; " };
                self.find(format!("{table}{key}"), "out of range", format!("{least} to {most}{dash}{hint}"));
            }
        }
    }
}

/// As it is written in the file.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count(count) => write!(f, "{count}"),
            Bytes(size) => {
                let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
                match units.into_iter().find(|(shift, _)| *size > 0 && size % (1 << shift) == 0) {
                    Some((shift, unit)) => write!(f, "{}{unit}", size >> shift),
                    None => write!(f, "{size}B"),
                }
            }
            Time(time) if time.subsec_nanos() == 0 => {
                let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
                let seconds = time.as_secs();
                match units.into_iter().find(|(unit, _)| seconds > 0 && seconds % unit == 0) {
                    Some((unit, name)) => write!(f, "{}{name}", seconds / unit),
                    None => write!(f, "{seconds}s"),
                }
            }
            Time(time) => write!(f, "{}", humantime::format_duration(*time)),
            Ratio(ratio) => write!(f, "{ratio}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::read::parse;
    use tidemill_schema::Registry;

    /// These have a check of their own.
    const ELSEWHERE: [&str; 2] = ["host.dead_letters_max", "host.dead_letters_bytes_max"];

    /// Every row: its key, and its ends as they are shown.
    fn rows() -> Vec<(String, Amount, Amount)> {
        let config = CONFIG.iter().map(|row| (row.key.to_owned(), row.least, row.most));
        let stream = STREAM.iter().map(|row| (format!("streams.NAME.{}", row.key), row.least, row.most));
        let handler = HANDLER.iter().map(|row| (format!("handlers.NAME.{}", row.key), row.least, row.most));
        config.chain(stream).chain(handler).collect()
    }

    /// The keys of all numbers that the structs of the configuration hold.
    fn numbers() -> Vec<String> {
        let tables = [
            ("StreamConfig", "streams.NAME."),
            ("Idempotency", "idempotency."),
            ("HostConfig", "host."),
            ("PluginsConfig", "plugins."),
            ("HandlerConfig", "handlers.NAME."),
            ("RetryPolicy", "handlers.NAME.retry."),
            ("BreakerPolicy", "handlers.NAME.breaker."),
            ("CanaryPolicy", "handlers.NAME.canary."),
            ("Limits", "handlers.NAME.limits."),
        ];
        let numeric = ["usize", "u32", "u64", "f64", "ByteSize", "Duration", "Option<u64>", "Option<Duration>"];
        let (mut keys, mut table) = (Vec::new(), None);
        let files = [
            include_str!("../lib.rs"),
            include_str!("../handler.rs"),
            include_str!("../../../core/src/policy/retry.rs"),
            include_str!("../../../core/src/policy/breaker.rs"),
            include_str!("../../../core/src/policy/canary.rs"),
        ];
        // Of the policies' files, what is no part of the configuration has no table.
        let of_policy = |at: usize| at >= 2;
        for (at, line) in files.iter().enumerate().flat_map(|(at, text)| text.lines().map(move |line| (at, line))) {
            if let Some(name) = line.strip_prefix("pub struct ") {
                table = tables.iter().find(|(known, _)| name.strip_suffix(" {") == Some(known)).map(|(_, at)| *at);
            }
            let field = line.strip_prefix("    pub ").and_then(|field| field.strip_suffix(',')?.split_once(": "));
            if let Some((name, kind)) = field
                && numeric.contains(&kind)
            {
                assert!(table.is_some() || of_policy(at), "the table of {name} is not known here");
                keys.extend(table.map(|table| format!("{table}{name}")));
            }
        }
        keys
    }

    #[test]
    fn every_number_has_a_range() {
        let mut wanted = numbers();
        wanted.retain(|key| !ELSEWHERE.contains(&&**key));
        let mut found: Vec<String> = rows().into_iter().map(|(key, ..)| key).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_guide_has_every_range() {
        let page = include_str!("../../../../docs/guides/limits.md");
        let wanted: Vec<String> =
            rows().iter().map(|(key, least, most)| format!("| `{key}` | {least} | {most} |")).collect();
        let missing: Vec<&String> = wanted.iter().filter(|row| !page.contains(&format!("\n{row}\n"))).collect();
        assert!(missing.is_empty(), "docs/guides/limits.md lacks these rows: {missing:#?}");
    }

    /// Whether this value of this key is out of range.
    fn refused(key: &str, value: &str) -> bool {
        let key = key.replace("NAME", "a");
        let (table, name) = key.rsplit_once('.').unwrap();
        // A table that has to be there, and the one of the key.
        let needed =
            [("streams.a", "events = [\"*\"]"), ("handlers.a", "plugin = \"a\"\nevents = [\"Order.Created\"]")];
        let mut text: String = needed
            .iter()
            .map(|(at, lines)| {
                let line = if *at == table { format!("{name} = {value}\n") } else { String::new() };
                format!("[{at}]\n{lines}\n{line}")
            })
            .collect();
        if needed.iter().all(|(at, _)| *at != table) {
            text += &format!("[{table}]\n{name} = {value}\n");
        }
        let mut schemas = Registry::default();
        schemas.add("Order.Created.v1", "{}").unwrap();
        let config = parse(&text, Path::new("t.toml"), "".into(), &[]).unwrap_or_else(|error| panic!("{text}{error}"));
        let found = crate::check::check(&config, &schemas);
        found.iter().any(|finding| finding.key == key && finding.what == "out of range" && !finding.warning)
    }

    /// Reaches `CONFIG`, `STREAM` and `HANDLER`, row by row; and what ends them: `PAYLOAD_BYTES_LEAST`,
    /// `PAYLOAD_BYTES_MOST`, `IO_WORKERS_MAX`, `DEADLINE_MAX`, `BATCH_MAX`, `RETRIES_MAX`, `GUEST_MEMORY_MAX`,
    /// `GUEST_TABLES_MAX`, `STACK_MIN`, `STACK_MAX`, `HOSTCALL_BYTES_MAX`, `GENERATIONS_MAX` and `NO_BYTES`.
    #[test]
    fn both_ends_are_taken_and_nothing_beyond() {
        let written = |amount: Amount| match amount {
            Count(count) => count.to_string(),
            Ratio(ratio) => format!("{ratio:?}"),
            other => format!("\"{other}\""),
        };
        let nanosecond = Duration::from_nanos(1);
        for (key, least, most) in rows() {
            let (below, above) = match (least, most) {
                (Count(least), Count(most)) => (least.checked_sub(1).map(Count), Some(Count(most + 1))),
                (Bytes(least), Bytes(most)) => (least.checked_sub(1).map(Bytes), Some(Bytes(most + 1))),
                (Time(least), Time(most)) => (least.checked_sub(nanosecond).map(Time), Some(Time(most + nanosecond))),
                (Ratio(least), Ratio(most)) => (Some(Ratio(least * 0.9)), Some(Ratio(most * 1.1))),
                other => panic!("{key}: {other:?} are of two kinds"),
            };
            for good in [least, most] {
                assert!(!refused(&key, &written(good)), "{key} = {good}");
            }
            // A number of 32 bits has no place for more.
            for bad in [below, above].into_iter().flatten().filter(|bad| *bad != Count(1 << 32)) {
                assert!(refused(&key, &written(bad)), "{key} = {bad}");
            }
        }
        assert!(refused("handlers.NAME.retry.factor", "nan") && refused("handlers.NAME.canary.share", "0"));
    }
}
