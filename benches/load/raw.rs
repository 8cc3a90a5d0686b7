//! The yardstick: XREADGROUP and XACK, a hundred at a time, with the same client library, and nothing else.

use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::setup::STREAM;

pub(crate) const GROUP: &str = "raw";
const COUNT: usize = 100;

pub(crate) async fn drain(connection: &mut MultiplexedConnection, events: u64) -> anyhow::Result<()> {
    let mut done = 0;
    while done < events {
        let reply: Value = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg("raw")
            .arg("COUNT")
            .arg(COUNT)
            .arg("STREAMS")
            .arg(STREAM)
            .arg(">")
            .query_async(connection)
            .await?;
        let mut ack = redis::cmd("XACK");
        ack.arg(STREAM).arg(GROUP);
        let mut found = 0;
        for id in ids(&reply) {
            ack.arg(id);
            found += 1;
        }
        anyhow::ensure!(found > 0, "the stream ran dry after {done} events");
        let _: u64 = ack.query_async(connection).await?;
        done += found;
    }
    Ok(())
}

/// The entry ids of a reply: `[[stream, [[id, fields], ...]]]`.
fn ids(reply: &Value) -> impl Iterator<Item = &[u8]> {
    let streams = items(Some(reply)).iter();
    let entries = streams.flat_map(|stream| items(items(Some(stream)).get(1)));
    entries.filter_map(|entry| match items(Some(entry)).first() {
        Some(Value::BulkString(id)) => Some(id.as_slice()),
        _ => None,
    })
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}
