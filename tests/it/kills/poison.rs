//! Row 41: an event that kills the host each time is set aside and run alone; the others of its batch are not given up
//! with it.
//!
//! No guest can kill a host, so hosts are made to die at the first event that they run.

use std::time::Duration;

use tidemill_testkit::checker::Terms;
use tidemill_testkit::ledger::producer::{Posting, Publisher};
use tidemill_testkit::ledger::{Ledger, Options};
use uuid::Uuid;

use super::{on_redis, on_sqlite};

const INNOCENT: u64 = 5;
/// Hosts that die with the whole batch in hand, before anybody is suspected.
const DEATHS_TOGETHER: u32 = 3;
const DEATH_MAX: Duration = Duration::from_secs(60);

fn quarantined(ledger: &Ledger) {
    let mut publisher = Publisher::open(&ledger.store, &ledger.url, &ledger.log());
    for n in 1..=INNOCENT + 1 {
        let posting = Posting { n, key: "k".to_owned(), amount: 1, mode: "ok", fail_times: 0, spins: 0 };
        publisher.post(Uuid::new_v4(), &posting);
    }
    // The one death more is that of a host that runs a suspect alone.
    for death in 1..=DEATHS_TOGETHER + 1 {
        let mut host = ledger.host(Some("in-plugin:1"));
        host.ends_within(DEATH_MAX);
        assert!(host.died_by_fault(), "host {death} lives: {}", host.said());
    }
    ledger.run_until_idle();
    let report = ledger.check(Terms { crashes_max: u64::from(DEATHS_TOGETHER) + 1, ..Terms::default() });
    eprintln!("{report}");
    report.must_be_clean(ledger);
    assert_eq!((report.committed, report.poison), (INNOCENT as usize, 1), "{report}");
}

mod an_event_that_kills_the_host_is_quarantined {
    use super::*;

    #[test]
    fn on_redis() {
        quarantined(&super::on_redis(Options { deadline: "1s", batch: 32, ..Options::default() }));
    }

    #[test]
    fn on_sqlite() {
        quarantined(&super::on_sqlite(Options { deadline: "1s", batch: 32, ..Options::default() }));
    }
}
