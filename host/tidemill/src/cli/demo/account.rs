//! Is every event accounted for? The shop's own counters against what the backend holds.

use std::collections::BTreeMap;

use super::shop::Truth;
use crate::cli::dead::select::Pages;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::status;
use tidemill_runtime::status::{StatusRow, StatusRows};
use tidemill_storage::Backend;

/// Entries read in one step when a stream is counted.
const PAGE: usize = 2000;

/// What the backend holds at the end.
pub(crate) struct Account {
    pub rows: StatusRows,
    pub dead: BTreeMap<(String, ReasonClass), u64>,
    /// Entries of the streams that handlers emit to.
    pub emitted: BTreeMap<&'static str, u64>,
}

pub(super) async fn collect(backend: &dyn Backend, subscriptions: &[Subscription]) -> anyhow::Result<Account> {
    let mut dead = BTreeMap::new();
    for subscription in subscriptions {
        let mut pages = Pages::of(subscription.clone());
        while let Some(letters) = pages.next(backend).await? {
            for letter in letters {
                *dead.entry((subscription.handler.to_string(), letter.reason.class)).or_default() += 1;
            }
        }
    }
    let mut emitted = BTreeMap::new();
    for stream in ["payment-events", "notification-events", "search-events", "inventory-events"] {
        emitted.insert(stream, length(backend, stream).await?);
    }
    Ok(Account { rows: status::collect(backend, subscriptions).await?, dead, emitted })
}

async fn length(backend: &dyn Backend, stream: &str) -> anyhow::Result<u64> {
    let (mut count, mut last) = (0, None);
    loop {
        let page = backend.entries(stream, last, PAGE).await?;
        count += page.len() as u64;
        match page.last() {
            Some((id, _)) => last = Some(*id),
            None => return Ok(count),
        }
    }
}

/// Every way in which the counters disagree; empty if every event is accounted for.
pub(crate) fn differences(truth: &Truth, account: &Account) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |what: String, wanted: u64, is: u64| {
        if wanted != is {
            found.push(format!("{what}: {is}, should be {wanted}"));
        }
    };
    // A handler that somebody added has no part in the demo's counters.
    let known = account.rows.iter().filter(|(handler, _)| invalid_of(truth).iter().any(|(name, _)| name == handler));
    for (handler, streams) in known {
        for StatusRow { subscription, status, .. } in streams {
            let status = status.unwrap_or_default();
            expect(format!("{subscription}: counters that balance"), 1, u64::from(status.balances()));
            expect(format!("{subscription}: waiting"), 0, status.waiting());
            let published = match &*subscription.stream {
                "user-events" => truth.users,
                "product-events" => truth.products,
                "order-events" => truth.orders,
                _ => truth.reservations,
            };
            expect(format!("{subscription}: published"), published, status.published);
        }
        expect(format!("{handler}: committed"), committed(truth, handler), status::total(streams).committed);
    }
    let dead = |handler: &str, class| account.dead.get(&(handler.to_owned(), class)).copied().unwrap_or(0);
    for (handler, invalid) in invalid_of(truth) {
        expect(format!("{handler}: dead letters, invalid"), invalid, dead(handler, ReasonClass::Invalid));
    }
    expect(
        "payment-service: dead letters, exhausted".to_owned(),
        truth.fail_always,
        dead("payment-service", ReasonClass::Exhausted),
    );
    let retried = account.rows.get("payment-service").map_or(0, |streams| status::total(streams).retried);
    expect("payment-service: retries".to_owned(), truth.fail_once + 3 * truth.fail_always, retried);
    for (stream, wanted) in [
        ("payment-events", truth.good_orders - truth.fail_always),
        ("notification-events", truth.good_users + truth.good_orders),
        ("search-events", truth.good_products - truth.archived_products),
        ("inventory-events", truth.reservations),
    ] {
        expect(format!("{stream}: events emitted"), wanted, account.emitted[stream]);
    }
    found
}

/// Which good events a handler commits.
fn committed(truth: &Truth, handler: &str) -> u64 {
    match handler {
        "notification-service" => truth.good_users + truth.good_orders,
        "analytics-service" => truth.good_users + truth.good_products + truth.good_orders,
        "recommendation-service" => truth.good_users,
        "search-service" | "cache-service" => truth.good_products,
        "inventory-service" => truth.good_orders + truth.reservations,
        "payment-service" => truth.good_orders - truth.fail_always,
        _ => 0,
    }
}

/// The invalid events that a handler wanted.
fn invalid_of(truth: &Truth) -> [(&'static str, u64); 7] {
    let (users, products, orders) = (truth.invalid_users, truth.invalid_products, truth.invalid_orders);
    [
        ("notification-service", users + orders),
        ("analytics-service", users + products + orders),
        ("recommendation-service", users),
        ("search-service", products),
        ("cache-service", products),
        ("inventory-service", orders),
        ("payment-service", orders),
    ]
}
