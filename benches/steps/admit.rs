//! Admission, by what the event is.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_core::model::outcome::NotRun;
use tidemill_schema::Registry;
use tidemill_schema::admit::{AdmitOptions, admit};
use tidemill_schema::event::Event;

use super::Ready;
use crate::user_created;

pub(super) fn user() -> Ready {
    admitted(user_created(1))
}

pub(super) fn order() -> Ready {
    admitted(order_created(2))
}

/// As many items as 32 KB hold.
pub(super) fn items_32k() -> Ready {
    admitted(order_created(165))
}

/// A user with a long note.
pub(super) fn text_32k() -> Ready {
    admitted(user_created(1).replace("a member", &"a member ".repeat(3600)))
}

/// An address that is none.
pub(super) fn refusal() -> Ready {
    let event = user_created(1).replace("@example.com", "");
    ready(event, |answer| assert!(matches!(answer, Err(NotRun::Invalid(_))), "{answer:?}"))
}

fn admitted(event: String) -> Ready {
    ready(event, |answer| assert!(answer.is_ok(), "{answer:?}"))
}

fn ready(event: String, check: fn(&Result<Event, NotRun>)) -> Ready {
    let registry = Registry::load(&tidemill_testkit::root().join("schemas")).expect("good schemas");
    let (registry, event) = (Arc::new(registry), Bytes::from(event));
    Box::new(move || {
        let (registry, event) = (registry.clone(), event.clone());
        Box::new(move || {
            let key = ["/data/user_id".to_owned()];
            let terms = AdmitOptions { wants: &|_, _| true, key: &key, payload_bytes_max: 1 << 20 };
            check(&black_box(admit(&registry, black_box(&event), &terms)));
        })
    })
}

/// About 880 bytes with two items.
fn order_created(items: usize) -> String {
    let item = |number: usize| {
        format!(
            r#"{{"product_id":{number},"sku_id":{number},"sku_code":"85123A","product_name":"White hanging heart T-light holder","sku_name":"white, 6 pieces","quantity":6,"unit_price":2.55,"subtotal":15.3}}"#
        )
    };
    let items: Vec<String> = (1..=items).map(item).collect();
    format!(
        r#"{{"event_id":"0191d3a0-0000-7000-8000-000000000001","event_type":"Order.Created","version":"1","timestamp":"2026-01-31T12:00:00.000Z","correlation_id":"0191d3a0-0000-7000-8000-000000000001","data":{{"order_id":536366,"order_number":"536366","user_id":17850,"total_amount":30.6,"status":"confirmed","items":[{}],"shipping_address":{{"recipient":"Customer 17850","phone":"+44 20 7946 0958","address":"1 Long Lane","city":"London","province":"Greater London"}},"created_at":"2026-01-31T12:00:00.000Z"}}}}"#,
        items.join(",")
    )
}
