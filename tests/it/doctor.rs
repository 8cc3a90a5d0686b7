//! `tidemill doctor` before servers that are set up well, badly, and worse; and what the janitor does with the dead.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tidemill_conformance::options;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{self as storage, Level, Options, Start};
use tidemill_testkit::server::RedisServer;

/// A host's folder: one stream, one handler, no plugin needed.
struct Patient {
    folder: tempfile::TempDir,
    url: String,
}

impl Patient {
    fn new(url: &str) -> Self {
        let patient = Self { folder: tempfile::tempdir().unwrap(), url: url.to_owned() };
        patient.write("");
        patient
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tidemill.toml")
    }

    fn write(&self, stream: &str) {
        let schemas = tidemill_testkit::root().join("tests/schemas");
        let text = format!(
            "[backend]\nurl = \"{}\"\n[schemas]\npath = \"{}\"\n[streams.asked]\nevents = [\"Test.Thing.Asked\"]\n{stream}\n\
             [handlers.mischief]\nplugin = \"mischief.wasm\"\nevents = [\"Test.Thing.Asked\"]\n",
            self.url,
            schemas.display()
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn doctor(&self, args: &[&str]) -> Output {
        let mut command = tidemill_testkit::tidemill();
        command.arg("doctor").args(args).arg("--config").arg(self.file()).output().unwrap()
    }

    /// The findings as `level check: text\n  hint`, and the exit code.
    fn findings(&self, args: &[&str]) -> (Vec<String>, i32) {
        let output = self.doctor(&[args, &["--json"]].concat());
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let line = |row: &Value| {
            format!("{} {}: {}\n  {}", text(row, "level"), text(row, "check"), text(row, "text"), text(row, "hint"))
        };
        (said["findings"].as_array().unwrap().iter().map(line).collect(), output.status.code().unwrap())
    }
}

#[track_caller]
fn says(found: &[String], begin: &str, part: &str) {
    let fits = |line: &&String| line.starts_with(begin) && line.contains(part);
    assert!(found.iter().any(|line| fits(&line)), "no \"{begin}\" with \"{part}\" in\n{}", found.join("\n"));
}

fn subscription() -> Subscription {
    Subscription { stream: "asked".into(), handler: "mischief".into() }
}

fn client(url: &str) -> redis::Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

#[track_caller]
fn run(url: &str, command: &str) {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| _ = cmd.arg(word));
    let _: redis::Value = cmd.query(&mut client(url)).unwrap_or_else(|error| panic!("{command}: {error}"));
}

async fn with_group(url: &str) {
    let backend = tidemill::backends::open(url, options()).await.unwrap();
    backend.ensure_group(&subscription(), Start::Beginning).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_everything_is_good() {
    let server = RedisServer::start(&[
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--aof-load-truncated",
        "no",
    ]);
    with_group(&server.url()).await;
    let patient = Patient::new(&server.url());
    let (found, code) = patient.findings(&[]);
    says(&found, "ok durability: always", "");
    says(&found, "ok eviction", "noeviction");
    says(&found, "ok rights", "tried on a scratch stream");
    says(&found, "ok stream ids", "asked");
    says(&found, "ok clock", "agree");
    says(&found, "ok server", "run id");
    assert!(
        !found.iter().any(|line| line.contains("leave it torn")),
        "a torn end is refused by this server\n{found:?}"
    );
    assert_eq!(code, 0, "{found:?}");
    let table = String::from_utf8(patient.doctor(&[]).stdout).unwrap();
    assert!(table.contains("0 bad, ") && table.lines().any(|line| line.starts_with("ok ")), "{table}");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client(&server.url())).unwrap();
    assert!(!keys.iter().any(|key| key.contains("doctor")), "the scratch stream is gone: {keys:?}");
}

#[test]
fn durability_is_told_by_its_class() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let (url, patient) = (server.url(), Patient::new(&server.url()));
    let (found, code) = patient.findings(&[]);
    says(&found, "bad durability: volatile", "nothing survives a restart");
    assert_eq!(code, 1, "{found:?}");
    run(&url, "CONFIG SET appendonly yes");
    run(&url, "CONFIG SET appendfsync everysec");
    let (found, code) = patient.findings(&[]);
    says(&found, "warning durability: everysec", "appendfsync always");
    // Of Valkey there are releases that are cured.
    if found.iter().any(|line| line.starts_with("ok server: redis")) {
        says(&found, "warning known bugs", "leave it torn");
    }
    assert_eq!(code, 0, "warnings alone: {found:?}");
    run(&url, "CONFIG SET min-replicas-to-write 1");
    run(&url, "CONFIG SET appendfsync always");
    let (found, _) = patient.findings(&[]);
    says(&found, "ok durability: always, replicated", "");
    says(&found, "bad rights: ", "NOREPLICAS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_dead_letters_that_a_server_cannot_hold_are_told() {
    let server = RedisServer::start(&["--save", "", "--maxmemory", "100mb"]);
    with_group(&server.url()).await;
    let patient = Patient::new(&server.url());
    says(&patient.findings(&[]).0, "warning dead letters: 1 subscriptions may keep 256 MiB", "of maxmemory, 100 MiB");
    run(&server.url(), "CONFIG SET maxmemory 600mb");
    let found = patient.findings(&[]).0;
    assert!(!found.iter().any(|line| line.contains("dead letters")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_that_a_server_cannot_hold_are_told() {
    let server = RedisServer::start(&["--save", "", "--maxmemory", "1gb"]);
    let examined = async |timers_bytes| {
        let options = Options { timers_bytes, ..options() };
        tidemill::backends::open(&server.url(), options).await.unwrap().diagnose(&[], &[]).await.unwrap()
    };
    let told = examined(600 << 20).await;
    let told = told.iter().find(|finding| finding.check == "timers").unwrap();
    assert!(told.text.contains("600 MiB, more than half of maxmemory, 1024 MiB"), "{told:?}");
    assert!(!examined(500 << 20).await.iter().any(|finding| finding.check == "timers"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_server_is_bad() {
    let server = RedisServer::start(&["--save", "", "--maxmemory", "100mb"]);
    let open = tidemill::backends::open(&server.url(), options()).await.unwrap();
    run(&server.url(), "CONFIG SET maxmemory-policy allkeys-lru");
    let (found, code) = Patient::new(&server.url()).findings(&[]);
    says(&found, "bad backend", "allkeys-lru");
    says(&found, "bad backend", "CONFIG SET maxmemory-policy noeviction");
    assert_eq!(code, 1);
    // So does a host that runs already, when its janitor looks.
    let found = open.diagnose(&[], &[]).await.unwrap();
    let eviction = found.iter().find(|finding| finding.check == "eviction").unwrap();
    assert_eq!(eviction.level, Level::Bad, "{eviction:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_that_lacks_a_right_is_named_by_doctor() {
    let server = RedisServer::start(&["--save", ""]);
    with_group(&server.url()).await;
    run(&server.url(), "ACL SETUSER host on >secret ~* &* +@all -xtrim -xclaim -xdel -config");
    let patient = Patient::new(&format!("redis://host:secret@127.0.0.1:{}", server.port));
    let (found, code) = patient.findings(&[]);
    says(&found, "bad rights: mischief on asked: trim needs XTRIM on asked", "ACL SETUSER");
    says(&found, "bad rights: mischief on asked: takeover needs XCLAIM on asked", "");
    says(&found, "bad rights: settle, tried on a scratch stream", "XDEL");
    assert_eq!(code, 1);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client(&server.url())).unwrap();
    assert!(!keys.iter().any(|key| key.contains("doctor-")), "removed, although it failed: {keys:?}");
    run(&server.url(), "ACL SETUSER host +xtrim +xclaim +xdel -evalsha");
    says(&patient.findings(&[]).0, "bad rights", "evalsha");
}

/// What is renamed away or forbidden where others run the server is said, with what to look up there; hosts work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managed_server_is_warned_of_and_not_bad() {
    let mut options = vec!["--save", "", "--appendonly", "yes"];
    for command in ["CONFIG", "BGREWRITEAOF", "BGSAVE", "SAVE", "DEBUG", "REPLICAOF", "MIGRATE", "ACL", "SHUTDOWN"] {
        options.extend(["--rename-command", command, ""]);
    }
    let renamed = RedisServer::start(&options);
    let forbidding = RedisServer::start(&["--save", "", "--appendonly", "yes"]);
    run(&forbidding.url(), "ACL SETUSER host on >secret ~* &* +@all -config -bgrewriteaof -@admin -@dangerous +info");
    let as_host = format!("redis://host:secret@127.0.0.1:{}", forbidding.port);
    for (url, why) in [(renamed.url(), "does not know"), (as_host, "may not")] {
        with_group(&url).await;
        let (found, code) = Patient::new(&url).findings(&[]);
        says(&found, "warning settings: the server's settings cannot be asked", "appendfsync");
        says(&found, "warning durability: the append-only file is on", "cannot be asked");
        says(&found, "warning rights: mischief on asked: aof_guard needs BGREWRITEAOF", why);
        says(&found, "warning rights: mischief on asked: aof_guard needs BGREWRITEAOF", "ask who runs the server");
        says(&found, "ok eviction", "");
        assert_eq!(code, 0, "warnings alone: {found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maximal_or_future_stream_ids_raise_an_alarm() {
    let server = RedisServer::start(&["--save", ""]);
    with_group(&server.url()).await;
    let patient = Patient::new(&server.url());
    says(&patient.findings(&[]).0, "ok stream ids", "asked");
    run(&server.url(), "XADD asked 99999999999999-0 event {}");
    let (found, code) = patient.findings(&[]);
    says(&found, "bad stream ids: asked: its last id 99999999999999-0", "in the future");
    assert_eq!(code, 1);
    run(&server.url(), "XADD asked 18446744073709551615-18446744073709551615 event {}");
    says(&patient.findings(&[]).0, "bad stream ids", "it takes no more entries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaks_in_redis_is_named() {
    let server = RedisServer::start(&["--save", ""]);
    let url = server.url();
    let patient = Patient::new(&url);
    says(&patient.findings(&[]).0, "warning streams: asked", "no such stream yet");
    run(&url, "XADD asked * event {}");
    says(&patient.findings(&[]).0, "warning groups: mischief on asked", "there is no such group");
    with_group(&url).await;
    run(&url, "XGROUP CREATE asked stranger 0");
    run(&url, "XREADGROUP GROUP mischief gone COUNT 1 STREAMS asked >");
    run(&url, "XREADGROUP GROUP mischief (released) COUNT 1 STREAMS asked >");
    let (found, code) = patient.findings(&[]);
    says(
        &found,
        "warning groups: asked: by the configuration no handler stranger reads this stream, and keeps",
        "XGROUP DESTROY asked stranger",
    );
    says(&found, "warning consumers: mischief on asked: 1 consumers have no heartbeat, 1 of them hold", "start a host");
    assert!(found.iter().any(|line| line.starts_with("bad durability")) && code == 1, "{found:?}");
    run(&url, "DEL asked");
    run(&url, "SET asked x");
    says(&patient.findings(&[]).0, "bad streams: asked", "string, not a stream");
}

/// Also those that have nothing pending, and never those that stand for no host.
///
/// Reaches `BURIALS_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_dead_consumers_go_in_one_recovery() {
    let server = RedisServer::start(&["--save", ""]);
    let backend = tidemill::backends::open(&server.url(), options()).await.unwrap();
    backend.ensure_group(&subscription(), Start::Beginning).await.unwrap();
    let mut connection = client(&server.url());
    for queue in ["asked", "{asked}:tm:redelivery:mischief"] {
        for part in 0..50 {
            let mut pipe = redis::pipe();
            for number in 0..1000 {
                let name = format!("host-{}", part * 1000 + number);
                pipe.cmd("XGROUP").arg("CREATECONSUMER").arg(queue).arg("mischief").arg(name).ignore();
            }
            let () = pipe.query(&mut connection).unwrap();
        }
        run(&server.url(), &format!("XGROUP CREATECONSUMER {queue} mischief (released)"));
    }
    backend.heartbeat("alive", Duration::from_secs(120), "").await.unwrap();
    run(&server.url(), "XGROUP CREATECONSUMER asked mischief alive");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (held, lease) = (Default::default(), Duration::from_millis(1));
    assert!(backend.recover(&subscription(), "alive", &held, lease, 10).await.unwrap().deliveries.is_empty());
    let left = |queue: &str| -> Vec<String> {
        let rows: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::cmd("XINFO").arg("CONSUMERS").arg(queue).arg("mischief").query(&mut client(&server.url())).unwrap();
        rows.iter().map(|row| redis::from_redis_value(row["name"].clone()).unwrap()).collect()
    };
    assert_eq!(left("asked"), ["(released)", "alive"]);
    assert_eq!(left("{asked}:tm:redelivery:mischief"), ["(released)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_is_examined() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("t.db").display());
    let patient = Patient::new(&url);
    says(&patient.findings(&[]).0, "warning groups: mischief on asked", "there is no such group");
    with_group(&url).await;
    let stranger = Subscription { stream: "asked".into(), handler: "stranger".into() };
    {
        let backend = tidemill::backends::open(&url, options()).await.unwrap();
        backend.ensure_group(&stranger, Start::Beginning).await.unwrap();
        let entry = storage::NewEntry { body: "{}".into(), dedup_key: None };
        backend.publish("asked", &[entry]).await.unwrap();
        backend.fetch(&subscription(), "gone", 1, Duration::ZERO).await.unwrap().deliveries.into_iter().for_each(drop);
    }
    let (found, code) = patient.findings(&["--deep"]);
    says(&found, "ok durability: always", "write-ahead log");
    says(&found, "warning groups: asked: by the configuration no handler stranger reads this stream, and keeps", "");
    says(&found, "warning consumers: mischief on asked", "1 of them hold deliveries");
    says(&found, "ok integrity", "the whole file is sound");
    assert_eq!(code, 0, "{found:?}");
    says(&patient.findings(&[]).0, "ok integrity", "`doctor --deep`");
    says(&Patient::new("sqlite::memory:").findings(&[]).0, "bad durability: volatile", "sqlite:tidemill.db");
}

#[test]
fn doctor_speaks_of_the_configuration_too() {
    let folder = tempfile::tempdir().unwrap();
    let patient = Patient::new(&format!("sqlite:{}", folder.path().join("t.db").display()));
    patient.write("maxlen = 1000\nretention = \"90d\"\noverflow = \"drop\"");
    let (found, code) = patient.findings(&[]);
    says(&found, "warning configuration: streams.asked.overflow", "throws entries away");
    says(&found, "warning configuration: streams.asked.maxlen", "whichever bound is met first counts");
    assert_eq!(code, 0, "{found:?}");
    patient.write("overflow = \"drop\"");
    let (found, code) = patient.findings(&[]);
    says(&found, "bad configuration: streams.asked.overflow", "no bound to overflow");
    assert_eq!(code, 1);
    patient.write("overflow = \"perhaps\"");
    assert_eq!(patient.doctor(&[]).status.code(), Some(2), "a file that cannot be read is wrong usage");
    assert_eq!(patient.doctor(&["--no-such-option"]).status.code(), Some(2));
    let absent = Patient::new("redis://127.0.0.1:1");
    says(&absent.findings(&[]).0, "bad backend", "127.0.0.1:1");
}

/// The streams that are emitted to are looked at as those that are read; and what the hints say works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_takes_nothing_is_found_and_can_be_mended() {
    const LAST: &str = "18446744073709551615-18446744073709551615";
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let url = server.url();
    with_group(&url).await;
    let patient = Patient::new(&url);
    patient.write("[streams.done]\nevents = [\"Test.Thing.Done\"]");
    let text = std::fs::read_to_string(patient.file()).unwrap();
    std::fs::write(patient.file(), text + "[handlers.mischief.grants]\nemit = [\"Test.Thing.Done\"]\n").unwrap();
    let findings = || patient.findings(&[]).0;
    says(&findings(), "ok streams: done: it is made with the first event", "");
    run(&url, "XADD done 5-1 event x");
    says(&findings(), "ok stream ids: done", "");
    run(&url, "SET done2 x");
    run(&url, "RENAME done2 done");
    says(&findings(), "bad streams: done: this key is a string, not a stream", "RENAME");
    run(&url, "DEL done");
    run(&url, "XADD done 5-1 event x");
    run(&url, "XGROUP CREATE done readers $");
    run(&url, &format!("XADD done {LAST} event x"));
    says(&findings(), &format!("bad stream ids: done: it takes no more entries, its last id is {LAST}"), "XSETID done");
    let open = tidemill::backends::open(&url, options()).await.unwrap();
    let entry = || [storage::NewEntry { body: "{}".into(), dedup_key: None }];
    let refused = open.publish("done", &entry()).await.unwrap_err().to_string();
    assert!(refused.contains("RENAME the stream") && !refused.contains("is it Redis 7.0"), "{refused}");
    run(&url, &format!("XDEL done {LAST}"));
    run(&url, "XSETID done 5-1 ENTRIESADDED 2 MAXDELETEDID 0-0");
    run(&url, "XGROUP SETID done readers $");
    open.publish("done", &entry()).await.expect("it takes entries again");
    says(&findings(), "ok stream ids: done", "");
    let read = "XREADGROUP GROUP readers r STREAMS done >";
    let got: redis::Value =
        redis::cmd("XREADGROUP").arg(read.split(' ').skip(1).collect::<Vec<_>>()).query(&mut client(&url)).unwrap();
    assert!(format!("{got:?}").contains("event"), "its group reads on: {got:?}");
    run(&url, &format!("XADD done {LAST} event x"));
    run(&url, "RENAME done done-old");
    open.publish("done", &entry()).await.expect("it is made anew");
}
