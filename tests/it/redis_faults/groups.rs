//! Strangers' commands on a group: destroyed, moved, its entries acknowledged and deleted, consumers of odd names. It goes
//! on where it was, or asks a person; what strangers did is said and counted.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use serde_json::json;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_storage::{Pause, Start, Tended};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{QUICK, World};

use super::rig::{Rig, STUCK};

const VOLATILE: [&str; 4] = ["--save", "", "--appendonly", "no"];
/// So short that it is over soon.
const SHORT: &str = "[idempotency]\nwindow = \"1s\"";

async fn emits(world: &World, count: usize) {
    for _ in 0..count {
        world.ask(json!({ "do": "emit-many", "count": 1 })).await;
    }
}

fn destroy(server: &RedisServer, world: &World) {
    server.ask::<Value>(&["XGROUP", "DESTROY", &world.asked, "mischief"]);
}

async fn tend(world: &World) -> Tended {
    world.backend.tend(&world.subscription, "somebody", "{}").await.unwrap()
}

/// Tends until somebody's deed is counted: a position is looked at about once a second.
async fn counted(world: &World) -> (u64, u64) {
    let give_up = Instant::now() + STUCK;
    loop {
        tend(world).await;
        let status = world.backend.status(&world.subscription).await.unwrap();
        if status.strayed + status.repeated > 0 {
            assert!(status.balances(), "{status:?}");
            return (status.strayed, status.repeated);
        }
        assert!(Instant::now() < give_up, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Older than all that the inbox remembers, and none of it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destroyed_group_goes_on_where_it_was_after_the_window() {
    let server = RedisServer::start(&VOLATILE);
    let world = World::with(&server.url(), QUICK, SHORT).await;
    emits(&world, 50).await;
    world.run().await;
    // The inbox has forgotten all of it.
    let buckets: Vec<String> = server.ask(&["KEYS", &format!("{{{}}}:tm:seen:*", world.asked)]);
    assert!(!buckets.is_empty());
    buckets.iter().for_each(|key| drop(server.ask::<Value>(&["DEL", key])));
    destroy(&server, &world);
    emits(&world, 10).await;
    world.run().await;
    let status = world.status().await;
    assert_eq!((world.emitted().await.len(), status.committed, status.published), (60, 60, 60), "{status:?}");
    assert_eq!((status.strayed, status.repeated), (0, 0), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_is_destroyed_under_load_loses_nothing_and_repeats_nothing() {
    let server = RedisServer::start(&VOLATILE);
    let rig = Rig::new(&server).await;
    let hosts = rig.hosts(2).await;
    let load = rig.load();
    for round in 1..=4 {
        rig.committed(round * 100).await;
        destroy(&server, &rig.world);
    }
    load.stop().await;
    let total = rig.total();
    rig.wait_for("the end", |status| status.committed >= total && status.waiting() == 0).await;
    hosts.stop().await;
    let mut causes = rig.emitted().await;
    let all = causes.len() as u64;
    causes.sort_unstable();
    causes.dedup();
    assert_eq!((causes.len() as u64, all), (total / 2, total / 2), "one effect for each");
    counted_or_balanced(&rig.world).await;
    let status = rig.world.status().await;
    assert_eq!((status.committed, status.dead, status.strayed), (total, 0, 0), "{status:?}");
    assert_eq!(status.skipped, status.duplicates, "what came twice was known: {status:?}");
}

/// What came once more is counted as soon as somebody looks.
async fn counted_or_balanced(world: &World) {
    let status = world.backend.status(&world.subscription).await.unwrap();
    if !status.balances() {
        counted(world).await;
    }
}

struct Cli {
    folder: tempfile::TempDir,
    text: String,
}

impl Cli {
    fn of(world: &World, url: &str) -> Self {
        let schemas = tidemill_testkit::root().join("tests/schemas");
        let text = tidemill_testkit::world::config(
            url,
            &tidemill_testkit::guest("mischief"),
            world.asked.trim_start_matches("asked-"),
            QUICK,
            "",
        );
        let text = text.replace("path = \"tests/schemas\"", &format!("path = \"{}\"", schemas.display()));
        Self { folder: tempfile::tempdir().unwrap(), text }
    }

    fn run(&self, args: &[&str]) -> (Output, String) {
        let file: PathBuf = self.folder.path().join("tidemill.toml");
        std::fs::write(&file, &self.text).unwrap();
        let output = tidemill_testkit::tidemill().args(args).arg("--config").arg(&file).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output, said)
    }
}

/// A group of a host that noted nothing (an older one), or whose notes were lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_group_whose_position_is_not_known_waits_for_a_person() {
    let server = RedisServer::start(&VOLATILE);
    let world = World::new(&server.url(), QUICK).await;
    emits(&world, 20).await;
    world.run().await;
    let entries = world.backend.entries(&world.asked, None, 100).await.unwrap();
    let last_done = entries.last().unwrap().0.to_string();
    destroy(&server, &world);
    server.ask::<Value>(&["DEL", &format!("{{{}}}:tm:position:mischief", world.asked)]);
    emits(&world, 5).await;
    // On connections of its own: this process remembers how far it had read.
    let world = world.by(&server.url()).await;
    let (trigger, shutdown) = ShutdownTrigger::new();
    let ended = world.host_until(Arc::new(trigger), shutdown, true).await.unwrap_err().to_string();
    assert!(ended.contains("what waits there was not handled\n  hint: say where to begin"), "{ended}");
    assert_eq!(world.emitted().await.len(), 20, "nothing is fetched");
    let paused = async || world.backend.paused(std::slice::from_ref(&world.subscription)).await.unwrap();
    assert_eq!(paused().await, [Pause::Lost]);
    let trimmed = tidemill_storage::Bounds {
        maxlen: Some(0),
        groups: vec![world.subscription.handler.clone()],
        ..Default::default()
    };
    assert_eq!(world.backend.trim(&world.asked, &trimmed).await.unwrap().removed, 0, "it is needed still");

    let cli = Cli::of(&world, &server.url());
    let (_, said) = cli.run(&["status"]);
    assert!(said.contains("position lost") && said.contains("tidemill plugin resume mischief --from"), "{said}");
    let (_, said) = cli.run(&["doctor"]);
    assert!(said.contains("its group was lost, and its position is unknown"), "{said}");
    let (refused, said) = cli.run(&["plugin", "resume", "mischief"]);
    assert!(refused.status.code() == Some(2) && said.contains("say where to begin: --from beginning"), "{said}");
    assert_eq!(paused().await, [Pause::Lost]);

    let (resumed, said) = cli.run(&["plugin", "resume", "mischief", "--from", &last_done]);
    assert!(resumed.status.success() && said.contains("begins where you said"), "{said}");
    assert_eq!(paused().await, [Pause::No]);
    world.run().await;
    let status = world.status().await;
    assert_eq!((world.emitted().await.len(), status.committed, status.skipped), (25, 25, 0), "{status:?}");
    let (_, said) = cli.run(&["dead", "audit"]);
    assert!(said.contains("resume") && said.contains(&format!("from behind {last_done}")), "{said}");
    let (refused, said) = cli.run(&["plugin", "resume", "mischief", "--from", "now"]);
    assert!(refused.status.code() == Some(2) && said.contains("goes on where it is"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_strangers_do_to_a_group_is_said_and_counted() {
    let server = RedisServer::start(&VOLATILE);
    let fetched = async |world: &World| {
        let mut got = Vec::new();
        while got.len() < 4 {
            let some = world.backend.fetch(&world.subscription, "somebody", 4, Duration::from_secs(1)).await.unwrap();
            got.extend(some.deliveries);
        }
        got
    };
    type Deed = fn(&RedisServer, &str, &str);
    let deeds: [(&str, Deed, (u64, u64)); 5] = [
        ("XACK", |server, stream, id| drop(server.ask::<Value>(&["XACK", stream, "mischief", id])), (1, 0)),
        (
            "XDEL",
            |server, stream, id| {
                drop((
                    server.ask::<Value>(&["XDEL", stream, id]),
                    server.ask::<Value>(&["XACK", stream, "mischief", id]),
                ))
            },
            (1, 0),
        ),
        (
            "XCLAIM",
            |server, stream, id| {
                server.ask::<Value>(&["XCLAIM", stream, "mischief", "thief", "0", id]);
                server.ask::<Value>(&["XACK", stream, "mischief", id]);
            },
            (1, 0),
        ),
        (
            "SETID on",
            |server, stream, _| {
                for _ in 0..3 {
                    server.ask::<Value>(&["XADD", stream, "*", "event", "x"]);
                }
                server.ask::<Value>(&["XGROUP", "SETID", stream, "mischief", "$"]);
            },
            (3, 0),
        ),
        (
            "XTRIM",
            |server, stream, _| {
                server.ask::<Value>(&["XADD", stream, "*", "event", "x"]);
                server.ask::<Value>(&["XADD", stream, "*", "event", "x"]);
                server.ask::<Value>(&["XTRIM", stream, "MAXLEN", "0"]);
            },
            (2, 0),
        ),
    ];
    for (name, deed, expected) in deeds {
        let world = World::new(&server.url(), QUICK).await;
        world.backend.ensure_group(&world.subscription, tidemill_storage::Start::Beginning).await.unwrap();
        emits(&world, 4).await;
        let got = fetched(&world).await;
        tend(&world).await;
        assert!(world.backend.status(&world.subscription).await.unwrap().balances());
        deed(&server, &world.asked, &got[0].entry.to_string());
        assert_eq!(counted(&world).await, expected, "{name}");
    }
}

/// Of more than is noted the rest is read again.
///
/// Reaches `POSITION_PENDING_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_lost_group_with_much_in_hand_nothing_is_lost() {
    const IN_HAND: usize = 1_500;
    let server = RedisServer::start(&VOLATILE);
    let world = World::new(&server.url(), QUICK).await;
    world.backend.ensure_group(&world.subscription, tidemill_storage::Start::Beginning).await.unwrap();
    // So that there is an inbox: without one nobody knows what was done.
    emits(&world, 5).await;
    world.run().await;
    emits(&world, IN_HAND).await;
    let mut got = 0;
    while got < IN_HAND {
        let fetched = world.backend.fetch(&world.subscription, "gone", 500, Duration::from_secs(1)).await.unwrap();
        got += fetched.deliveries.len();
    }
    tend(&world).await;
    destroy(&server, &world);
    world.run().await;
    let status = world.status().await;
    assert_eq!((world.emitted().await.len(), status.committed), (IN_HAND + 5, IN_HAND as u64 + 5), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_is_moved_back_is_said_and_repeats_nothing_within_the_window() {
    let server = RedisServer::start(&VOLATILE);
    let world = World::new(&server.url(), QUICK).await;
    emits(&world, 20).await;
    world.run().await;
    server.ask::<Value>(&["XGROUP", "SETID", &world.asked, "mischief", "0"]);
    assert!(tend(&world).await.set_back.is_some());
    assert!(tend(&world).await.set_back.is_none(), "said once");
    world.run().await;
    assert_eq!(counted(&world).await, (0, 20));
    let status = world.status().await;
    assert_eq!((world.emitted().await.len(), status.committed, status.duplicates), (20, 20, 20), "{status:?}");
}

/// What a stranger took under a name that is no text comes back like what any dead consumer had.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_of_any_name_are_recovered() {
    let server = RedisServer::start(&VOLATILE);
    let world = World::new(&server.url(), &format!("{QUICK}\ndeadline = \"100ms\"")).await;
    world.backend.ensure_group(&world.subscription, tidemill_storage::Start::Beginning).await.unwrap();
    let names: [&[u8]; 5] = [b"\xffx", b"", b"a b\n", b"\0", "\u{1F30A}".as_bytes()];
    emits(&world, names.len()).await;
    let mut client = server.client().await;
    for name in names {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("mischief").arg(name).arg("COUNT").arg(1).arg("STREAMS").arg(&world.asked).arg(">");
        let _: Value = read.query_async(&mut client).await.unwrap();
    }
    world.run().await;
    let status = world.status().await;
    assert_eq!((status.committed, status.pending, status.dead), (names.len() as u64, 0, 0), "{status:?}");
    let left: Vec<Value> = server.ask(&["XINFO", "CONSUMERS", &world.asked, "mischief"]);
    assert!(left.is_empty(), "none of them stays: {left:?}");
}

/// Two hosts wanted the same. One took its leave, and the other one died: before that, so that who left came after it; or
/// later, so that somebody may start it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wish_of_who_died_after_its_twin_had_left_still_counts() {
    let server = RedisServer::start(&VOLATILE);
    let world = World::with(&server.url(), QUICK, "").await;
    world.backend.ensure_group(&world.subscription, Start::Beginning).await.unwrap();
    let wishes = format!("{{{}}}:tm:wishes:mischief", world.asked);
    let now = tidemill_core::clock::now_ms();
    // It left 60 s ago; the others' last words came earlier and later.
    let wish = |till: u64, end: &str| format!("{till}{end} {{}}");
    let (left, ttl) = (now - 60_000, 600_000);
    for (host, value) in [
        ("left", wish(left + 10_000, "e")),
        ("died before", wish(left - 1_000 + ttl, "")),
        ("died after", wish(left + 1_000 + ttl, "")),
    ] {
        server.ask::<Value>(&["HSET", &wishes, host, &value]);
    }
    tend(&world).await;
    let mut there: Vec<String> = server.ask(&["HKEYS", &wishes]);
    there.sort();
    assert_eq!(there, ["died after", "somebody"]);
}

/// As long as a host has a heartbeat, nobody has replaced it, whenever its wish was renewed last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wish_of_who_seems_replaced_counts_while_it_has_a_heartbeat() {
    let server = RedisServer::start(&VOLATILE);
    let world = World::with(&server.url(), QUICK, "").await;
    world.backend.ensure_group(&world.subscription, Start::Beginning).await.unwrap();
    let wishes = format!("{{{}}}:tm:wishes:mischief", world.asked);
    let (left, ttl) = (tidemill_core::clock::now_ms() - 60_000, 600_000);
    server.ask::<Value>(&["HSET", &wishes, "left", &format!("{}e {{}}", left + 10_000)]);
    server.ask::<Value>(&["HSET", &wishes, "late", &format!("{} {{}}", left - 1_000 + ttl)]);
    let heartbeat = "{tm}:host:late";
    server.ask::<Value>(&["SET", heartbeat, "{}"]);
    let there = async || {
        tend(&world).await;
        let mut there: Vec<String> = server.ask(&["HKEYS", &wishes]);
        there.sort();
        there
    };
    assert_eq!(there().await, ["late", "left", "somebody"], "both, for whoever looks next needs both to tell");
    server.ask::<Value>(&["DEL", heartbeat]);
    assert_eq!(there().await, ["somebody"]);
}
