//! A settings reload during which the backend breaks off: the host goes on, with the old settings or with the new ones.

use std::time::Duration;

use crate::proxy::{Break, Proxy};
use tidemill_testkit::server::RedisServer;

use super::{Place, Running};

/// Commands from the request on; what a reload sends itself lies among those of a host at work.
const COMMANDS: u64 = 24;

fn generation(host: &Running) -> u64 {
    let said: serde_json::Value = serde_json::from_str(&host.get("/api/plugins").1).unwrap_or_default();
    said["settings"]["generation"].as_u64().unwrap_or(0)
}

fn breaks_at_every_command(how: impl Fn() -> Break) {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.port));
    let place = Place::on_redis(&proxy.url());
    let mut host = place.start(&["run"], &[]);
    host.is_ready();
    for n in 1..=COMMANDS {
        let before = generation(&host);
        place.configure(16 + u32::try_from(n).unwrap(), "");
        proxy.break_at(n, how());
        let (status, said) = host.request("POST", "/api/reload");
        assert!(status == 200, "{n}: {status} {said}\n{}", host.said());
        host.waits_until("the new settings", |host| generation(host) > before);
        place.works(&host);
    }
    host.is_ready();
    host.stops();
}

#[test]
fn a_connection_that_breaks_at_each_step_of_a_reload() {
    breaks_at_every_command(|| Break::Reply);
}

#[test]
fn a_backend_that_goes_for_a_second_at_each_step_of_a_reload() {
    breaks_at_every_command(|| Break::Away(Duration::from_secs(1)));
}

/// What the backend refuses for good is a reason to keep the settings before, not to end.
#[test]
fn settings_that_the_backend_refuses_leave_those_before_in_force() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let place = Place::on_redis(&server.url());
    let mut host = place.start(&["run"], &[]);
    host.is_ready();
    server.ask::<()>(&["SET", "other", "no stream"]);
    let tables = format!(
        "[streams.other]\nevents = [\"Test.Entry.Posted\"]\n[handlers.second]\nplugin = \"{}\"\nevents = \
         [\"Test.Entry.Posted\"]\n[handlers.second.grants]\nemit = []\nstate = true\nsecrets = []\nhttp = []",
        tidemill_testkit::guest("caller").display()
    );
    place.configure(16, &tables);
    let (status, said) = host.request("POST", "/api/reload");
    assert!(status == 422 && said.contains("WRONGTYPE"), "{status} {said}\n{}", host.said());
    assert_eq!(generation(&host), 1);
    place.works(&host);
    host.is_ready();
    host.stops();
}
