//! Runs for tests: small, and with round numbers.

use crate::model::{Machine, Row, Run, Sample, Section};

/// A row with these rates. An event costs 4 µs of the client and 2 µs of Redis.
pub(crate) fn row(name: &str, rates: &[f64]) -> Row {
    let sample = |rate: &f64| Sample { events_per_s: *rate, client_us: 4.0, redis_us: 2.0, client_mib: 30.0 };
    let samples = rates.iter().map(sample).collect();
    Row { name: name.to_owned(), x: None, settings: String::new(), samples, extra: Default::default() }
}

pub(crate) fn section(name: &str, rows: Vec<Row>) -> Section {
    Section { name: name.to_owned(), events: 1000, rounds: 3, rows }
}

pub(crate) fn run(sections: Vec<Section>) -> Run {
    let machine = Machine {
        when: "2026-01-31T12:00:00Z".to_owned(),
        cores: 2,
        cpu: "a processor".to_owned(),
        kernel: "Linux 6.18".to_owned(),
        memory_gib: 24,
        redis: "7.0.15".to_owned(),
        profile: "release".to_owned(),
        tidemill: "0.1.0".to_owned(),
    };
    Run { machine, sections }
}

/// Three rounds, each twice as slow as the one before; the ratios stay.
pub(crate) fn pipeline() -> Run {
    let of = |part: f64| [100_000.0 * part, 50_000.0 * part, 25_000.0 * part];
    let rows =
        [("raw", 1.0), ("bare", 0.5), ("stateless", 0.3), ("emit", 0.25), ("stateless 64", 0.6), ("raw again", 1.25)];
    run(vec![section("pipeline", rows.iter().map(|(name, part)| row(name, &of(*part))).collect())])
}
