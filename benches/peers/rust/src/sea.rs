//! sea-streamer on Redis Streams, with the rolling commit that it recommends for at-least-once.
//!
//! A trap: it commits what is acknowledged only when a read comes back, and a read of an empty stream blocks for ten
//! seconds. Under traffic nobody notices; at the end of a backlog everybody would. So one more event wakes it there.

use std::time::Duration;

use anyhow::Context;
use redis::AsyncCommands;
use sea_streamer_redis::{AutoCommit, AutoStreamReset, RedisConsumerOptions, RedisStreamer};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Message, StreamKey, Streamer,
};
use serde_json::Value;

use crate::event;
use crate::span::{Span, ready};

const STREAM: &str = "peer";
const GROUP: &str = "bench";
/// The field that it reads.
const FIELD: &str = "msg";

pub async fn fill(url: &str, events: u64) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    event::add(&mut connection, STREAM, FIELD, events).await
}

pub async fn drain(url: &str, events: u64) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let streamer = RedisStreamer::connect(url.parse()?, Default::default()).await?;
    let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
    options
        .set_auto_stream_reset(AutoStreamReset::Earliest)
        .set_auto_commit(AutoCommit::Rolling)
        .set_auto_commit_interval(Duration::from_millis(100))
        .set_batch_size(100);
    options.set_consumer_group(ConsumerGroup::new(GROUP))?;
    ready().await?;
    let consumer = streamer.create_consumer(&[StreamKey::new(STREAM)?], options).await?;
    let span = Span::default();
    for _ in 0..events {
        let message = consumer.next().await?;
        span.begin();
        let event: Value = serde_json::from_str(message.message().as_str()?)?;
        event::check(&event)?;
        consumer.ack(&message)?;
    }
    // Ending it commits, and comes first: the event below must find it waiting.
    let ending = tokio::spawn(consumer.end());
    tokio::task::yield_now().await;
    let waker: String = connection.xadd(STREAM, "*", &[(FIELD, "wake")]).await?;
    ending.await?.context("committing the last acknowledgements")?;
    span.end(events, "sea-streamer-redis 0.5.2; LoadBalanced, AutoCommit::Rolling each 100 ms, batch 100")?;
    // Nobody acknowledges the event that woke it. It may have been left unread, too.
    let _: u64 = connection.xack(STREAM, GROUP, &[&waker]).await?;
    let _: u64 = connection.xdel(STREAM, &[&waker]).await?;
    Ok(())
}
