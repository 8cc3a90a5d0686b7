//! The event that all are measured with, the same as `user_created` of `benches/lib.rs`, and the handler's work.

use anyhow::ensure;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use uuid::Uuid;

pub fn user_created(number: u64) -> String {
    let id = Uuid::from_u128(0x0191_d3a0_0000_7000_8000_0000_0000_0000 + u128::from(number));
    format!(
        r#"{{"event_id":"{id}","event_type":"User.Created","version":"1","timestamp":"2026-01-31T12:00:00.000Z","correlation_id":"{id}","data":{{"user_id":{number},"username":"user-{number:08}","email":"user-{number:08}@example.com","created_at":"2026-01-31T12:00:00.000Z","user_type":"customer","note":"a member that no schema declares, as real ones have"}}}}"#
    )
}

/// What every peer's handler does.
pub fn check(event: &Value) -> anyhow::Result<()> {
    let email = event["data"]["email"].as_str().unwrap_or_default();
    ensure!(email.contains('@'), "no address: {email:?}");
    Ok(())
}

/// Entries of one field, a thousand in each round trip.
pub async fn add(connection: &mut MultiplexedConnection, stream: &str, field: &str, events: u64) -> anyhow::Result<()> {
    for start in (0..events).step_by(1000) {
        let mut pipe = redis::pipe();
        for number in start..(start + 1000).min(events) {
            pipe.cmd("XADD").arg(stream).arg("*").arg(field).arg(user_created(number)).ignore();
        }
        let () = pipe.query_async(connection).await?;
    }
    Ok(())
}
