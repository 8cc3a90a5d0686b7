//! Rows 1 to 6: hosts die at each point at which something is half done.
//!
//! On one world with a producer that goes on all the time, hosts are started that die when they come to the point for
//! the n-th time, n by chance; as soon as one is dead, the next one starts. Then a healthy host settles what is left,
//! and the checker judges.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidemill_testkit::checker::Terms;
use tidemill_testkit::ledger::host::Host;
use tidemill_testkit::ledger::producer::{DYING, EVERYTHING, Mix};
use tidemill_testkit::ledger::{Ledger, Options};

use super::{kills, on_redis, on_sqlite, seed};

/// How a fault point is met.
struct Row {
    point: &'static str,
    /// Dies at one of its first so many passages.
    passages_max: u32,
    /// Half of the hosts die here instead, to leave the others something; their deaths do not count.
    beside: Option<&'static str>,
    /// Hosts at a time: more for points that come seldom.
    hosts: usize,
    command: &'static [&'static str],
    mix: Mix,
}

const USUAL: Row = Row { point: "", passages_max: 6, beside: None, hosts: 2, command: &["run"], mix: EVERYTHING };

/// A host that is to die at a point.
struct Doomed {
    host: Host,
    point: &'static str,
    since: Instant,
}

/// A host that does not come to its point in this time is killed where it is.
const PATIENCE: Duration = Duration::from_secs(30);
/// All deaths of a row, at the very most, for each that is wanted.
const DEATH_MAX: Duration = Duration::from_secs(40);
const EVENTS_PER_SECOND: u32 = 150;

fn kill_at(ledger: &Ledger, row: &Row, deaths_wanted: u32) {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let producer = ledger.produce(row.mix, EVENTS_PER_SECOND, seed);
    // What is run is a host already, except for commands that need one beside them.
    let _beside = (row.command[0] != "run").then(|| ledger.host(None));
    let give_up = Instant::now() + DEATH_MAX * deaths_wanted;
    let (mut deaths, mut others) = (0, Vec::new());
    let mut hosts: Vec<Doomed> = Vec::new();
    while deaths < deaths_wanted {
        assert!(Instant::now() < give_up, "{}: seed {seed}: only {deaths} deaths; others: {others:?}", row.point);
        while hosts.len() < row.hosts {
            let point = row.beside.filter(|_| rng.random()).unwrap_or(row.point);
            let fault = format!("{point}:{}", rng.random_range(1..=row.passages_max));
            hosts.push(Doomed { host: ledger.spawn(row.command, Some(&fault)), point, since: Instant::now() });
        }
        hosts.retain_mut(|Doomed { host, point, since }| {
            if since.elapsed() > PATIENCE {
                host.kill();
            }
            let Some(exit) = host.exit() else { return true };
            if host.died_by_fault() {
                deaths += u32::from(*point == row.point);
            } else if !exit.success() {
                others.push(exit);
            }
            false
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    drop((hosts, _beside));
    producer.stop();
    ledger.run_until_idle();
    let report = ledger.check(Terms { replays: row.command[0] == "dead", ..Terms::default() });
    eprintln!("{}: seed {seed}: {deaths} deaths; {report}", row.point);
    report.must_be_clean(ledger);
}

/// A test for each row, on both backends.
macro_rules! rows {
    ($($name:ident => [$($row:expr),+];)*) => {$(
        mod $name {
            use super::*;
            #[test]
            fn on_redis() {
                $(kill_at(&super::on_redis(BOUNDED), &$row, kills(4));)+
            }
            #[test]
            fn on_sqlite() {
                $(kill_at(&super::on_sqlite(BOUNDED), &$row, kills(4));)+
            }
        }
    )*};
}

const REPLAY: &[&str] = &["dead", "replay", "--all", "--yes", "--rate", "0"];

/// The input stream is always trimmed as far as may be: that must not touch what is unfinished.
const BOUNDED: Options = Options { deadline: "2s", batch: 16, bounds: "maxlen = 100" };

rows! {
    kill_9_after_fetch => [Row { point: "fetched", ..USUAL }];
    kill_9_inside_the_plugin => [Row { point: "in-plugin", passages_max: 60, ..USUAL }];
    kill_9_after_the_plugin_returned => [Row { point: "plugin-returned", ..USUAL }];
    kill_9_before_the_settlement_is_sent => [Row { point: "settling", ..USUAL }];
    kill_9_after_the_settlement_was_done => [Row { point: "settled", ..USUAL }];
    kill_9_around_promote => [Row { point: "promoting", ..USUAL }, Row { point: "promoted", ..USUAL }];
    kill_9_around_recover =>
        [Row { point: "recovering", passages_max: 2, ..USUAL }, Row { point: "recovered", passages_max: 2, beside: Some("settling"), ..USUAL }];
    kill_9_around_trim =>
        [Row { point: "trimming", passages_max: 2, hosts: 5, ..USUAL }, Row { point: "trimmed", passages_max: 2, hosts: 5, ..USUAL }];
    kill_9_around_replay =>
        [Row { point: "replaying", passages_max: 2, hosts: 1, command: REPLAY, mix: DYING, ..USUAL }];
}
