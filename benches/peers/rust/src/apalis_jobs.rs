//! apalis on Redis: lists and hashes, Lua, acknowledgement by stored results.
//!
//! Two traps, seen in 1.0.0: with `persist_results(false)` nothing is ever acknowledged; and its script promotes all due
//! jobs at once with `unpack`, which breaks at about 8,000.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use serde_json::Value;
use tokio::sync::Notify;

use crate::event;
use crate::span::{Span, ready};

const QUEUE: &str = "peer";

/// What its handlers share.
struct Drain {
    span: Span,
    events: u64,
    handled: AtomicU64,
    all_handled: Notify,
}

async fn storage(url: &str) -> anyhow::Result<RedisStorage<Value>> {
    // Leases are for jobs that last longer than a heartbeat, says its documentation; nobody listens for its events.
    let config = Config::default().queue(QUEUE).batch_size(100).lock_tasks(false).emit_events(false);
    Ok(RedisStorage::new(apalis_redis::connect(url).await?).with_config(config))
}

pub async fn fill(url: &str, events: u64) -> anyhow::Result<()> {
    let mut storage = storage(url).await?;
    for start in (0..events).step_by(500) {
        let jobs = (start..(start + 500).min(events)).map(|number| serde_json::from_str(&event::user_created(number)));
        let jobs: Vec<Value> = jobs.collect::<Result<_, _>>()?;
        storage.push_bulk(jobs).await.map_err(|error| anyhow::anyhow!("pushing: {error}"))?;
    }
    Ok(())
}

async fn handle(event: Value, drain: Data<Arc<Drain>>) -> Result<(), BoxDynError> {
    drain.span.begin();
    event::check(&event)?;
    if drain.handled.fetch_add(1, Ordering::Relaxed) + 1 == drain.events {
        drain.all_handled.notify_one();
    }
    Ok(())
}

pub async fn drain(url: &str, events: u64, parallel: bool) -> anyhow::Result<()> {
    let storage = storage(url).await?;
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let drain = Drain { span: Span::default(), events, handled: AtomicU64::new(0), all_handled: Notify::new() };
    let drain = Arc::new(drain);
    ready().await?;
    let builder = WorkerBuilder::new("one").backend(storage).data(drain.clone());
    let settings = if parallel {
        tokio::spawn(builder.concurrency(100).parallelize(tokio::spawn).build(handle).run());
        "apalis 1.0.0, apalis-redis 1.0.0; batch 100, concurrency 100 on tokio's tasks, no leases, no pub/sub"
    } else {
        tokio::spawn(builder.build(handle).run());
        "apalis 1.0.0, apalis-redis 1.0.0; batch 100, one job after another, no leases, no pub/sub"
    };
    // Redis is asked only at the end, so that the question costs nothing before.
    drain.all_handled.notified().await;
    while redis::cmd("SCARD").arg(format!("{QUEUE}:done")).query_async::<u64>(&mut connection).await? < events {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drain.span.end(events, settings)
}
