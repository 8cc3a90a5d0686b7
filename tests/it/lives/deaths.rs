//! Each task and thread of a host dies once, and again and again, and hangs: who notices, and what happens then.

use serde_json::json;
use tidemill_process::tasks::{End, Task};
use tidemill_testkit::server::RedisServer;

use super::Place;

fn place(task: Task) -> Place {
    match task {
        Task::Sqlite | Task::Integrity => Place::on_sqlite(),
        _ => Place::on_redis(&RedisServer::shared().url()),
    }
}

/// At which turn it dies: those of a loop when they are at work, others when they begin.
fn passage(task: Task) -> u32 {
    match task {
        Task::Worker | Task::Scheduler | Task::Io => 5,
        Task::Sqlite => 20,
        Task::Epoch => 100,
        // The first loads the plugins at the start.
        Task::Load => 2,
        Task::Janitor | Task::Pause | Task::Agreement | Task::Heartbeat | Task::Connection => 2,
        _ => 1,
    }
}

/// What makes a host come to it; the others come by themselves.
fn provoke(place: &Place, running: &super::Running, task: Task) {
    match task {
        Task::Request | Task::Load | Task::Digest | Task::Token => drop(running.request("POST", "/api/reload")),
        Task::LookUp => {
            let url = format!("http://localhost:{}/healthz", place.port);
            place.put(&json!({ "do": "call", "url": url }), 1);
        }
        _ => place.put(&json!({ "do": "ok" }), 1),
    }
}

/// It is counted under its name, the host works on, and ends well.
fn is_survived(task: Task) {
    let (place, name) = (place(task), task.name());
    let plan = format!("{name}:{}", passage(task));
    let mut host = place.start(&["run"], &[("TIDEMILL_PANIC", &plan)]);
    host.says("host started");
    host.waits_until("its HTTP", |host| host.get("/healthz").0 == 200);
    provoke(&place, &host, task);
    let counted = format!("tidemill_panics_total{{task=\"{name}\"}}");
    host.waits_until(&counted, |host| host.metric(&counted) == 1);
    host.is_ready();
    host.waits_until("the count of panics", |host| host.get("/readyz").1.contains("panics since the start: 1"));
    assert_eq!(host.get("/healthz").0, 200);
    place.works(&host);
    if task != Task::Log {
        host.says("panicked: a test lets");
    }
    match task.end() {
        End::Restarted => host.says("it died, and is started again"),
        _ => assert!(!host.said().contains("it died, and is started again"), "{}", host.said()),
    }
    host.stops();
}

/// Those that are not part of a running host: exit code, and what is said.
fn ends_its_command(task: Task) -> Option<(&'static [&'static str], i32, &'static str)> {
    match task {
        Task::Idle => Some((&["run", "--until-idle"], 0, "it died, and is started again")),
        Task::Trial => Some((&["run"], 2, "the host panicked while it made one")),
        Task::Compile => Some((&["run"], 1, "loading the plugins")),
        Task::Input => Some((&["publish", "-"], 1, "reading the input: its reader died")),
        Task::Integrity => Some((&["doctor", "--deep"], 1, "panicked")),
        _ => None,
    }
}

/// The host that ends says so with its exit code.
fn ends_the_host(task: Task, plan: &str) {
    let place = place(task);
    let mut host = place.start(&["run"], &[("TIDEMILL_PANIC", plan)]);
    if task == Task::Io {
        place.put(&json!({ "do": "ok" }), 1);
    }
    assert_eq!(host.ends(), Some(1), "{plan}\n{}", host.said());
    if task != Task::Log {
        assert!(host.said().contains("the host exits; other hosts reclaim its deliveries"), "{plan}\n{}", host.said());
    }
}

#[test]
fn every_task_and_thread_dies_and_is_noticed() {
    for &task in Task::ALL {
        eprintln!("{}: {:?}", task.name(), task.end());
        if let Some((args, code, said)) = ends_its_command(task) {
            let place = place(task);
            if task == Task::Compile {
                // Nothing of it is compiled yet.
                let (text, cache) = (std::fs::read_to_string(place.file()).unwrap(), place.folder.path().join("cache"));
                let with_cache = format!("io_workers = 2\ncache = \"{}\"", cache.display());
                std::fs::write(place.file(), text.replace("io_workers = 2", &with_cache)).unwrap();
            }
            place.put(&json!({ "do": "ok" }), 1);
            let mut ended = place.start(args, &[("TIDEMILL_PANIC", &format!("{}:1", task.name()))]);
            assert_eq!(ended.ends(), Some(code), "{}\n{}", task.name(), ended.said());
            assert!(ended.said().contains(said), "{}\n{}", task.name(), ended.said());
        } else if task == Task::Demo {
            let mut demo = tidemill_testkit::tidemill();
            demo.args(["demo", "--events", "50", "--config"]).arg(tidemill_testkit::root().join("tidemill.toml"));
            demo.env("TIDEMILL_PANIC", "demo:1").arg("--redis").arg(RedisServer::start(&["--save", ""]).url());
            let ended = demo.output().unwrap();
            assert_ne!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
        } else if task.end() == End::EndsHost {
            ends_the_host(task, &format!("{}:1", task.name()));
        } else {
            is_survived(task);
        }
    }
}

/// Reaches `RESTARTS_MAX`.
#[test]
fn what_dies_again_and_again_ends_the_host() {
    for &task in Task::ALL.iter().filter(|task| task.end() == End::Restarted && **task != Task::Idle) {
        eprintln!("{}", task.name());
        ends_the_host(task, &format!("{}:{}+", task.name(), passage(task)));
    }
}

/// Hosts that hang are found out by this, which is short for a test.
const STUCK_MS: (&str, &str) = ("TIDEMILL_STUCK_MS", "6000");

/// A worker hangs with a batch in hand: the host says that it is not ready and ends, and the next one takes the batch over.
///
/// Reaches `tasks::STUCK_MAX`.
#[test]
fn a_host_with_a_stuck_worker_ends_and_another_one_goes_on() {
    let place = Place::on_redis(&RedisServer::shared().url());
    let mut host = place.start(&["run"], &[("TIDEMILL_STUCK", "settling:1"), STUCK_MS]);
    host.is_ready();
    place.put(&json!({ "do": "ok" }), 1);
    assert_eq!(host.ends(), Some(1), "{}", host.said());
    assert!(host.said().contains("worker (caller-") && host.said().contains("is stuck"), "{}", host.said());
    let mut next = place.start(&["run"], &[]);
    place.until(&next, |status| status.committed == 1 && status.waiting() == 0);
    next.says("reclaimed orphaned deliveries");
    next.stops();
}

/// A worker panics with a batch in hand: it is started again, and finds what it had.
#[test]
fn a_batch_in_the_hands_of_a_lane_that_dies_is_found_again() {
    for point in ["fetched", "settling", "settled"] {
        let place = Place::on_redis(&RedisServer::shared().url());
        place.put(&json!({ "do": "ok" }), 3);
        let mut host = place.start(&["run", "--until-idle"], &[("TIDEMILL_PANIC", &format!("{point}:1"))]);
        assert_eq!(host.ends(), Some(0), "{point}\n{}", host.said());
        assert!(host.said().contains("panicked"), "{point}\n{}", host.said());
        place.until(&host, |status| status.committed == 3 && status.waiting() == 0 && status.balances());
    }
}

/// The heart looks after the others; whoever asks sees when nobody does.
///
/// Reaches `LOOKED_MAX`.
#[test]
fn a_host_whose_heartbeat_hangs_does_not_look_alive() {
    let place = Place::on_redis(&RedisServer::shared().url());
    let mut host = place.start(&["run"], &[("TIDEMILL_STUCK", "heartbeat:2"), STUCK_MS]);
    host.says("host started");
    host.waits_until("alive", |host| host.get("/healthz").0 == 200);
    // Either it says so, or it does not answer: what hangs may have the thread that was to answer.
    host.waits_until("not alive", |host| host.get("/healthz").0 != 200);
    assert_ne!(host.get("/readyz").0, 200);
}

/// A process that was stopped has not turned for long either, and is not to be blamed for it.
#[test]
fn a_host_that_was_stopped_is_not_taken_for_stuck() {
    let place = Place::on_redis(&RedisServer::shared().url());
    let mut host = place.start(&["run"], &[STUCK_MS]);
    host.is_ready();
    host.signal("STOP");
    std::thread::sleep(std::time::Duration::from_secs(9));
    host.signal("CONT");
    std::thread::sleep(std::time::Duration::from_secs(3));
    place.works(&host);
    host.is_ready();
    host.stops();
}
