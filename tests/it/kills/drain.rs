//! Rows 9 and 10: a host that is told to go with its hands full.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use tidemill_testkit::checker::{Terms, read_log};
use tidemill_testkit::ledger::host::Host;
use tidemill_testkit::ledger::producer::{Posting, Publisher};
use tidemill_testkit::ledger::{Ledger, Options};
use uuid::Uuid;

use super::{on_redis, on_sqlite};

/// All of them fit into one batch: while it waits, a reader asks each of its two queues for half of it.
const ONE_BATCH: Options = Options { deadline: "2s", batch: 256, bounds: "" };
const SLOW: u64 = 100;
/// Some five milliseconds.
const SPINS: u64 = 2_000_000;
/// Two deadlines and the margin for settling, and as much again for a busy machine. Beyond it the host is stuck.
const DRAINED_MAX: Duration = Duration::from_secs(18);
const GIVE_UP: Duration = Duration::from_secs(60);

/// A host with 100 slow deliveries in hand and one that never ends.
fn hands_full(ledger: &Ledger) -> Host {
    let mut publisher = Publisher::open(&ledger.store, &ledger.url, &ledger.log());
    for n in 1..=SLOW + 1 {
        let mode = if n == SLOW / 2 { "hang" } else { "slow" };
        let posting = Posting { n, key: format!("k{}", n % 7), amount: 1, mode, fail_times: 0, spins: SPINS };
        publisher.post(Uuid::new_v4(), &posting);
    }
    let mut host = ledger.host(None);
    let (name, give_up) = (host.wait_for_consumer(), Instant::now() + GIVE_UP);
    while ledger.pending_of(&name) != Ok(SLOW as usize + 1) {
        assert!(Instant::now() < give_up, "never had all of them in hand: {}", host.said());
        std::thread::sleep(Duration::from_millis(2));
    }
    host
}

/// After the host has ended: everything is settled or waits, nothing has gone wrong; and the next host does the rest.
fn nothing_is_lost(ledger: &Ledger, said: &str) {
    let ended = ledger.check(Terms { at_rest: false, ..Terms::default() });
    eprintln!("{said}: committed {}, released {}; {ended}", ended.committed, ended.waiting);
    ended.must_be_clean(ledger);
    ledger.run_until_idle();
    let report = ledger.check(Terms::default());
    report.must_be_clean(ledger);
    assert_eq!((report.committed, report.dead), (SLOW as usize, 1), "{report}");
    assert_eq!(read_log(&ledger.log()).map(|inputs| inputs.len()), Ok(SLOW as usize + 1));
}

fn drained_by_the_deadline(ledger: &Ledger) {
    let mut host = hands_full(ledger);
    let told = Instant::now();
    host.signal("TERM");
    let exit = host.ends_within(DRAINED_MAX);
    let took = told.elapsed();
    assert!(exit.is_some_and(|exit| exit.success()), "{exit:?} after {took:?}\n{}", host.said());
    let name = host.wait_for_consumer();
    assert_eq!(ledger.pending_of(&name), Ok(0), "a host that took its leave holds nothing");
    nothing_is_lost(ledger, &format!("SIGTERM with {} in flight: ended in {took:?}", SLOW + 1));
}

fn a_second_signal(ledger: &Ledger) {
    let mut host = hands_full(ledger);
    host.signal("TERM");
    std::thread::sleep(Duration::from_millis(50));
    let told = Instant::now();
    host.signal("TERM");
    let exit = host.ends_within(GIVE_UP).expect("a second signal ends it");
    let took = told.elapsed();
    assert_eq!(exit.signal(), None, "it ends by itself: {exit:?}");
    nothing_is_lost(ledger, &format!("a second SIGTERM: ended in {took:?}"));
}

mod sigterm_drains_by_the_deadline {
    use super::*;

    #[test]
    fn on_redis() {
        drained_by_the_deadline(&super::on_redis(ONE_BATCH));
    }

    #[test]
    fn on_sqlite() {
        drained_by_the_deadline(&super::on_sqlite(ONE_BATCH));
    }
}

mod a_second_signal_ends_at_once_and_loses_nothing {
    use super::*;

    #[test]
    fn on_redis() {
        a_second_signal(&super::on_redis(ONE_BATCH));
    }

    #[test]
    fn on_sqlite() {
        a_second_signal(&super::on_sqlite(ONE_BATCH));
    }
}
