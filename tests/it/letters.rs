//! Dead letters at their bounds: junk beside real ones, and accounts on Redis that somebody else has left behind.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use tidemill_core::model::dead_letter::{Reason, ReasonClass};
use tidemill_core::model::delivery::{Disposition, Subscription};
use tidemill_storage::{Backend, NewEntry, Options, Settled, Settlement, SettlementEntry, Start, SubscriptionStatus};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{NO_RETRY, World};
use uuid::Uuid;

crate::on_both_backends! {
    async fn junk_pushes_out_no_letter_of_an_event_that_ran(url: &str) {
        let mut world = World::new(url, NO_RETRY).await;
        world.config.host.dead_letters_max = 100;
        let world = world.by(url).await;
        let ask_and_run = async |count: usize| {
            for _ in 0..count {
                world.ask(json!({ "do": "reject" })).await;
            }
            world.run().await;
        };
        ask_and_run(3).await;
        let junk: Vec<NewEntry> = (0..2000).map(|n| NewEntry { body: format!("junk {n}").into(), dedup_key: None }).collect();
        world.backend.publish(&world.asked, &junk).await.unwrap();
        ask_and_run(2).await;
        let letters = world.dead().await;
        let of = |class| letters.iter().filter(|letter| letter.reason.class == class).count();
        assert_eq!((of(ReasonClass::Rejected), of(ReasonClass::Undecodable), letters.len()), (5, 50, 55));
        let status = world.status().await;
        assert_eq!((status.evicted_ran, status.evicted_unrun, status.dropped), (0, 1950, 1950), "{status:?}");
        assert_eq!((status.dead, status.dead_unrun), (55, 50));
        ask_and_run(97).await;
        let status = world.status().await;
        assert_eq!((status.dead, status.dead_unrun, status.evicted_ran, status.evicted_unrun), (100, 0, 2, 2000), "{status:?}");
    }

    async fn of_many_attempts_the_first_and_the_last_are_kept(url: &str) {
        let world = World::new(url, r#"retry = { max = 60, base = "0ms", factor = 1, cap = "0ms" }"#).await;
        world.ask(json!({ "do": "retry" })).await;
        world.run().await;
        let (letter, said) = world.only_dead().await;
        assert!(said.starts_with("exhausted: 61 attempts failed"), "{said}");
        let kept: Vec<u32> = letter.history.iter().map(|record| record.attempt).collect();
        assert_eq!(kept, (1..=20).chain(42..=61).collect::<Vec<_>>());
        assert_eq!(letter.history[20].left_out(letter.history.get(19)), 21);
    }
}

fn options() -> Options {
    Options { dead_letters_max: 20, dead_letters_bytes_max: 1 << 20, ..Options::default() }
}

/// A subscription on the shared server, with a connection that does what a stranger does.
struct Rig {
    backend: Arc<dyn Backend>,
    subscription: Subscription,
    server: MultiplexedConnection,
}

impl Rig {
    async fn new() -> Self {
        let url = RedisServer::shared().url();
        let backend = tidemill::backends::open(&url, options()).await.unwrap();
        let subscription =
            Subscription { stream: format!("letters-{}", Uuid::new_v4().simple()).into(), handler: "h".into() };
        backend.ensure_group(&subscription, Start::Beginning).await.unwrap();
        let server = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        Self { backend, subscription, server }
    }

    fn key(&self, what: &str) -> String {
        format!("{{{}}}:tm:{what}", self.subscription.stream)
    }

    /// A letter as the last version has written it: no account knows of it.
    async fn write_letter(&mut self, class: &str, body: &str) {
        let mut add = redis::cmd("XADD");
        add.arg(self.key("dead:h")).arg("*").arg("class").arg(class).arg("text").arg("because").arg("event").arg(body);
        add.arg("origin").arg("1-1").arg("attempts").arg(0).arg("crashes").arg(0).arg("history").arg("[]");
        let _: String = add.arg("replayed").arg("").query_async(&mut self.server).await.unwrap();
    }

    async fn run(&mut self, command: &str, key: &str, arguments: &[&str]) {
        let mut cmd = redis::cmd(command);
        cmd.arg(self.key(key)).arg(arguments);
        let _: redis::Value = cmd.query_async(&mut self.server).await.unwrap();
    }

    async fn write_dead_letters(&self, count: usize, class: ReasonClass) {
        let entries = vec![NewEntry { body: "b".into(), dedup_key: None }; count];
        self.backend.publish(&self.subscription.stream, &entries).await.unwrap();
        let mut got = Vec::new();
        while got.len() < count {
            got.extend(
                self.backend
                    .fetch(&self.subscription, "me", count - got.len(), Duration::from_secs(10))
                    .await
                    .unwrap()
                    .deliveries,
            );
        }
        let reason = Reason { class, text: "because".into() };
        let entry = |delivery| SettlementEntry {
            delivery,
            dedup_key: None,
            state: None,
            disposition: Disposition::DeadLetter { reason: reason.clone(), record: None },
        };
        let (subscription, consumer, plugin) = (self.subscription.clone(), "me".into(), "".into());
        let entries = got.into_iter().map(entry).collect();
        let settlement = Settlement { subscription, consumer, plugin, token: Uuid::new_v4(), entries };
        let answers = self.backend.settle(&settlement).await.unwrap();
        assert!(answers.iter().all(|settled| *settled == Settled::Dead));
    }

    /// Dead letters, those of them that never ran, their bytes, and what was evicted.
    async fn accounts(&self) -> (u64, u64, u64, u64, u64) {
        let SubscriptionStatus { dead, dead_unrun, dead_bytes, evicted_ran, evicted_unrun, .. } =
            self.backend.status(&self.subscription).await.unwrap();
        (dead, dead_unrun, dead_bytes, evicted_ran, evicted_unrun)
    }
}

/// What a letter of `write_letter` and `write_dead_letters` takes besides its body: its reason, and an empty history.
const REST: u64 = 7 + 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_the_last_version_are_learned() {
    let mut rig = Rig::new().await;
    for class in ["rejected", "undecodable", "exhausted", "unknown", "of a newer version"] {
        rig.write_letter(class, "12345").await;
    }
    assert_eq!(rig.accounts().await, (5, 0, 0, 0, 0), "nobody has looked at them");
    rig.write_dead_letters(1, ReasonClass::Rejected).await;
    assert_eq!(rig.accounts().await, (6, 2, 5 * (5 + REST) + 1 + REST, 0, 0));
    // Two of them never ran: they go first.
    rig.write_dead_letters(17, ReasonClass::Poison).await;
    assert_eq!(rig.accounts().await, (20, 0, 2 * (5 + REST) + 18 * (1 + REST), 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_a_stranger_removes_are_forgotten() {
    let mut rig = Rig::new().await;
    rig.write_dead_letters(6, ReasonClass::Unknown).await;
    rig.write_dead_letters(4, ReasonClass::Rejected).await;
    rig.run("XTRIM", "dead:h", &["MAXLEN", "=", "7"]).await;
    assert_eq!(rig.accounts().await, (7, 6, 10 * (1 + REST), 0, 0), "he has not told");
    rig.write_dead_letters(1, ReasonClass::Rejected).await;
    assert_eq!(rig.accounts().await, (8, 3, 8 * (1 + REST), 0, 0));
    rig.run("DEL", "dead:h", &[]).await;
    rig.write_dead_letters(3, ReasonClass::Unknown).await;
    assert_eq!(rig.accounts().await, (3, 3, 3 * (1 + REST), 0, 0));
}

/// As many as are known, but others: the last version takes letters and adds some without telling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_in_the_place_of_another_is_learned() {
    let mut rig = Rig::new().await;
    rig.write_dead_letters(3, ReasonClass::Rejected).await;
    rig.run("XTRIM", "dead:h", &["MAXLEN", "=", "2"]).await;
    rig.write_letter("unknown", "12345").await;
    assert_eq!(rig.accounts().await, (3, 0, 3 * (1 + REST), 0, 0), "nobody has told");
    rig.write_dead_letters(1, ReasonClass::Rejected).await;
    assert_eq!(rig.accounts().await, (4, 1, 3 * (1 + REST) + 5 + REST, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_that_was_lowered_is_met_with_the_next_letters() {
    let mut rig = Rig::new().await;
    rig.write_dead_letters(20, ReasonClass::Rejected).await;
    let lower = Options { dead_letters_max: 5, ..options() };
    rig.backend = tidemill::backends::open(&RedisServer::shared().url(), lower).await.unwrap();
    rig.write_dead_letters(1, ReasonClass::Rejected).await;
    assert_eq!(rig.accounts().await, (5, 0, 5 * (1 + REST), 16, 0));
}

/// An account that is no number is found before anything is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_account_stops_the_settlement_and_tears_nothing() {
    let mut rig = Rig::new().await;
    rig.write_dead_letters(1, ReasonClass::Rejected).await;
    rig.run("HSET", "stats:h", &["letters_bytes", "many"]).await;
    rig.backend.publish(&rig.subscription.stream, &[NewEntry { body: "b".into(), dedup_key: None }]).await.unwrap();
    let delivery =
        rig.backend.fetch(&rig.subscription, "me", 1, Duration::from_secs(10)).await.unwrap().deliveries.remove(0);
    let reason = Reason { class: ReasonClass::Rejected, text: "because".into() };
    let disposition = Disposition::DeadLetter { reason, record: None };
    let entries = vec![SettlementEntry { delivery, dedup_key: None, state: None, disposition }];
    let (subscription, consumer, plugin) = (rig.subscription.clone(), "me".into(), "".into());
    let settlement = Settlement { subscription, consumer, plugin, token: Uuid::new_v4(), entries };
    let error = rig.backend.settle(&settlement).await.unwrap_err().to_string();
    assert!(error.contains("letters_bytes is no number"), "{error}");
    rig.run("HDEL", "stats:h", &["letters_bytes"]).await;
    assert_eq!(rig.backend.settle(&settlement).await.unwrap(), [Settled::Dead]);
    assert_eq!(rig.backend.status(&rig.subscription).await.unwrap().torn, 0);
}
