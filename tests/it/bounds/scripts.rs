//! What one script does on Redis while everybody waits for it, and what one connection waits for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::{Mode, Proxy};
use redis::Value;
use tidemill_core::model::dead_letter::{AttemptRecord, Reason, ReasonClass};
use tidemill_core::model::delivery::{Delivery, Disposition, Subscription};
use tidemill_storage::{
    Backend, Bounds, NewEntry, Operator, Options, Overflow, Settled, Settlement, SettlementEntry, Start,
};
use tidemill_testkit::server::RedisServer;
use uuid::Uuid;

/// A subscription on a server of its own.
struct Rig {
    server: RedisServer,
    backend: Arc<dyn Backend>,
    subscription: Subscription,
}

impl Rig {
    async fn new(settings: &[&str], options: Options) -> Self {
        let server = RedisServer::start(&[&["--save", ""], settings].concat());
        let backend = tidemill::backends::open(&server.url(), options).await.unwrap();
        let subscription = Subscription { stream: "s".into(), handler: "h".into() };
        backend.ensure_group(&subscription, Start::Beginning).await.unwrap();
        Self { server, backend, subscription }
    }

    /// Puts entries with the ids `FROM-1` to `TO-1` on the stream, as quickly as a script can.
    fn fill(&self, from: usize, to: usize) {
        const AT_ONCE: usize = 100_000;
        let script = "for i = ARGV[1], ARGV[2] do redis.call('XADD', KEYS[1], i .. '-1', 'e', '') end";
        for first in (from..=to).step_by(AT_ONCE) {
            let last = to.min(first + AT_ONCE - 1);
            self.server.ask::<Value>(&["EVAL", script, "1", "s", &first.to_string(), &last.to_string()]);
        }
    }

    /// One call: how many entries were removed, how many of them a group has lost, how many are left.
    async fn trim(&self, maxlen: u64) -> (u64, u64, u64) {
        let bounds = Bounds { maxlen: Some(maxlen), overflow: Overflow::Drop, ..Bounds::default() };
        let trimmed = self.backend.trim("s", &bounds).await.unwrap();
        (trimmed.removed, trimmed.lost, trimmed.length)
    }

    async fn publish(&self, bodies: &[String]) {
        let entry = |body: &String| NewEntry { body: body.clone().into(), dedup_key: None };
        self.backend.publish("s", &bodies.iter().map(entry).collect::<Vec<_>>()).await.unwrap();
    }

    async fn fetch(&self, count: usize) -> Vec<Delivery> {
        let mut got: Vec<Delivery> = Vec::new();
        while got.len() < count {
            let wait = Duration::from_secs(10);
            let some = self.backend.fetch(&self.subscription, "me", count - got.len(), wait).await.unwrap();
            got.extend(some.deliveries);
            if some.more {
                let held: HashSet<_> = got.iter().map(|delivery| (delivery.queue, delivery.entry)).collect();
                let lease = Duration::from_secs(3600);
                let rest =
                    self.backend.recover(&self.subscription, "me", &held, lease, count - got.len()).await.unwrap();
                got.extend(rest.deliveries);
            }
        }
        got
    }

    async fn settle(&self, got: Vec<Delivery>, disposition: impl Fn() -> Disposition, wanted: Settled) {
        let entry = |delivery| SettlementEntry { delivery, dedup_key: None, state: None, disposition: disposition() };
        let (subscription, consumer, plugin) = (self.subscription.clone(), "me".into(), "p".into());
        let entries = got.into_iter().map(entry).collect();
        let settlement = Settlement { subscription, consumer, plugin, token: Uuid::new_v4(), entries };
        let answers = self.backend.settle(&settlement).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == wanted), "{answers:?}");
    }

    async fn write_dead_letters(&self, count: usize) {
        self.bury_all(&vec!["b".to_owned(); count]).await;
    }

    async fn bury_all(&self, bodies: &[String]) {
        self.publish(bodies).await;
        let reason = || Reason { class: ReasonClass::Rejected, text: "because".into() };
        let dead = || Disposition::DeadLetter { reason: reason(), record: None };
        self.settle(self.fetch(bodies.len()).await, dead, Settled::Dead).await;
    }

    /// Puts these off, until now.
    async fn schedule(&self, bodies: &[String]) {
        self.publish(bodies).await;
        let record = || AttemptRecord {
            attempt: 1,
            at_ms: 0,
            class: "failed".into(),
            reason: "no".into(),
            plugin: "p".into(),
            log: Vec::new(),
        };
        let retry = || Disposition::Retry { after: Duration::ZERO, record: record() };
        self.settle(self.fetch(bodies.len()).await, retry, Settled::Retried).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is left goes with the next call.
///
/// Reaches `ENTRIES_MAX`, `TRIM_CALLS_MAX` and `COUNT_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_and_counting_have_bounds() {
    const ALL: usize = 20 * 100_000;
    let rig = Rig::new(&[], Options::default()).await;
    rig.fill(1, 100_001);
    // The server cannot tell the lag any more: it has to be counted.
    for (deleted, lag) in [("500-1", 100_000), ("501-1", 99_999)] {
        rig.server.ask::<u64>(&["XDEL", "s", deleted]);
        assert_eq!(rig.backend.status(&rig.subscription).await.unwrap().lag, lag);
    }
    rig.fill(100_002, ALL + 102);
    assert_eq!(rig.backend.status(&rig.subscription).await.unwrap().lag, 100_000, "as far as it is counted");
    let (all, left) = (ALL as u64, 100);
    assert_eq!(rig.trim(0).await, (all, all, left));
    assert_eq!(rig.trim(0).await, (left, left, 0));
}

/// Reaches `NODE_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_within_one_node_has_a_bound() {
    // A node of any length.
    let settings = ["--stream-node-max-entries", "0", "--stream-node-max-bytes", "0"];
    let rig = Rig::new(&settings, Options::default()).await;
    rig.fill(1, 2001);
    assert_eq!(rig.trim(1001).await, (1000, 1000, 1001), "all that had to go");
    rig.fill(2002, 2002);
    assert_eq!(rig.trim(1).await, (1000, 1000, 2), "one less");
    assert_eq!(rig.trim(1).await, (1, 1, 1));
}

/// Reaches `PENDING_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_goes_while_it_is_pending_so_many_are_counted() {
    let rig = Rig::new(&[], Options::default()).await;
    for (from, count, counted) in [(1, 10_000, 10_000), (20_000, 10_001, 10_000)] {
        rig.fill(from, from + count - 1);
        rig.server.ask::<Value>(&["XREADGROUP", "GROUP", "h", "gone", "COUNT", "20000", "STREAMS", "s", ">"]);
        assert_eq!(rig.trim(0).await, (count as u64, counted, 0));
    }
}

/// Reaches `groups::HOSTS_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_listed_up_to_a_bound() {
    let rig = Rig::new(&[], Options::default()).await;
    let listed = async || rig.backend.hosts(&[]).await.unwrap().len();
    for number in 0..1000 {
        rig.backend.heartbeat(&format!("host-{number}"), Duration::from_secs(600), "").await.unwrap();
    }
    assert_eq!(listed().await, 1000);
    rig.backend.heartbeat("one-more", Duration::from_secs(600), "").await.unwrap();
    assert_eq!(listed().await, 1000);
    let hosts = rig.backend.hosts(&[]).await.unwrap();
    assert!(hosts.iter().any(|host| &*host.consumer == "one-more"), "those that were heard last");
}

/// Reaches `status::CONSUMERS_MAX` and `doctor_streams::CONSUMERS_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_counted_by_name_up_to_a_bound_and_then_at_large() {
    let rig = Rig::new(&[], Options::default()).await;
    let counted = async || rig.backend.status(&rig.subscription).await.unwrap().consumers;
    let (input, again) = ("s", "{s}:tm:redelivery:h");
    let script = "for i = ARGV[2], ARGV[3] do redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], 'h', ARGV[1] .. i) end";
    for (queue, name) in [(input, "a"), (again, "b")] {
        rig.server.ask::<Value>(&["EVAL", script, "1", queue, name, "1", "1000"]);
    }
    assert_eq!(counted().await, 2000, "each by its name");
    for (queue, name) in [(input, "a"), (again, "b")] {
        rig.server.ask::<Value>(&["EVAL", script, "1", queue, name, "1001", "1001"]);
    }
    assert_eq!(counted().await, 1001, "as many as the queue has that has more of them");
    let silent = async || {
        let found = rig.backend.diagnose(std::slice::from_ref(&rig.subscription), &[]).await.unwrap();
        let finding = found.into_iter().find(|finding| finding.check == "consumers").expect("many are dead");
        finding.text
    };
    for (to, told) in [("10000", "10000 consumers have no heartbeat"), ("10001", "10000 consumers have no heartbeat")] {
        rig.server.ask::<Value>(&["EVAL", script, "1", input, "a", "1002", to]);
        let text = silent().await;
        assert!(text.contains(told), "{text}");
    }
}

/// Letters of an older version: a part of them is learned with each step, and a part evicted.
///
/// Reaches `letters::STEP_MAX` and `STEP_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_step_learns_and_evicts_up_to_a_bound() {
    let options = |max: u64| Options { dead_letters_max: max, ..Options::default() };
    let write = |rig: &Rig, count: usize, bytes: usize| {
        let script = "local body = string.rep('x', ARGV[2]) for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'class', \
                      'rejected', 'text', '', 'event', body, 'origin', '1-1', 'attempts', 0, 'crashes', 0, 'history', '', \
                      'replayed', '') end";
        rig.server.ask::<Value>(&["EVAL", script, "1", "{s}:tm:dead:h", &count.to_string(), &bytes.to_string()]);
    };
    // Of what `write_dead_letters` writes, 10 bytes are counted.
    let learned = async |rig: &Rig| rig.backend.status(&rig.subscription).await.unwrap().dead_bytes;
    let rig = Rig::new(&[], options(100_000)).await;
    write(&rig, 1005, 1);
    rig.write_dead_letters(1).await;
    assert_eq!(learned(&rig).await, 1000, "so many of one byte");
    rig.write_dead_letters(1).await;
    assert_eq!(learned(&rig).await, 1005 + 2 * 10);
    let rig = Rig::new(&[], options(100_000)).await;
    write(&rig, 40, 1 << 20);
    rig.write_dead_letters(1).await;
    assert_eq!(learned(&rig).await, 20 << 20, "beyond 16 MiB, by less than a page of ten");
    rig.write_dead_letters(1).await;
    assert_eq!(learned(&rig).await, 40 << 20);
    rig.write_dead_letters(1).await;
    assert_eq!(learned(&rig).await, (40 << 20) + 3 * 10);

    let mut rig = Rig::new(&[], options(100_000)).await;
    for _ in 0..3 {
        rig.write_dead_letters(500).await;
    }
    rig.backend = tidemill::backends::open(&rig.server.url(), options(10)).await.unwrap();
    let left = async |rig: &Rig| rig.backend.status(&rig.subscription).await.unwrap().dead;
    rig.write_dead_letters(1).await;
    assert_eq!(left(&rig).await, 500, "a thousand, and as many as were added");
    rig.write_dead_letters(1).await;
    assert_eq!(left(&rig).await, 10);
}

/// Reaches `admin::CALL_MAX`, `REPLAY_BYTES_MAX` and `DROP_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_on_more_letters_than_one_call_takes_are_done_whole() {
    let rig = Rig::new(&[], Options::default()).await;
    let ids = async || {
        let letters = rig.backend.dead_letters(&rig.subscription, None, 1000).await.unwrap();
        letters.iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    let many = [vec!["b".to_owned(); 200], vec!["b".to_owned(); 201], vec!["b".repeat(1_000_000); 20]];
    for bodies in &many {
        let count = bodies.len();
        rig.bury_all(bodies).await;
        assert_eq!(rig.backend.replay(&rig.subscription, &ids().await, &Operator::default()).await.unwrap(), count);
        let reason = || Reason { class: ReasonClass::Rejected, text: "again".into() };
        let dead = || Disposition::DeadLetter { reason: reason(), record: None };
        rig.settle(rig.fetch(count).await, dead, Settled::Dead).await;
        assert_eq!(rig.backend.drop_dead(&rig.subscription, &ids().await, &Operator::default()).await.unwrap(), count);
        assert_eq!(ids().await, []);
    }
    let audit = rig.backend.audit(&rig.subscription, None, 100).await.unwrap();
    let counts: Vec<u64> = audit.iter().map(|record| record.count).collect();
    // 16 letters of a megabyte are less than 16 MiB, the 17th goes beyond.
    assert_eq!(counts, [200, 200, 200, 1, 200, 1, 17, 3, 17, 3], "one record for each call");
}

/// Reaches `promote::CALL_MAX` and `PROMOTE_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_is_moved_in_calls_that_have_bounds() {
    let options = || Options { payload_bytes_max: 20 << 20, ..Options::default() };
    let rig = Rig::new(&[], options()).await;
    rig.schedule(&vec!["b".to_owned(); 201]).await;
    assert_eq!(rig.backend.promote(&rig.subscription, 500).await.unwrap().moved, 201, "more than one call moves");
    let rig = Rig::new(&[], options()).await;
    // With what is written around each, 15 of them are less than 16 MiB, and 16 are more.
    rig.schedule(&vec!["b".repeat(1 << 20); 40]).await;
    let mut moved = Vec::new();
    for _ in 0..4 {
        let promoted = rig.backend.promote(&rig.subscription, 500).await.unwrap();
        moved.push(promoted.moved);
        assert_eq!(promoted.next_in, (moved.iter().sum::<usize>() < 40).then_some(Duration::ZERO));
    }
    assert_eq!(moved, [15, 15, 10, 0]);
    let rig = Rig::new(&[], options()).await;
    rig.schedule(&["b".repeat(17 << 20)]).await;
    assert_eq!(rig.backend.promote(&rig.subscription, 500).await.unwrap().moved, 1, "one in any case");
}

/// Neither who connects nor who beats waits for ever.
///
/// Reaches `link::CONNECT_MAX` and `BEAT_ANSWER_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = RedisServer::start(&["--save", ""]);
    let proxy = Proxy::start(server.port).await;
    let open = async || tidemill::backends::open(&proxy.url(), Options::default()).await;
    let backend = open().await.unwrap();
    backend.heartbeat("me", Duration::from_secs(600), "").await.unwrap();
    proxy.set(Mode::BlackHole);
    let stuck = Duration::from_secs(25);
    let beat = tokio::time::timeout(stuck, backend.heartbeat("me", Duration::from_secs(600), "")).await;
    assert!(beat.expect("a beat waits for less than any other answer, which is 30 s").is_err());
    assert!(tokio::time::timeout(stuck, open()).await.expect("a connection, too").is_err());
    proxy.set(Mode::Pass);
    backend.heartbeat("me", Duration::from_secs(600), "").await.unwrap();
}
