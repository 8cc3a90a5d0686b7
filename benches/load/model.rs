//! What a run of the harness found out: plain data, one sample for each round. Medians, ratios and pictures are made of it
//! later (`report`), so that a file of it can be looked at again.

use serde::{Deserialize, Serialize};

/// A whole run. `docs/performance.json` is one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub machine: Machine,
    pub sections: Vec<Section>,
}

/// Where and with what it was measured; nothing that names the machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// RFC 3339.
    pub when: String,
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    pub memory_gib: u64,
    pub redis: String,
    /// The build profile of the host: `release` or `dev`.
    pub profile: String,
    pub tidemill: String,
}

/// A question that is asked of the pipeline, such as what payloads cost. Rows are run in turn within each round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    /// One of `sections::ALL`.
    pub name: String,
    /// In each drain; in sections with another number in each row (`payload`, `backlog`), the most.
    pub events: u64,
    pub rounds: usize,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub name: String,
    /// The position on the axis of a section that has one: events, bytes, handlers, events/s.
    pub x: Option<f64>,
    /// Versions and settings worth knowing, for people.
    pub settings: String,
    /// One for each round, in the order of the rounds; a round's samples are compared with each other. A row that takes
    /// minutes has only one.
    pub samples: Vec<Sample>,
    /// Figures that only some sections have; one for each round, too.
    ///
    /// | section | name | what |
    /// |---|---|---|
    /// | `latency` | `p50_us`, `p99_us`, `p999_us`, `max_us` | from due to settled, in microseconds |
    /// | `latency` | `batch` | entries that a read brought on average, of those that brought any |
    /// | `latency` | `late_us` | how late events were sent, the median, in microseconds |
    /// | `hosts` | `fenced_share`, `doubled_share` | of the deliveries: taken over by another host; settled twice. Both have to be 0 |
    /// | `backlog` | `mib_start`, `mib_middle`, `mib_end` | what the host had resident, in MiB |
    /// | `backlog` | `inbox_bytes` | memory of Redis for the inbox, in bytes per event, at the default window |
    /// | `start` | `ms` | from starting the process to the first event settled |
    pub extra: std::collections::BTreeMap<String, Vec<f64>>,
}

/// What one drain cost.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub events_per_s: f64,
    /// Processor time per event of the client or host, user and system, in microseconds.
    pub client_us: f64,
    /// The same of the Redis server; 0 on SQLite.
    pub redis_us: f64,
    /// The most memory that the client or host had resident, in MiB; of several hosts the sum.
    pub client_mib: f64,
}
