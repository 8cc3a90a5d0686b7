//! The soak: hosts at work, a producer that goes on, and a nemesis that does to them whatever its rng say. At the end
//! everything is made healthy again, and the checker judges. One seed makes one round.

mod crew;
mod nemesis;
mod recovery;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::checker::{Report, Terms};
use crate::clock::Clock;
use crate::ledger::producer::EVERYTHING;
use crate::ledger::{Ledger, Options};
use crate::server::RedisServer;
use crew::Crew;
use nemesis::{FAULTS, Field};

/// Nothing acknowledged may be lost when the server is killed: so it writes before it answers.
const DURABLE: [&str; 8] =
    ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"];
/// The input stream is trimmed all the time, and memory stays where it is.
const WORLD: Options = Options { deadline: "1s", batch: 32, bounds: "maxlen = 1000" };
const EVENTS_PER_SECOND: u32 = 80;
/// Between two faults.
const GAP_MS: std::ops::Range<u64> = 300..3000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Sqlite,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    /// How long the nemesis is at work.
    pub length: Duration,
    pub only: Only,
}

/// Names of faults and of what may be odd with a host: which of them there are. None: all.
#[derive(Debug, Clone, Default)]
pub struct Only(Vec<String>);

impl Only {
    /// # Errors
    /// There is no fault of that name: which there are.
    pub fn new(names: &[String]) -> Result<Self, String> {
        let known: Vec<&str> = FAULTS.iter().map(|fault| fault.name).chain(crew::ODDITIES).collect();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Self(names.to_vec())),
            Some(name) => Err(format!("there is no fault \"{name}\"; there are: {}", known.join(", "))),
        }
    }

    fn lets(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|only| only == name)
    }
}

/// What came of a round.
pub struct Outcome {
    pub plan: Plan,
    pub events: u64,
    pub faults: BTreeMap<String, u32>,
    /// From the death of each host that had deliveries in hand until none of them was in its hands any more.
    pub recoveries: Vec<Duration>,
    pub report: Report,
    /// What the hosts wrote, if something is wrong.
    pub said: String,
}

pub fn round(plan: Plan) -> Outcome {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let clock = Arc::new(Clock::new());
    let (server, mut ledger) = match plan.kind {
        Kind::Redis => {
            let server = RedisServer::start_by(&clock, &DURABLE);
            let ledger = Ledger::on_redis(&server.url(), &server.url(), WORLD);
            (Some(server), ledger)
        }
        Kind::Sqlite => (None, Ledger::on_sqlite(WORLD)),
    };
    if server.is_none() {
        // Then it is the machine's clock that all goes by.
        ledger.go_by(&clock);
    }
    let ledger = Arc::new(ledger);
    let producer = ledger.produce(EVERYTHING, EVENTS_PER_SECOND, plan.seed);
    let crew = Crew::new(ledger.clone(), rng.random(), plan.only.clone());
    let mut field = Field { server, clock, crew, faults: BTreeMap::new() };
    let possible =
        |fault: &&nemesis::Fault| (field.server.is_some() || !fault.needs_server) && plan.only.lets(fault.name);
    let possible: Vec<_> = FAULTS.iter().filter(possible).collect();
    let end = Instant::now() + plan.length;
    while Instant::now() < end {
        if let Some(fault) = possible.choose(&mut rng)
            && (fault.run)(&mut field, &mut rng)
        {
            *field.faults.entry(fault.name.to_owned()).or_default() += 1;
        }
        field.crew.tend_for(Duration::from_millis(rng.random_range(GAP_MS)));
    }
    let mut violations = field.crew.end();
    let events = producer.stop();
    // What is left may take some rounds through dead hosts' leases and lone runs.
    ledger.run_until_idle();
    let mut report = ledger.check(Terms::default());
    let (recoveries, never) = field.crew.recoveries();
    violations.extend(never);
    report.violations.append(&mut violations);
    let mut faults = field.faults;
    for (name, count) in field.crew.deaths() {
        *faults.entry(name).or_default() += count;
    }
    let said = if report.violations.is_empty() { String::new() } else { ledger.said() };
    Outcome { plan, events, faults, recoveries, report, said }
}

impl Outcome {
    pub fn violations(&self) -> usize {
        self.report.violations.len()
    }

    pub fn json(&self) -> serde_json::Value {
        let Report { inputs, unknown, committed, dead, poison, counters, violations, .. } = &self.report;
        let recovery = quantiles(&self.recoveries);
        json!({
            "seed": self.plan.seed, "backend": self.plan.kind.name(), "seconds": self.plan.length.as_secs(),
            "events": self.events, "inputs": inputs, "unknown": unknown, "committed": committed, "dead": dead,
            "poison": poison, "duplicates": counters.duplicates, "retried": counters.retried, "faults": self.faults,
            "recovery_ms": recovery, "violations": violations,
        })
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
        }
    }
}

/// Number, median, 99th percentile and maximum, in milliseconds.
pub fn quantiles(times: &[Duration]) -> serde_json::Value {
    let mut ms: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    ms.sort_unstable();
    let at = |share: f64| ms.get(((ms.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(0);
    json!({ "deaths": ms.len(), "p50": at(0.5) as u64, "p99": at(0.99) as u64, "max": at(1.0) as u64 })
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, kind, length, .. } = &self.plan;
        writeln!(f, "seed {seed} on {} for {length:?}: {}", kind.name(), self.report)?;
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "  faults: {}", faults.join(", "))?;
        write!(f, "  recovery after a host's death, in ms: {}", quantiles(&self.recoveries))
    }
}
