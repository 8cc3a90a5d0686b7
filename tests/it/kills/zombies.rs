//! Rows 7 and 8: hosts that are stopped for longer than their lease, and wake up with deliveries in hand that are
//! others' by now.

use std::time::{Duration, Instant};

use tidemill_testkit::checker::Terms;
use tidemill_testkit::ledger::host::Host;
use tidemill_testkit::ledger::producer::SLOW;
use tidemill_testkit::ledger::{Ledger, Options};

use super::{kills, on_redis, on_sqlite, seed};

/// Each of these batches takes some hundreds of milliseconds.
const BUSY: Options = Options { deadline: "2s", batch: 8, bounds: "" };
/// Hosts that are stopped at a time.
const STOPPED: usize = 4;
const EVENTS_PER_SECOND: u32 = 40;
/// While both are stopped nobody works, and what has piled up is to be done at the end.
const EVENTS_PER_SECOND_STOPPED: u32 = 12;
/// Time to live of a heartbeat (5 s), and the lease (two deadlines and a second), and the time between two looks.
const TAKEN_OVER_AFTER: Duration = Duration::from_secs(13);
/// Time enough to settle what they had in hand, and to look for what is left.
const AWAKE: Duration = Duration::from_secs(3);
const GIVE_UP: Duration = Duration::from_secs(60);
/// What a batch and its settlement may take on a machine that is busy.
const FENCED_MAX: Duration = Duration::from_secs(20);

/// Stops a host with deliveries in hand: not on its way to fetch, and not with the settlement sent already.
fn stop_at_work(ledger: &Ledger, host: &mut Host) -> bool {
    let name = host.wait_for_consumer();
    let give_up = Instant::now() + GIVE_UP;
    while Instant::now() < give_up {
        host.signal("STOP");
        std::thread::sleep(Duration::from_millis(100));
        if ledger.takes_writes() && ledger.pending_of(&name).expect("the store answers") > 0 {
            return true;
        }
        host.signal("CONT");
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + GIVE_UP;
    while !holds() {
        assert!(Instant::now() < give_up, "never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Not every one has to be: one that was stopped between claiming what an earlier zombie held and reading it has nothing
/// to settle when it wakes.
fn says_fenced(zombie: &Host) -> bool {
    let give_up = Instant::now() + FENCED_MAX;
    while Instant::now() < give_up {
        if zombie.said().contains("fenced") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("a zombie that woke had nothing to settle; it said: {}", zombie.said());
    false
}

fn fenced_when_it_wakes(ledger: &Ledger, zombies_wanted: u32) {
    let producer = ledger.produce(SLOW, EVENTS_PER_SECOND, seed());
    let (mut fenced, mut stopped) = (0, 0);
    while fenced < zombies_wanted {
        assert!(stopped < 3 * zombies_wanted, "of {stopped} zombies only {fenced} were fenced");
        let count = STOPPED.min((zombies_wanted - fenced) as usize);
        let mut zombies: Vec<Host> = (0..count).map(|_| ledger.host(None)).collect();
        for zombie in &mut zombies {
            assert!(stop_at_work(ledger, zombie), "a busy host has deliveries in flight");
            stopped += 1;
        }
        let _healthy = ledger.host(None);
        for zombie in &mut zombies {
            let name = zombie.wait_for_consumer();
            wait_until("its deliveries are reclaimed", || ledger.pending_of(&name) == Ok(0));
        }
        for zombie in &mut zombies {
            zombie.signal("CONT");
            fenced += u32::from(says_fenced(zombie));
        }
    }
    producer.stop();
    ledger.run_until_idle();
    let report = ledger.check(Terms::default());
    eprintln!("{fenced} zombies fenced; {report}");
    report.must_be_clean(ledger);
}

fn stopped_and_woken_together(ledger: &Ledger, times: u32) {
    let producer = ledger.produce(SLOW, EVENTS_PER_SECOND_STOPPED, seed());
    for _ in 0..times {
        let mut hosts = [ledger.host(None), ledger.host(None)];
        for host in &mut hosts {
            assert!(stop_at_work(ledger, host), "a busy host has deliveries in hand");
        }
        std::thread::sleep(TAKEN_OVER_AFTER);
        hosts.iter().for_each(|host| host.signal("CONT"));
        std::thread::sleep(AWAKE);
        hosts.iter().for_each(|host| host.signal("TERM"));
        for host in &mut hosts {
            assert!(host.ends_within(GIVE_UP).is_some_and(|exit| exit.success()), "{}", host.said());
        }
    }
    producer.stop();
    ledger.run_until_idle();
    let report = ledger.check(Terms::default());
    eprintln!("{times} times stopped together; {report}");
    report.must_be_clean(ledger);
}

mod a_stopped_host_is_fenced_when_it_wakes {
    use super::*;

    #[test]
    fn on_redis() {
        fenced_when_it_wakes(&super::on_redis(BUSY), kills(2));
    }

    #[test]
    fn on_sqlite() {
        fenced_when_it_wakes(&super::on_sqlite(BUSY), kills(2));
    }
}

mod both_hosts_stopped_and_woken_together {
    use super::*;

    #[test]
    fn on_redis() {
        stopped_and_woken_together(&super::on_redis(BUSY), kills(2) / 2);
    }

    #[test]
    fn on_sqlite() {
        stopped_and_woken_together(&super::on_sqlite(BUSY), kills(2) / 2);
    }
}
