//! Micro benches of what every event passes: admission, the call into the guest, the settlement.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use tidemill::backend::{Backend, Entry, NewEntry, Settlement, Start};
use tidemill::model::delivery::{Disposition, Effects, Source};
use tidemill::plugin::invoke::{Call, Live};
use tidemill::schema::Registry;
use tidemill::schema::admit::{Terms, admit};
use tidemill::service::build;
use tidemill_benches::{Case, user_created};
use tidemill_tests::server::RedisServer;
use uuid::Uuid;

fn registry() -> Registry {
    Registry::load(&tidemill_tests::root().join("schemas")).expect("good schemas")
}

fn bench_admit(criterion: &mut Criterion) {
    let registry = registry();
    let event = Bytes::from(user_created(1));
    let terms = Terms { wants: &|_, _| true, key: &["/data/user_id".to_owned()], payload_bytes_max: 1 << 20 };
    criterion.bench_function("admit", |bencher| bencher.iter(|| admit(&registry, black_box(&event), &terms)));
}

fn bench_invoke(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("invoke");
    for case in Case::ALL {
        let config = case.config("sqlite::memory:", "");
        let checked = build::check(&config).expect("a good configuration");
        let plugin = build::plugins(&config, &checked).expect("good plugins").all.remove(0);
        let terms = Terms { wants: &|_, _| true, key: &[], payload_bytes_max: 1 << 20 };
        let event = Arc::new(admit(&checked.schemas, &Bytes::from(user_created(1)), &terms).expect("a good event"));
        let (stream, now) = ("bench-users".into(), "2026-01-31T12:00:00.000Z".into());
        let call = Call {
            event: &event,
            stream: &stream,
            now: &now,
            attempt: 1,
            values: Arc::default(),
            deadline: Duration::from_secs(1),
        };
        let mut live = Live::new(&plugin).expect("an instance");
        group.bench_function(format!("{} live", case.name()), |bencher| bencher.iter(|| live.call(&call).outcome));
        group.bench_function(format!("{} new", case.name()), |bencher| {
            bencher.iter(|| Live::new(&plugin).expect("an instance"));
        });
        group.bench_function(format!("{} fresh", case.name()), |bencher| {
            bencher.iter(|| Live::new(&plugin).expect("an instance").call(&call).outcome);
        });
    }
}

const BATCH: usize = 128;

fn bench_settle(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = format!("sqlite:{}", folder.path().join("bench.db").display());
    let mut group = criterion.benchmark_group("settle 128");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(30);
    for (name, url) in [("redis", server.url()), ("sqlite", file)] {
        let config = Case::Stateless.config(&url, "");
        let backend = runtime.block_on(build::open_backend(&config)).expect("a backend");
        let source = Source { stream: "bench-users".into(), handler: "bench".into() };
        runtime.block_on(backend.ensure_group(&source, Start::Beginning)).expect("a group");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || runtime.block_on(fetched(&*backend, &source)),
                |settlement| runtime.block_on(backend.settle(&settlement)).expect("settled"),
                BatchSize::PerIteration,
            );
        });
    }
}

/// A batch, published and fetched, ready to be settled.
async fn fetched(backend: &dyn Backend, source: &Source) -> Settlement {
    let entry = |number| NewEntry { body: user_created(number).into(), mark: None };
    let entries: Vec<NewEntry> = (0..BATCH as u64).map(entry).collect();
    backend.publish(&source.stream, &entries).await.expect("published");
    let batch = backend.fetch(source, "bench", BATCH, Duration::from_secs(1)).await.expect("fetched");
    let entries = batch.into_iter().map(|delivery| Entry {
        delivery,
        mark: Some((Uuid::new_v4(), [0; 16])),
        state: None,
        disposition: Disposition::Commit(Effects::default()),
    });
    Settlement {
        source: source.clone(),
        consumer: "bench".into(),
        plugin: "v1".into(),
        token: Uuid::new_v4(),
        entries: entries.collect(),
    }
}

criterion_group!(micro, bench_admit, bench_invoke, bench_settle);

fn main() {
    // `cargo test` runs benches once to see that they work; without guests there is nothing to run.
    if !Path::new(&tidemill_tests::root().join("plugins/dist")).is_dir() {
        eprintln!("no guests: run `cargo xtask guests`");
        return;
    }
    micro();
    Criterion::default().configure_from_args().final_summary();
}
