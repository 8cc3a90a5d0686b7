//! What a team would write by hand: one loop with `redis`, the same check against the same JSON Schema as Tidemill's,
//! a deduplication key for each event so that a second one is left out, no sandbox.
//!
//! An event is claimed (`SET NX EX`) before it is handled: a process that dies between the two has lost it. To close
//! that gap, deduplication key and acknowledgement must be one step after the handler, which is what Tidemill's settlement is.

use std::path::Path;

use anyhow::{Context, ensure};
use jsonschema::{Draft, PatternOptions, Validator};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, ExistenceCheck, SetExpiry, SetOptions};
use serde_json::Value;

use crate::event;
use crate::span::{Span, ready};

const STREAM: &str = "peer";
const GROUP: &str = "bench";
const COUNT: usize = 128;
/// How long an event id is remembered: a day, the default of Tidemill's inbox.
const MARK_S: u64 = 24 * 60 * 60;

pub async fn fill(url: &str, events: u64) -> anyhow::Result<()> {
    let mut connection = connect(url).await?;
    event::add(&mut connection, STREAM, "event", events).await?;
    let () = connection.xgroup_create(STREAM, GROUP, "0").await?;
    Ok(())
}

pub async fn drain(url: &str, events: u64) -> anyhow::Result<()> {
    let schema = schema()?;
    let mut connection = connect(url).await?;
    let options = StreamReadOptions::default().group(GROUP, "one").count(COUNT).block(1000);
    ready().await?;
    let span = Span::default();
    let mut acknowledged = 0;
    while acknowledged < events {
        let reply: Option<StreamReadReply> = connection.xread_options(&[STREAM], &[">"], &options).await?;
        span.begin();
        let entries = reply.and_then(|mut reply| reply.keys.pop()).context("the stream ran dry")?.ids;
        let batch = entries.iter().map(|entry| admit(entry, &schema)).collect::<anyhow::Result<Vec<_>>>()?;
        for (event, new) in batch.iter().zip(claim(&mut connection, &batch).await?) {
            if new {
                event::check(event)?;
            }
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        acknowledged += connection.xack::<_, _, _, u64>(STREAM, GROUP, &ids).await?;
    }
    span.end(events, "redis 1.8, jsonschema 0.61.2; COUNT 128, SET NX EX pipelined, XACK of the batch")
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

fn admit(entry: &StreamId, schema: &Validator) -> anyhow::Result<Value> {
    let bytes = entry.map.get("event").context("an entry without the field event")?;
    let event: Value = serde_json::from_slice(bytes_of(bytes)?)?;
    ensure!(schema.is_valid(&event), "{} breaks its schema", entry.id);
    Ok(event)
}

fn bytes_of(value: &redis::Value) -> anyhow::Result<&[u8]> {
    match value {
        redis::Value::BulkString(bytes) => Ok(bytes),
        other => anyhow::bail!("a field that is no string: {other:?}"),
    }
}

/// For each event, whether it is seen for the first time.
async fn claim(connection: &mut MultiplexedConnection, batch: &[Value]) -> anyhow::Result<Vec<bool>> {
    let options = SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::EX(MARK_S));
    let mut pipe = redis::pipe();
    for event in batch {
        let id = event["event_id"].as_str().unwrap_or_default();
        pipe.set_options(format!("seen:{id}"), 1, options.clone());
    }
    let answers: Vec<redis::Value> = pipe.query_async(connection).await?;
    Ok(answers.iter().map(|answer| *answer != redis::Value::Nil).collect())
}

/// The options of `host/schema/src/registry.rs`.
fn schema() -> anyhow::Result<Validator> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../schemas/User.Created.v1.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let schema: Value = serde_json::from_str(&text)?;
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_format("uuid", |text: &str| uuid::Uuid::try_parse(text).is_ok() && text.len() == 36)
        .with_pattern_options(PatternOptions::regex().size_limit(1 << 20))
        .build(&schema)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}
