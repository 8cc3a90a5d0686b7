//! A start waits out what passes, says what it waits for, and refuses at once what does not; signals mean what they say.

use std::process::Command;
use std::time::Duration;

use crate::proxy::{Break, Proxy};
use tidemill_testkit::server::RedisServer;

use super::{Place, STUCK};

const WAITS: &str = "the start waits for the backend, up to 60s in all";

/// Somebody holds the file for longer than anybody waits for a lock.
#[test]
fn a_busy_file_is_waited_for() {
    let place = Place::on_sqlite();
    drop(place.backend());
    let other = rusqlite::Connection::open(place.database()).unwrap();
    other.busy_timeout(STUCK).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut host = place.start(&["run"], &[]);
    host.says(WAITS);
    assert!(host.said().contains("database is locked"), "{}", host.said());
    other.execute_batch("ROLLBACK").unwrap();
    host.says("host started");
    place.works(&host);
    host.stops();
}

#[test]
fn an_absent_redis_is_waited_for() {
    let mut server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    server.kill();
    let place = Place::on_redis(&server.url());
    let mut host = place.start(&["run"], &[]);
    host.says(WAITS);
    assert_eq!(host.said().matches(WAITS).count(), 1, "{}", host.said());
    assert_eq!(host.get("/healthz"), (200, "alive\n".to_owned()), "nobody is to end it for waiting");
    assert_eq!(host.get("/api/status").0, 503);
    for path in ["/readyz", "/metrics"] {
        assert_eq!(host.get(path), (503, "not ready: the host is starting\n".to_owned()), "{path}");
    }
    server.again();
    host.says("host started");
    host.is_ready();
    place.works(&host);
    host.stops();
}

/// A probe has a time-out of its own, and is to hear the reason within it.
/// Reaches `server::src::lib::ANSWER_MAX`.
#[test]
fn a_redis_that_hangs_makes_a_host_unready_that_says_so() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let place = Place::on_redis(&server.url());
    let mut host = place.start(&["run"], &[]);
    host.is_ready();
    let info: String = server.ask(&["INFO", "server"]);
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().to_owned();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    for told in ["the backend has not answered for 3s", "the backend does not take this host's heartbeat"] {
        host.waits_until(told, |host| host.get("/readyz").1.contains(told));
    }
    signal("-CONT");
    host.is_ready();
    host.says("the backend takes heartbeats again");
    host.stops();
}

#[test]
fn a_redis_that_is_busy_with_a_script_is_waited_for() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no", "--busy-reply-threshold", "100"]);
    let place = Place::on_redis(&server.url());
    std::thread::scope(|scope| {
        let script = scope.spawn(|| server.try_ask::<()>(&["EVAL", "while true do end", "0"]).unwrap_err().to_string());
        let mut host = place.start(&["run"], &[]);
        host.says(WAITS);
        host.says("BUSY");
        server.ask::<()>(&["SCRIPT", "KILL"]);
        assert!(script.join().unwrap().contains("killed"));
        host.says("host started");
        host.stops();
    });
}

#[test]
fn what_does_not_pass_ends_the_start_at_once() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no", "--requirepass", "secret"]);
    let place = Place::on_redis(&server.url());
    let mut host = place.start(&["run"], &[]);
    assert_eq!(host.ends(), Some(1), "{}", host.said());
    assert!(host.said().contains("NOAUTH") && !host.said().contains(WAITS), "{}", host.said());

    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let place = Place::on_redis(&server.url());
    server.ask::<()>(&["SET", &place.asked, "no stream"]);
    let mut host = place.start(&["run"], &[]);
    assert_eq!(host.ends(), Some(1), "{}", host.said());
    assert!(host.said().contains("WRONGTYPE") && !host.said().contains(WAITS), "{}", host.said());
}

#[test]
fn signals_during_the_start() {
    let mut server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    server.kill();
    let place = Place::on_redis(&server.url());
    for name in ["TERM", "INT"] {
        let mut host = place.start(&["run"], &[]);
        host.says(WAITS);
        host.signal(name);
        assert_eq!(host.ends(), Some(0), "{}", host.said());
    }
    let mut host = place.start(&["run"], &[]);
    host.says(WAITS);
    host.signal("HUP");
    server.again();
    host.says("host started");
    host.says("configuration reloaded");
    place.works(&host);
    host.stops();
}

/// Starts a host whose connection breaks at its n-th command, for every n.
fn breaks_at_every_command(how: impl Fn() -> Break) {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.port));
    let place = Place::on_redis(&proxy.url());
    let mut host = place.start(&["run"], &[]);
    host.says("host started");
    let commands = proxy.commands();
    place.works(&host);
    host.stops();
    assert!(commands > 5, "{commands}");
    for n in 1..=commands {
        proxy.break_at(n, how());
        let mut host = place.start(&["run"], &[]);
        host.says("host started");
        place.works(&host);
        host.stops();
    }
}

#[test]
fn a_connection_that_breaks_at_each_step_of_a_start() {
    breaks_at_every_command(|| Break::Reply);
}

#[test]
fn a_backend_that_goes_for_a_second_at_each_step_of_a_start() {
    breaks_at_every_command(|| Break::Away(Duration::from_secs(1)));
}
