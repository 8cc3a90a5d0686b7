//! Micro benches: what each step of the pipeline takes by itself, beside the sketch of what it should take.

mod backends;

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use tidemill_benches::steps::STEPS;

/// The steps that need nothing but a processor.
fn steps(criterion: &mut Criterion) {
    for step in STEPS {
        eprintln!("\n{}, sketch for one of its {} events: {}", step.name, step.events, step.sketch);
        let mut group = criterion.benchmark_group(step.name);
        group.throughput(Throughput::Elements(step.events as u64));
        group.bench_function("run", |bencher| {
            let mut ready = (step.set_up)();
            bencher.iter_batched(&mut ready, |run| run(), BatchSize::LargeInput);
        });
    }
}

fn main() {
    // `cargo test` runs benches once to see that they work; without guests there is nothing to run.
    if !Path::new(&tidemill_testkit::root().join("plugins/dist")).is_dir() {
        eprintln!("no guests: run `cargo xtask guests`");
        return;
    }
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let mut criterion = criterion.configure_from_args();
    steps(&mut criterion);
    backends::look_up(&mut criterion);
    backends::settle(&mut criterion);
    criterion.final_summary();
}
