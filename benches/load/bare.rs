//! The ceiling: the same backend calls as the pipeline makes, with nothing in between. No admission, no plugin.

use std::time::Duration;

use tidemill_core::model::delivery::{Delivery, Disposition, Effects, Subscription};
use tidemill_storage::{Consume, Settlement, SettlementEntry};
use uuid::Uuid;

use crate::setup::STREAM;

pub(crate) const HANDLER: &str = "bare";
/// The host's default, `host.batch`.
const BATCH: usize = 128;
const WAIT: Duration = Duration::from_secs(1);

pub(crate) fn subscription() -> Subscription {
    Subscription { stream: STREAM.into(), handler: HANDLER.into() }
}

pub(crate) async fn drain(backend: &dyn Consume, events: u64) -> anyhow::Result<()> {
    let mut done = 0;
    while done < events {
        let batch = backend.fetch(&subscription(), "bare", BATCH, WAIT).await?.deliveries;
        anyhow::ensure!(!batch.is_empty(), "the stream ran dry after {done} events");
        done += batch.len() as u64;
        let entry = |delivery: Delivery| SettlementEntry {
            delivery,
            dedup_key: Some((Uuid::new_v4(), [0; 16])),
            state: None,
            disposition: Disposition::Commit(Effects::default()),
        };
        let settlement = Settlement {
            subscription: subscription(),
            consumer: "bare".into(),
            plugin: "bare".into(),
            token: Uuid::new_v4(),
            entries: batch.into_iter().map(entry).collect(),
        };
        backend.settle(&settlement).await?;
    }
    Ok(())
}
