//! What one row of bombs cost, the bounds that it is held to, and the table of the largest.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bombs::PAYLOAD_BYTES_MAX;

/// Log lines for one event that one handler refused, in bytes.
const LOG_BYTES_PER_REFUSAL_MAX: u64 = 4 << 10;
/// What a dead letter may have beside its event, in bytes (`DEAD_LETTER_EXTRA_BYTES`).
const LETTER_EXTRA_BYTES_MAX: usize = 64 << 10;
/// All of a dead letter, in bytes.
const LETTER_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + LETTER_EXTRA_BYTES_MAX;
/// What a host may take for each byte in flight, and in any case, in bytes: the aim of the guide on limits.
const MEMORY_PER_BYTE_MAX: u64 = 20;
const MEMORY_ANYWAY_BYTES_MAX: u64 = 64 << 20;
/// What a backend may grow by for each byte that is sent: the entry, a dead letter or an effect of each of four handlers, and
/// what its allocator rounds up.
const GROWTH_PER_BYTE_MAX: u64 = 8;
/// The same for each entry and handler, in bytes: ids, deduplication keys, accounts.
const GROWTH_PER_ENTRY_BYTES_MAX: u64 = 2 << 10;
/// The same in any case, in bytes: its buffers, and what the neighbours leave.
const GROWTH_ANYWAY_BYTES_MAX: u64 = 64 << 20;

const MIB: f64 = (1 << 20) as f64;

#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub(super) name: &'static str,
    pub(super) entries: u64,
    pub(super) sent_bytes: u64,
    /// `host.fetch_bytes_max`: what may be in flight.
    pub(super) fetch_bytes_max: u64,
    /// Above what the host took before the first bomb.
    pub(super) peak_bytes: u64,
    /// Above what it had when the row began: an allocator keeps some of what earlier rows took.
    pub(super) taken_bytes: u64,
    /// What a guest of the row's own may take of it (`limits.memory`).
    pub(super) guest_bytes: u64,
    pub(super) deaths: u64,
    pub(super) log_bytes: u64,
    /// Events that a handler did not commit: dead letters, what was evicted of them, and what was skipped.
    pub refusals: u64,
    /// Those still there when the row was over.
    pub(super) by_class: BTreeMap<&'static str, u64>,
    pub(super) letter_bytes_max: usize,
    pub(super) letter_extra_bytes_max: usize,
    pub(super) growth_bytes: u64,
    pub(super) handlers: u64,
    /// The most that lay in quarantine at a time.
    pub(super) quarantined: u64,
    /// Good orders that the notification service settled in a second.
    pub(super) rate_before: f64,
    pub(super) rate_during: f64,
    /// The longest time in which it settled nothing, from the last byte that was sent.
    pub(super) pause: Duration,
    pub(super) took: Duration,
    /// All bombs were settled in time.
    pub(super) settled: bool,
}

impl Figures {
    fn log_per_refusal(&self) -> u64 {
        self.log_bytes / self.refusals.max(1)
    }

    fn peak_per_fetched(&self) -> f64 {
        self.peak_bytes as f64 / self.fetch_bytes_max as f64
    }

    fn peak_per_sent(&self) -> f64 {
        self.peak_bytes as f64 / self.sent_bytes as f64
    }

    fn growth_per_sent(&self) -> f64 {
        self.growth_bytes as f64 / self.sent_bytes as f64
    }

    fn growth_bytes_max(&self) -> u64 {
        self.sent_bytes * GROWTH_PER_BYTE_MAX
            + self.entries * self.handlers * GROWTH_PER_ENTRY_BYTES_MAX
            + GROWTH_ANYWAY_BYTES_MAX
    }

    /// Each handler fetches what was sent; none holds more of it than it may.
    fn taken_bytes_max(&self) -> u64 {
        let in_flight = (self.sent_bytes * self.handlers).min(self.fetch_bytes_max);
        in_flight * MEMORY_PER_BYTE_MAX + self.guest_bytes + MEMORY_ANYWAY_BYTES_MAX
    }

    /// Every bound that it is beyond.
    pub(super) fn broken(&self) -> Vec<String> {
        let bounds = [
            ("hosts died", self.deaths, 0),
            ("log bytes for one refusal", if self.refusals == 0 { 0 } else { self.log_per_refusal() }, {
                LOG_BYTES_PER_REFUSAL_MAX
            }),
            ("bytes of memory beyond what it had", self.taken_bytes, self.taken_bytes_max()),
            ("bytes of a dead letter", self.letter_bytes_max as u64, LETTER_BYTES_MAX as u64),
            ("of them beside the event", self.letter_extra_bytes_max as u64, LETTER_EXTRA_BYTES_MAX as u64),
            ("bytes that the backend grew by", self.growth_bytes, self.growth_bytes_max()),
            ("rows not settled in time", u64::from(!self.settled), 0),
        ];
        let beyond = bounds.into_iter().filter(|(_, is, most)| is > most);
        beyond.map(|(what, is, most)| format!("{}: {what}: {is}, at most {most}", self.name)).collect()
    }

    /// The larger of each figure, and the lower rates: of the same row, run twice.
    fn worse(&self, other: &Self) -> Self {
        let heavier = if self.peak_bytes > other.peak_bytes { self } else { other };
        let mut worse = heavier.clone();
        let talkative = if self.log_per_refusal() > other.log_per_refusal() { self } else { other };
        (worse.log_bytes, worse.refusals) = (talkative.log_bytes, talkative.refusals);
        worse.taken_bytes = self.taken_bytes.max(other.taken_bytes);
        worse.deaths = self.deaths + other.deaths;
        worse.letter_bytes_max = self.letter_bytes_max.max(other.letter_bytes_max);
        worse.letter_extra_bytes_max = self.letter_extra_bytes_max.max(other.letter_extra_bytes_max);
        worse.growth_bytes = self.growth_bytes.max(other.growth_bytes);
        worse.quarantined = self.quarantined.max(other.quarantined);
        let slower = if self.rate_during < other.rate_during { self } else { other };
        (worse.rate_before, worse.rate_during) = (slower.rate_before, slower.rate_during);
        worse.pause = self.pause.max(other.pause);
        worse.took = self.took.max(other.took);
        worse
    }
}

/// A line for each row: the largest of its runs.
pub fn table(all: &[Figures]) -> String {
    let mut lines = vec![format!(
        "{:<23} {:>6} {:>9} {:>8} {:>6} {:>7} {:>7} {:>9} {:>8} {:>8} {:>6} {:>5} {:>11} {:>8} {:>6}  dead letters",
        "row",
        "sent",
        "MiB",
        "peak MiB",
        "/fetch",
        "/sent",
        "log/ref",
        "letter",
        "beside",
        "growth",
        "deaths",
        "quar.",
        "neighbours",
        "pause ms",
        "s"
    )];
    let mut names: Vec<&str> = Vec::new();
    for figures in all {
        if names.contains(&figures.name) {
            continue;
        }
        names.push(figures.name);
        let same = all.iter().filter(|other| other.name == figures.name).cloned();
        lines.extend(same.reduce(|worst, one| worst.worse(&one)).map(|worst| worst.line()));
    }
    lines.join("\n")
}

impl Figures {
    fn line(&self) -> String {
        let classes: Vec<String> = self.by_class.iter().map(|(class, count)| format!("{count} {class}")).collect();
        let of_sent = |figure: f64| if self.sent_bytes == 0 { "-".to_owned() } else { format!("{figure:.2}") };
        let log = if self.refusals == 0 { "-".to_owned() } else { self.log_per_refusal().to_string() };
        format!(
            "{:<23} {:>6} {:>9.3} {:>8.1} {:>6.2} {:>7} {:>7} {:>9} {:>8} {:>8} {:>6} {:>5} {:>5.1}>{:<5.1} {:>8} {:>6.1}  {}",
            self.name,
            self.entries,
            self.sent_bytes as f64 / MIB,
            self.peak_bytes as f64 / MIB,
            self.peak_per_fetched(),
            of_sent(self.peak_per_sent()),
            log,
            self.letter_bytes_max,
            self.letter_extra_bytes_max,
            of_sent(self.growth_per_sent()),
            self.deaths,
            self.quarantined,
            self.rate_before,
            self.rate_during,
            self.pause.as_millis(),
            self.took.as_secs_f64(),
            classes.join(", "),
        )
    }
}
