//! What a batch asks of the backends: one round trip to look up, one to settle. On both of them.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use tempfile::TempDir;
use tidemill_benches::steps::{BATCH, effects};
use tidemill_benches::{Case, user_created};
use tidemill_core::model::delivery::{Disposition, Subscription};
use tidemill_storage::{Backend, NewEntry, Settled, Settlement, SettlementEntry, Start};
use tidemill_testkit::server::RedisServer;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// A server and a file, which go when this goes.
struct Places {
    runtime: Runtime,
    redis: RedisServer,
    folder: TempDir,
}

impl Places {
    fn new() -> Self {
        Self {
            runtime: Runtime::new().expect("a runtime"),
            redis: RedisServer::start(&["--save", "", "--appendonly", "no"]),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Both backends, with a group of this case on each.
    fn backends(&self, case: Case) -> Vec<(&'static str, Arc<dyn Backend>)> {
        let file = format!("sqlite:{}", self.folder.path().join("bench.db").display());
        let open = |(name, url): (&'static str, String)| {
            let backend =
                self.runtime.block_on(tidemill::backends::open_backend(&case.config(&url, ""))).expect("a backend");
            self.runtime.block_on(backend.ensure_group(&subscription(case), Start::Beginning)).expect("a group");
            (name, backend)
        };
        [("redis", self.redis.url()), ("sqlite", file)].map(open).into()
    }
}

fn subscription(case: Case) -> Subscription {
    Subscription { stream: format!("bench-{}", case.name()).into(), handler: "bench".into() }
}

/// Sketch: 128 ids and 128 keys are one round trip of 100 µs, and for each event 1 µs of Redis and 1 µs of ours; SQLite
/// has no round trip, but two searches in a tree for each event, 5 µs.
pub(crate) fn look_up(criterion: &mut Criterion) {
    let places = Places::new();
    let subscription = subscription(Case::Keyed);
    let mut group = criterion.benchmark_group("look-up");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, backend) in places.backends(Case::Keyed) {
        let settlement = places.runtime.block_on(fetched(&*backend, Case::Keyed));
        places.runtime.block_on(backend.settle(&settlement)).expect("settled");
        let ids: Vec<Uuid> = settlement.entries.iter().filter_map(|entry| Some(entry.dedup_key?.0)).collect();
        let state = |entry: &SettlementEntry| Some(entry.state.as_ref()?.0.clone());
        let keys: Vec<Arc<str>> = settlement.entries.iter().filter_map(state).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| places.runtime.block_on(backend.look_up(&subscription, &ids, &keys)).expect("looked up"));
        });
    }
}

/// Sketch, of Redis for each event: 2.7 µs of its own without effects, 2.2 more with one event emitted, 3 more with a
/// state; and 1 µs of ours. SQLite: no round trip, a handful of changes in trees, 20 µs, and a sync for the batch.
pub(crate) fn settle(criterion: &mut Criterion) {
    let places = Places::new();
    for case in Case::ALL {
        let mut group = criterion.benchmark_group(format!("settle-{}", case.name()));
        group.throughput(Throughput::Elements(BATCH as u64)).sample_size(30);
        for (name, backend) in places.backends(case) {
            group.bench_function(name, |bencher| {
                bencher.iter_batched(
                    || places.runtime.block_on(fetched(&*backend, case)),
                    |settlement| {
                        let settled = places.runtime.block_on(backend.settle(&settlement)).expect("settled");
                        assert!(settled.iter().all(|settled| *settled == Settled::Committed), "{settled:?}");
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

/// A batch, published and fetched, ready to be settled.
async fn fetched(backend: &dyn Backend, case: Case) -> Settlement {
    let subscription = subscription(case);
    let entry = |number| NewEntry { body: user_created(number).into(), dedup_key: None };
    let entries: Vec<NewEntry> = (0..BATCH as u64).map(entry).collect();
    backend.publish(&subscription.stream, &entries).await.expect("published");
    let batch = backend.fetch(&subscription, "bench", BATCH, Duration::from_secs(1)).await.expect("fetched").deliveries;
    let entries = batch.into_iter().map(|delivery| SettlementEntry {
        delivery,
        dedup_key: Some((Uuid::new_v4(), [0; 16])),
        // A key that nobody has written yet.
        state: (case == Case::Keyed).then(|| (Uuid::new_v4().to_string().into(), 0)),
        disposition: Disposition::Commit(effects(case)),
    });
    let entries = entries.collect();
    Settlement { consumer: "bench".into(), plugin: "v1".into(), token: Uuid::new_v4(), subscription, entries }
}
