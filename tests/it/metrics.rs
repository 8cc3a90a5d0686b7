//! `GET /metrics`, scraped over TCP from a host at work: every line is well formed, every row of the tables appears, and
//! the numbers are those of the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_config::HttpConfig;
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::build;
use tidemill_runtime::observe;
use tidemill_runtime::observe::metrics::{BACKEND_ROWS, PROCESS_ROWS};
use tidemill_runtime::publisher::Publisher;
use tidemill_runtime::reload::settings::{Control, FileDigests};
use tidemill_runtime::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_storage::{Error, Published, Start, Trimmed};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{QUICK, World, event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

crate::on_both_backends! {
    async fn the_metrics_agree_with_the_counters(url: &str) {
        // Hosts of other tests on the shared server would be counted, too.
        let own = url.starts_with("redis:").then(|| RedisServer::start(&["--save", "", "--appendonly", "no"]));
        let mut world = World::new(&own.as_ref().map_or(url.to_owned(), RedisServer::url), QUICK).await;
        let token = token();
        world.config.http =
            Some(HttpConfig { listen: ([127, 0, 0, 1], 0).into(), token_file: Some(token.path().to_owned()) });
        world.backend.ensure_group(&world.subscription, Start::Beginning).await.unwrap();
        publish(&world).await;
        world.put("nonsense").await;
        let (trigger, shutdown) = ShutdownTrigger::new();
        let address = serve(&world, shutdown.clone()).await;
        let host = tokio::spawn(host(&world).run(Arc::new(ShutdownTrigger::new().0), shutdown, false));
        let status = until(async || {
            let status = world.status().await;
            (status.waiting() == 0).then_some(status)
        }).await;
        // A batch is counted a moment after the backend has settled it.
        let all = until(async || {
            let all = scrape(address).await;
            let settled = |result: &str| all.sum("tidemill_deliveries_total", &[&stream(&world), &format!("result=\"{result}\"")]);
            let ends = ["committed", "skipped", "duplicate", "dead"].map(settled).iter().sum::<u64>();
            (ends == status.published).then_some(all)
        }).await;
        let of = |name: &str, label: &str| all.sum(name, &[&stream(&world), r#"handler="mischief""#, label]);
        let result = |result: &str| of("tidemill_deliveries_total", &format!("result=\"{result}\""));
        assert_eq!((status.committed, status.duplicates, status.dead, status.retried), (16, 1, 4, 5), "{status:?}");
        assert_eq!(result("committed"), status.committed);
        assert_eq!((result("skipped") + result("duplicate"), result("duplicate")), (status.skipped, status.duplicates));
        assert_eq!((result("retried"), result("dead"), result("fenced")), (status.retried, status.dead, 0));
        for (reason, count) in [("rejected", 1), ("exhausted", 1), ("undecodable", 1), ("conflict", 1), ("poison", 0)] {
            assert_eq!(of("tidemill_dead_letters_total", &format!("reason=\"{reason}\"")), count, "{reason}");
        }
        for (class, count) in [("failed", 6), ("rejected", 1), ("trap", 0)] {
            assert_eq!(of("tidemill_attempts_failed_total", &format!("class=\"{class}\"")), count, "{class}");
        }
        let failed = of("tidemill_attempts_failed_total", "");
        assert_eq!(of("tidemill_call_seconds_count", ""), status.committed + failed, "every call was good or failed");
        for (counter, count) in [("published", status.published), ("committed", status.committed), ("skipped", status.skipped)] {
            assert_eq!(of("tidemill_entries_total", &format!("counter=\"{counter}\"")), count, "{counter}");
        }
        for (gauge, count) in [("lag", 0), ("pending", 0), ("due", 0), ("redelivery", 0), ("dead", status.dead), ("counters_balanced", 1)] {
            assert_eq!(of(&format!("tidemill_{gauge}"), ""), count, "{gauge}");
        }
        for (result, count) in [("added", 18), ("duplicate", 1), ("conflict", 1)] {
            let labels = [&*stream(&world), &format!("result=\"{result}\"")];
            assert_eq!(all.sum("tidemill_published_total", &labels), count, "{result}");
        }
        assert_eq!((all.sum("tidemill_backend_up", &[]), all.sum("tidemill_hosts", &[])), (1, 1));
        // With its second heartbeat the host has a rate to tell.
        let told = &until(async || {
            let told = api_status(address).await["handlers"][0].clone();
            (told["rate"].as_f64() > Some(0.0)).then_some(told)
        }).await;
        assert_eq!((&told["hosts"], &told["breaker"]), (&json!(1), &json!("closed")), "{told}");
        assert_eq!(told["plugins"].as_array().map(Vec::len), Some(1), "{told}");
        trigger.trigger();
        host.await.unwrap().unwrap();
    }
}

/// 18 events that the stream takes, one of them a second time, and with other content, and one that is refused.
async fn publish(world: &World) {
    let checked = build::check(&world.config).unwrap();
    let publisher = Publisher {
        backend: world.backend.clone(),
        schemas: checked.schemas,
        streams: checked.streams,
        payload_bytes_max: 10_000,
    };
    let twice = Uuid::new_v4();
    let mut events: Vec<Value> = (0..12).map(|_| event(Uuid::new_v4(), json!({ "do": "ok" }))).collect();
    events.push(event(Uuid::new_v4(), json!({ "do": "reject" })));
    events.push(event(Uuid::new_v4(), json!({ "do": "retry" })));
    events.push(event(Uuid::new_v4(), json!({ "do": "fail-until", "attempt": 3, "n": 1 })));
    events.push(event(twice, json!({ "do": "ok" })));
    let late = [event(twice, json!({ "do": "ok" })), event(twice, json!({ "do": "ok", "key": "other" }))];
    let ready = |events: &[Value]| -> Vec<_> {
        events.iter().map(|event| publisher.prepare(event.to_string().as_bytes()).unwrap()).collect()
    };
    let answers = publisher.publish(ready(&events)).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Published::Added(_))), "{answers:?}");
    let answers = publisher.publish(ready(&late)).await.unwrap();
    assert_eq!(answers, [Published::Duplicate, Published::Conflict]);
    assert!(publisher.prepare(b"{}").is_err());
    // Another producer asks nobody, so the handler gets these two.
    for event in &late {
        world.put(event.to_string()).await;
    }
    for _ in 0..2 {
        publisher.publish(ready(&[event(Uuid::new_v4(), json!({ "do": "ok" }))])).await.unwrap();
    }
}

/// What seldom happens is told here by hand, so that every row has something to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_appears_and_says_its_kind() {
    let world = World::new("sqlite::memory:", QUICK).await;
    publish(&world).await;
    world.run().await;
    let subscription =
        Subscription { stream: format!("rare-{}", Uuid::new_v4().simple()).into(), handler: "rare".into() };
    let labels = [format!("stream=\"{}\"", subscription.stream)];
    observe::group_remade(&subscription, tidemill_storage::Group::New);
    observe::breaker_changed("rare", "open");
    observe::canary_served("rare", 1, 0);
    observe::recovered(&subscription, &[]);
    observe::task_trouble("a test", &Error::Permanent("told by a test".to_owned()));
    let sent =
        tidemill_sandbox::capability::http::outbound::SentRequest { result: "2xx", took: Duration::from_millis(5) };
    observe::requested("rare", [sent].iter());
    let oldest_age = Some(Duration::from_secs(90));
    observe::trimmed(&subscription.stream, &Trimmed { removed: 5, lost: 2, length: 7, oldest_age, held: 0 });
    observe::trimmed(&subscription.stream, &Trimmed { removed: 1, lost: 0, length: 6, oldest_age, held: 0 });
    observe::reloaded("rare", "0123456789ab", 2, "loaded", Duration::from_millis(5));
    observe::settings_refused("told by a test");
    let (_trigger, shutdown) = ShutdownTrigger::new();
    let all = scrape(serve(&world, shutdown).await).await;
    for row in PROCESS_ROWS.iter().chain(BACKEND_ROWS) {
        let sample = if row.kind == "Histogram" { format!("{}_bucket", row.name) } else { row.name.to_owned() };
        assert!(all.samples.keys().any(|series| name_of(series) == sample), "{} does not appear", row.name);
        assert_eq!(all.kinds[row.name.trim_end_matches("_total")], row.kind.to_lowercase(), "{}", row.name);
    }
    assert_eq!(all.kinds.len(), PROCESS_ROWS.len() + BACKEND_ROWS.len(), "something has no row");
    for (name, count) in [
        ("tidemill_stream_lost_total", 1),
        ("tidemill_trimmed_total", 6),
        ("tidemill_trimmed_unfinished_total", 2),
        ("tidemill_stream_length", 6),
        ("tidemill_retention_effective_seconds", 90),
    ] {
        assert_eq!(all.sum(name, &[&labels[0]]), count, "{name}");
    }
    assert_eq!(all.sum("tidemill_breaker_state", &["handler=\"rare\""]), 2);
    assert_eq!(all.sum("tidemill_breaker_opened_total", &["handler=\"rare\""]), 1);
}

/// The process's own numbers do not need the backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_is_a_number_too() {
    let mut server = RedisServer::start(&["--save", ""]);
    let world = World::new(&server.url(), QUICK).await;
    world.ask(json!({ "do": "ok" })).await;
    world.run().await;
    let (_trigger, shutdown) = ShutdownTrigger::new();
    let address = serve(&world, shutdown).await;
    let committed = |all: &Scrape| all.sum("tidemill_deliveries_total", &[&stream(&world), "result=\"committed\""]);
    let all = scrape(address).await;
    assert_eq!((all.sum("tidemill_backend_up", &[]), committed(&all)), (1, 1));
    assert!(all.samples.keys().any(|series| series.starts_with("tidemill_lag{")));
    server.kill();
    // An answer of the last second may still be told.
    let all = until(async || {
        let all = scrape(address).await;
        (all.sum("tidemill_backend_up", &[]) == 0).then_some(all)
    })
    .await;
    assert_eq!(committed(&all), 1);
    assert!(!all.samples.keys().any(|series| series.starts_with("tidemill_lag{")), "nobody knows the lag now");
}

/// Asks until there is an answer; a question that has none by then is stuck.
async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("it does not come to that")
}

fn stream(world: &World) -> String {
    format!("stream=\"{}\"", world.asked)
}

fn host(world: &World) -> tidemill_runtime::host::Host {
    let checked = build::check(&world.config).expect("a good configuration");
    let plugins = build::plugins(&world.config, &checked).expect("good plugins");
    build::host(&world.config, &checked, plugins, world.backend.clone()).expect("a host")
}

/// The token of the hosts here.
const TOKEN: &str = "a-token-that-is-long-enough";

fn token() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    file
}

async fn serve(world: &World, shutdown: Shutdown) -> SocketAddr {
    let listener = tidemill_server::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let read = || Err("no file".to_owned());
    let (control, _) = Control::new(
        &host(world),
        "none.toml".into(),
        FileDigests::of("none.toml".as_ref(), &world.config),
        Box::new(read),
    );
    let door = tidemill_server::Door::default();
    door.open(world.backend.clone(), control);
    tokio::spawn(tidemill_server::serve(listener, door, shutdown));
    address
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{bearer}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    (head.to_lowercase(), body.to_owned())
}

async fn api_status(address: SocketAddr) -> Value {
    serde_json::from_str(&get(address, "/api/status").await.1).unwrap()
}

struct Scrape {
    /// By name and labels, as they are written.
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// The sum over the series with this name that have all these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let wanted = |series: &str| name_of(series) == name && labels.iter().all(|label| series.contains(label));
        self.samples.iter().filter(|(series, _)| wanted(series)).map(|(_, number)| *number).sum::<f64>() as u64
    }
}

fn name_of(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// Takes the text apart as OpenMetrics has it; a line of another form fails the test.
async fn scrape(address: SocketAddr) -> Scrape {
    let (head, text) = get(address, "/metrics").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let text = text.strip_suffix("# EOF\n").expect("the text ends with its end dedup_key");
    let (mut samples, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a help text");
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{line}");
        } else {
            let (series, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let number: f64 = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            let name = name_of(series);
            let ends = ["", "_total", "_bucket", "_sum", "_count"];
            let of_kind = |end: &&str| name.strip_suffix(end).is_some_and(|family| kinds.contains_key(family));
            assert!(ends.iter().any(of_kind), "no kind was said of: {line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            labels_are_well_formed(series);
            assert_eq!(samples.insert(series.to_owned(), number), None, "twice: {line}");
        }
    }
    Scrape { samples, kinds }
}

/// `name{a="b",c="d"}`; the values of this program have no quotes in them.
fn labels_are_well_formed(series: &str) {
    let Some((_, labels)) = series.split_once('{') else { return };
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no end: {series}"));
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("no value: {series}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{series}");
        assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{series}");
    }
}
