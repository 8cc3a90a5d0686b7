//! The sections: each asks one question of the pipeline.

use anyhow::bail;

use crate::bench::Bench;
use crate::model::Section;
use crate::{beside, drains, latency, questions};

/// What a section asks, and how it finds out.
pub(crate) struct Question {
    pub name: &'static str,
    pub title: &'static str,
    /// What `Row::x` is; none if the rows have no axis.
    pub axis: Option<&'static str>,
    pub run: fn(&Bench) -> anyhow::Result<Section>,
}

/// In the order in which they are asked and shown.
pub(crate) const ALL: &[Question] = &[
    Question { name: "pipeline", title: "The pipeline beside raw Redis", axis: None, run: drains::pipeline },
    Question { name: "fsync", title: "What it costs to be durable", axis: None, run: drains::fsync },
    Question { name: "latency", title: "From published to settled", axis: Some("events a second"), run: latency::run },
    Question {
        name: "handlers",
        title: "Handlers that read one stream",
        axis: Some("handlers"),
        run: questions::handlers,
    },
    Question { name: "hosts", title: "Hosts that share the work", axis: Some("hosts"), run: questions::hosts },
    Question { name: "payload", title: "Larger events", axis: Some("bytes an event"), run: questions::payload },
    Question {
        name: "instances",
        title: "Fresh instances",
        axis: Some("events of one instance"),
        run: questions::instances,
    },
    Question { name: "backlog", title: "Long backlogs", axis: Some("events waiting"), run: questions::backlog },
    Question { name: "start", title: "From start to the first event settled", axis: None, run: questions::start },
    Question { name: PEERS, title: "What people use today", axis: None, run: beside::run },
];

/// It wants Node.js and Python, so it is asked only by name or with `--peers`.
const PEERS: &str = "peers";

/// The sections of these names in the order of the table; without names all of them, the peers only if they are wanted.
pub(crate) fn chosen(names: &[String], peers: bool) -> anyhow::Result<Vec<&'static Question>> {
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|question| question.name == **name)) {
        let known: Vec<&str> = ALL.iter().map(|question| question.name).collect();
        bail!("there is no section {unknown:?}\n  hint: {}", known.join(", "));
    }
    let is_chosen = |question: &&Question| match question.name {
        PEERS => peers || names.iter().any(|name| name == PEERS),
        other => names.is_empty() || names.iter().any(|name| name == other),
    };
    Ok(ALL.iter().filter(is_chosen).collect())
}
