//! What every section is given, and how its rows are run: in turn, round after round.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::model::{Row, Sample, Section};

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Events in each drain, where a section does not ask what that number does.
    #[arg(long)]
    pub events: Option<u64>,
    /// Rounds that count; one more runs first and is thrown away.
    #[arg(long)]
    pub rounds: Option<usize>,
    /// A look: a tenth of the events, one round.
    #[arg(long)]
    pub quick: bool,
    /// The backlog of ten million events too, which wants 8 GB of memory.
    #[arg(long)]
    pub full: bool,
    /// Only rows of this name: for a profiler.
    #[arg(long, value_name = "ROW")]
    pub only: Option<String>,
    /// In the section `instances`, a component of a heavy language too, which wants no grants. It gets a tenth of the events.
    #[arg(long, value_name = "FILE")]
    pub heavy: Option<PathBuf>,
}

pub(crate) struct Bench {
    pub options: Options,
    /// For clients that are part of this process: raw, bare.
    pub runtime: Runtime,
    /// Configurations, logs, compiled plugins, SQLite files: all of it goes with the run.
    pub folder: TempDir,
}

/// A row that is to be run.
pub(crate) struct Plan<'a> {
    pub name: String,
    pub x: Option<f64>,
    pub settings: String,
    /// It takes minutes: one round, no warm-up.
    pub long: bool,
    pub run: Box<dyn Fn() -> anyhow::Result<Taken> + 'a>,
}

/// What one run of a row found out.
pub(crate) struct Taken {
    pub sample: Sample,
    pub extra: Vec<(&'static str, f64)>,
    /// What only the run itself can tell of its settings; empty: what the plan says.
    pub settings: String,
}

impl From<Sample> for Taken {
    fn from(sample: Sample) -> Self {
        Self { sample, extra: Vec::new(), settings: String::new() }
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(name: impl Into<String>, run: impl Fn() -> anyhow::Result<Taken> + 'a) -> Self {
        Self { name: name.into(), x: None, settings: String::new(), long: false, run: Box::new(run) }
    }

    pub(crate) fn at(self, x: f64) -> Self {
        Self { x: Some(x), ..self }
    }

    pub(crate) fn with(self, settings: impl Into<String>) -> Self {
        Self { settings: settings.into(), ..self }
    }
}

impl Bench {
    pub(crate) fn events(&self, usual: u64) -> u64 {
        let quick = if self.options.quick { (usual / 10).max(1) } else { usual };
        self.options.events.unwrap_or(quick)
    }

    pub(crate) fn rounds(&self, usual: usize) -> usize {
        let quick = if self.options.quick { 1 } else { usual };
        self.options.rounds.unwrap_or(quick).max(1)
    }

    /// Runs the rows in turn, once in each round, every second round backwards: what drifts slowly hits all of them alike.
    pub(crate) fn run(&self, name: &str, events: u64, rounds: usize, plans: Vec<Plan>) -> anyhow::Result<Section> {
        let wanted = |plan: &Plan| self.options.only.as_deref().is_none_or(|only| only == plan.name);
        let plans: Vec<Plan> = plans.into_iter().filter(wanted).collect();
        let row = |plan: &Plan| Row {
            name: plan.name.clone(),
            x: plan.x,
            settings: plan.settings.clone(),
            samples: Vec::new(),
            extra: BTreeMap::new(),
        };
        let mut rows: Vec<Row> = plans.iter().map(row).collect();
        for round in 0..=rounds {
            let mut pairs: Vec<_> = plans.iter().zip(&mut rows).collect();
            if round % 2 == 0 {
                pairs.reverse();
            }
            for (plan, row) in pairs.into_iter().filter(|(plan, _)| !plan.long || round == 1) {
                let taken = (plan.run)().with_context(|| format!("section {name}, row {}", plan.name))?;
                progress(name, round, rounds, plan, &taken.sample);
                if round > 0 {
                    add(row, taken);
                }
            }
        }
        Ok(Section { name: name.to_owned(), events, rounds, rows })
    }
}

fn add(row: &mut Row, taken: Taken) {
    row.samples.push(taken.sample);
    for (name, value) in taken.extra {
        row.extra.entry(name.to_owned()).or_default().push(value);
    }
    if !taken.settings.is_empty() {
        row.settings = taken.settings;
    }
}

fn progress(section: &str, round: usize, rounds: usize, plan: &Plan, sample: &Sample) {
    let round = if round == 0 { "warm-up".to_owned() } else { format!("round {round} of {rounds}") };
    let x = plan.x.map(|x| format!(" at {x}")).unwrap_or_default();
    eprintln!(
        "{section}, {round}: {}{x}: {:.0}/s, µs an event: {:.2} client, {:.2} Redis; {:.0} MiB",
        plan.name, sample.events_per_s, sample.client_us, sample.redis_us, sample.client_mib
    );
}
