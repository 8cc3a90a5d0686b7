//! Both ends of the wire to Redis: its answer becomes deliveries, a settlement becomes a command.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use redis::Value;
use tidemill_core::model::delivery::{Body, Delivery, Disposition, Effects, Emitted, EntryId, Queue, Subscription};
use tidemill_runtime::options::backend_options;
use tidemill_storage::{Settlement, SettlementEntry};
use tidemill_storage_redis::Redis;
use uuid::Uuid;

use super::Ready;
use crate::{Case, user_created};

/// Events in a batch, as many as a host takes at once by default.
pub const BATCH: usize = 128;

fn subscription() -> Subscription {
    Subscription { stream: "bench-users".into(), handler: "bench".into() }
}

fn entry_id(number: u64) -> EntryId {
    EntryId(1_769_860_800_000 + number / 3, number % 3)
}

/// What Redis answers when a batch is fetched: byte for byte, as it travels.
fn answer() -> Vec<u8> {
    let text = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let entry = |number| {
        let id = text(&entry_id(number).to_string());
        format!("*2\r\n{id}*2\r\n{}{}", text("event"), text(&user_created(number)))
    };
    let entries: String = (0..BATCH as u64).map(entry).collect();
    format!("*1\r\n*2\r\n{}*{BATCH}\r\n{entries}", text("bench-users")).into_bytes()
}

/// The answer's bytes become values: the `redis` crate's work.
pub(super) fn parse() -> Ready {
    let answer: Arc<[u8]> = answer().into();
    Box::new(move || {
        let answer = answer.clone();
        Box::new(move || _ = black_box(redis::parse_redis_value(black_box(&*answer)).expect("a good answer")))
    })
}

/// The values become deliveries: ours.
pub(super) fn decode() -> Ready {
    let (bytes, subscription) = (answer(), Arc::new(subscription()));
    Box::new(move || {
        let answer: Value = redis::parse_redis_value(&bytes).expect("a good answer");
        let subscription = subscription.clone();
        Box::new(move || {
            let deliveries = Redis::decode(answer, &subscription).expect("deliveries").deliveries;
            assert_eq!(deliveries.len(), BATCH);
            black_box(deliveries);
        })
    })
}

/// A settlement becomes the command that is sent.
pub(super) fn encode(case: Case) -> Ready {
    let options = backend_options(&case.config("sqlite::memory:", ""));
    let settlement = Arc::new(settlement(case));
    Box::new(move || {
        let (settlement, options) = (settlement.clone(), options.clone());
        Box::new(move || _ = black_box(Redis::encode(black_box(&*settlement), &options).expect("a command")))
    })
}

/// What the plugin of this case asks for on one event.
pub fn effects(case: Case) -> Effects {
    let mut effects = Effects::default();
    match case {
        Case::Stateless => {}
        Case::Emit => effects.emits.push(Emitted { stream: "bench-out".into(), body: user_created(0).into() }),
        Case::Keyed => {
            let counts = Bytes::from_static(br#"{"events":1,"orders":0,"revenue_cents":0}"#);
            effects.writes.insert("2026-01-31".to_owned(), Some(counts));
        }
    }
    effects
}

fn settlement(case: Case) -> Settlement {
    let entry = |number: u64| SettlementEntry {
        delivery: Delivery::first(Queue::Stream, entry_id(number), Body::Event(user_created(number).into())),
        dedup_key: Some((Uuid::from_u128(number.into()), [7; 16])),
        state: (case == Case::Keyed).then(|| (number.to_string().into(), 0)),
        disposition: Disposition::Commit(effects(case)),
    };
    Settlement {
        subscription: subscription(),
        consumer: "bench-0191d3a0".into(),
        plugin: "0123456789ab".into(),
        token: Uuid::from_u128(1),
        entries: (0..BATCH as u64).map(entry).collect(),
    }
}
