//! The two clients that the pipeline is set beside, which are part of this process: raw and bare.

use std::time::Instant;

use tidemill_benches::Case;
use tidemill_storage::Start;

use crate::bench::{Bench, Taken};
use crate::model::Sample;
use crate::on_redis::OnRedis;
use crate::setup::{Backlog, STREAM};
use crate::store::Store;
use crate::{bare, raw, usage};

/// `XREADGROUP` and `XACK`, and nothing else.
pub(crate) fn raw(bench: &Bench, store: &mut OnRedis, events: u64) -> anyhow::Result<Taken> {
    store.fill(&Backlog::of(events))?;
    redis::cmd("XGROUP").arg("CREATE").arg(STREAM).arg(raw::GROUP).arg("0").exec(store.connection())?;
    let client = redis::Client::open(store.url())?;
    let mut connection = bench.runtime.block_on(client.get_multiplexed_async_connection())?;
    let sample = measure(store, events, || bench.runtime.block_on(raw::drain(&mut connection, events)))?;
    store.check_acked(raw::GROUP, events)?;
    Ok(sample.into())
}

/// The backend of the host, by itself.
pub(crate) fn bare(bench: &Bench, store: &mut OnRedis, events: u64) -> anyhow::Result<Taken> {
    store.fill(&Backlog::of(events))?;
    let backend =
        bench.runtime.block_on(tidemill::backends::open_backend(&Case::Stateless.config(&store.url(), "")))?;
    bench.runtime.block_on(backend.ensure_group(&bare::subscription(), Start::Beginning))?;
    let sample = measure(store, events, || bench.runtime.block_on(bare::drain(&*backend, events)))?;
    store.check_acked(bare::HANDLER, events)?;
    store.check_marks(bare::HANDLER, events)?;
    Ok(sample.into())
}

/// What it costs this process, and the server.
fn measure(store: &mut OnRedis, events: u64, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
    let pid = std::process::id();
    usage::forget_peak();
    let (client_s, store_s, begun) = (usage::cpu_s(pid)?, store.cpu_s()?, Instant::now());
    work()?;
    let took = begun.elapsed().as_secs_f64();
    Ok(Sample {
        events_per_s: events as f64 / took,
        client_us: (usage::cpu_s(pid)? - client_s) * 1e6 / events as f64,
        redis_us: (store.cpu_s()? - store_s) * 1e6 / events as f64,
        client_mib: usage::peak_mib(pid)?,
    })
}
