//! What we set out to reach, as a table, and what a run says of it.

use super::stats::{Figure, Spread};
use super::words;
use crate::model::{Row, Run};

/// One aim. A ratio is taken within each round.
pub(crate) struct Target {
    pub name: &'static str,
    pub section: &'static str,
    pub row: &'static str,
    /// From the rows of the section to what was measured. `None`: this run did not look.
    pub value: fn(&At<'_>) -> Option<Spread>,
    pub bound: Bound,
    pub unit: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) const TARGETS: &[Target] = &[
    ratio("stateless: rate to raw", "stateless", |at| at.rate_to("raw"), 0.6),
    ratio("stateless: rate to bare", "stateless", |at| at.rate_to("bare"), 0.8),
    cpu("stateless: CPU of host and Redis", "stateless", 10.0),
    ratio("emit: rate to raw", "emit", |at| at.rate_to("raw"), 0.25),
    ratio("emit: rate to bare", "emit", |at| at.rate_to("bare"), 0.6),
    cpu("emit: CPU of host and Redis", "emit", 18.0),
    ratio("keyed: rate to raw", "keyed", |at| at.rate_to("raw"), 0.2),
    ratio("keyed: rate to bare", "keyed", |at| at.rate_to("bare"), 0.6),
    cpu("keyed: CPU of host and Redis", "keyed", 20.0),
    ratio("a fresh instance for each event: rate to one for 64", "stateless", |at| at.rate_to("stateless 64"), 0.35),
    peer("stateless: rate to BullMQ at its best", |at| at.rate_to_best("bullmq"), Bound::AtLeast(5.0)),
    peer("stateless: rate to FastStream, batches", |at| at.rate_to_best("faststream-batch"), Bound::AtLeast(2.0)),
    peer("stateless: rate to apalis", |at| at.rate_to_best("apalis"), Bound::AtLeast(2.0)),
    peer("stateless: rate to sea-streamer", |at| at.rate_to_best("sea-streamer"), Bound::AtLeast(3.0)),
    peer("stateless: CPU to BullMQ's", |at| at.cpu_to_best("bullmq"), Bound::AtMost(0.15)),
    Target {
        name: "AOF `everysec`: rate to none",
        section: "fsync",
        row: "everysec",
        value: |at| at.rate_to("none"),
        bound: Bound::AtLeast(0.5),
        unit: "",
    },
    Target {
        name: "SQLite, `synchronous=FULL`",
        section: "fsync",
        row: "sqlite",
        value: |at| Figure::Rate.of(at.row),
        bound: Bound::AtLeast(20_000.0),
        unit: "events/s",
    },
    Target {
        name: "p50 from XADD to settled at 1 000 events/s, to a bare loop",
        section: "latency",
        row: "tidemill",
        value: |at| at.at(1000.0)?.to("bare loop", Figure::Extra("p50_us")),
        bound: Bound::AtMost(1.3),
        unit: "",
    },
    Target {
        name: "seven handlers: memory of the host",
        section: "handlers",
        row: "stateless",
        value: |at| Figure::Memory.of(at.at(7.0)?.row),
        bound: Bound::AtMost(100.0),
        unit: "MiB",
    },
    Target {
        name: "seven handlers: CPU of the host to that of one",
        section: "handlers",
        row: "stateless",
        value: |at| Figure::Client.ratio(at.at(7.0)?.row, at.at(1.0)?.row),
        bound: Bound::AtMost(4.0),
        unit: "",
    },
    Target {
        name: "the largest backlog: memory at the end to that at the start",
        section: "backlog",
        row: "stateless",
        value: |at| {
            let last = at.last()?;
            let ratios = Figure::Extra("mib_end").each(last).into_iter().zip(Figure::Extra("mib_start").each(last));
            Spread::of(ratios.map(|(end, start)| end / start).collect())
        },
        bound: Bound::AtMost(1.2),
        unit: "",
    },
    Target {
        name: "cold start to the first settled event",
        section: "start",
        row: "stateless",
        value: |at| Figure::Extra("ms").of(at.row),
        bound: Bound::AtMost(300.0),
        unit: "ms",
    },
];

const fn ratio(name: &'static str, row: &'static str, value: fn(&At<'_>) -> Option<Spread>, at_least: f64) -> Target {
    Target { name, section: "pipeline", row, value, bound: Bound::AtLeast(at_least), unit: "" }
}

const fn cpu(name: &'static str, row: &'static str, at_most: f64) -> Target {
    let value = |at: &At<'_>| Figure::Total.of(at.row);
    Target { name, section: "pipeline", row, value, bound: Bound::AtMost(at_most), unit: "µs an event" }
}

const fn peer(name: &'static str, value: fn(&At<'_>) -> Option<Spread>, bound: Bound) -> Target {
    Target { name, section: "peers", row: "stateless", value, bound, unit: "" }
}

/// A row among those that it is compared with.
pub(crate) struct At<'a> {
    rows: &'a [Row],
    row: &'a Row,
}

impl<'a> At<'a> {
    fn rate_to(&self, name: &str) -> Option<Spread> {
        self.to(name, Figure::Rate)
    }

    /// `None` also if it were compared with itself.
    fn to(&self, name: &str, figure: Figure) -> Option<Spread> {
        let other = self.rows.iter().find(|row| row.name == name && row.x == self.row.x)?;
        if other.name == self.row.name { None } else { figure.ratio(self.row, other) }
    }

    /// The same row at another place of the axis.
    fn at(&self, x: f64) -> Option<At<'a>> {
        let row = self.rows.iter().find(|row| row.name == self.row.name && row.x == Some(x))?;
        Some(At { rows: self.rows, row })
    }

    /// The same row at the end of the axis.
    fn last(&self) -> Option<&'a Row> {
        self.rows
            .iter()
            .filter(|row| row.name == self.row.name)
            .max_by(|a, b| a.x.partial_cmp(&b.x).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// To the best of those whose names begin like this, in each round the one that was best then.
    fn rate_to_best(&self, peer: &str) -> Option<Spread> {
        self.to_best(peer, Figure::Rate, f64::max)
    }

    fn cpu_to_best(&self, peer: &str) -> Option<Spread> {
        self.to_best(peer, Figure::Total, f64::min)
    }

    fn to_best(&self, peer: &str, figure: Figure, better: fn(f64, f64) -> f64) -> Option<Spread> {
        let settings = self.rows.iter().filter(|row| row.name.starts_with(peer)).map(|row| figure.each(row));
        let best = settings.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| better(a, b)).collect())?;
        Spread::of(figure.each(self.row).into_iter().zip(best).map(|(ours, theirs)| ours / theirs).collect())
    }
}

impl Target {
    pub(crate) fn measured(&self, run: &Run) -> Option<Spread> {
        self.measured_for(run, self.row)
    }

    /// The same of the row whose instances serve 64 events, where there is one.
    pub(crate) fn measured_reused(&self, run: &Run) -> Option<Spread> {
        self.measured_for(run, &format!("{} 64", self.row))
    }

    fn measured_for(&self, run: &Run, row: &str) -> Option<Spread> {
        let section = run.section(self.section)?;
        let row = section.rows.iter().find(|candidate| candidate.name == row)?;
        (self.value)(&At { rows: &section.rows, row })
    }
}

impl Bound {
    pub(crate) fn is_met(self, measured: Spread) -> bool {
        match self {
            Self::AtLeast(bound) => measured.median >= bound,
            Self::AtMost(bound) => measured.median <= bound,
        }
    }

    pub(crate) fn words(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::AtLeast(bound) => ("≥", bound),
            Self::AtMost(bound) => ("≤", bound),
        };
        let words = words::short(bound);
        format!("{sign} {words} {unit}").trim_end().to_owned()
    }
}
