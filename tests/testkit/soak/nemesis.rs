//! What the nemesis can do, one row each. A new fault is a new row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::crew::Crew;
use crate::clock::Clock;
use crate::server::RedisServer;

/// All that can be harmed.
pub(super) struct Field {
    pub server: Option<RedisServer>,
    /// The server's, or that of the hosts where there is none.
    pub clock: Arc<Clock>,
    pub crew: Crew,
    pub faults: BTreeMap<String, u32>,
}

pub(super) struct Fault {
    pub name: &'static str,
    /// Harms the server, so there has to be one.
    pub needs_server: bool,
    /// Answers whether it has done it.
    pub run: fn(&mut Field, &mut StdRng) -> bool,
}

/// Beyond the time to live of a heartbeat and the lease.
const STOP_MS: std::ops::Range<u64> = 7_000..14_000;
/// The server is away, or does not answer.
const AWAY_MS: std::ops::Range<u64> = 50..2_500;

/// How wrong a clock may be, either way. Beyond the life of any lease; together less than the inbox's window, which on Redis
/// goes by the server's clock.
const CLOCK_WRONG_S: std::ops::Range<u64> = 0..1_500;

const fn of_hosts(name: &'static str, run: fn(&mut Field, &mut StdRng) -> bool) -> Fault {
    Fault { name, needs_server: false, run }
}

const fn of_server(name: &'static str, run: fn(&mut Field, &mut StdRng) -> bool) -> Fault {
    Fault { name, needs_server: true, run }
}

pub(super) const FAULTS: &[Fault] = &[
    of_hosts("host killed", |field, rng| field.crew.kill_one(rng)),
    of_hosts("host killed", |field, rng| field.crew.kill_one(rng)),
    of_hosts("host stopped", |field, rng| {
        let time = Duration::from_millis(rng.random_range(STOP_MS));
        field.crew.stop_one(rng, time)
    }),
    of_hosts("host drained", |field, rng| field.crew.drain_one(rng)),
    of_hosts("clock set", |field, rng| {
        let by = Duration::from_secs(rng.random_range(CLOCK_WRONG_S));
        if rng.random() {
            field.clock.ahead(by)
        } else {
            field.clock.behind(by)
        }
        true
    }),
    of_hosts("settings read again", |field, rng| field.crew.hang_up_one(rng)),
    of_server("group destroyed", |field, _| {
        of_group(field, |input, group| command_of(&["XGROUP", "DESTROY", input, group]))
    }),
    of_server("group moved back", |field, _| {
        of_group(field, |input, group| command_of(&["XGROUP", "SETID", input, group, "0"]))
    }),
    of_server("read by a stranger", |field, _| {
        of_group(field, |input, group| {
            let mut read = command_of(&["XREADGROUP", "GROUP", group]);
            read.arg(b"\xff\0 odd").arg("COUNT").arg(5).arg("STREAMS").arg(input).arg(">");
            read
        })
    }),
    of_server("server killed", |field, rng| {
        with_server_away(field, rng, |_| {});
        true
    }),
    of_server("server shut down", |field, rng| {
        with_server_away(field, rng, |server| drop(command(server, &["SHUTDOWN", "NOSAVE"])));
        true
    }),
    of_server("scripts flushed", |field, _| tell(field, &["SCRIPT", "FLUSH"])),
    of_server("clients cut off", |field, _| tell(field, &["CLIENT", "KILL", "TYPE", "normal"])),
    of_server("server paused", |field, rng| {
        let ms = rng.random_range(AWAY_MS).to_string();
        tell(field, &["CLIENT", "PAUSE", &ms, "ALL"])
    }),
    of_server("server stalled", |field, rng| {
        let seconds = format!("{:.3}", rng.random_range(AWAY_MS) as f64 / 1000.0);
        tell(field, &["DEBUG", "SLEEP", &seconds])
    }),
    of_server("log rewritten", |field, _| tell(field, &["BGREWRITEAOF"])),
];

/// Takes the server away (by a kill, if not gently before), and brings it back.
fn with_server_away(field: &mut Field, rng: &mut StdRng, gently: impl Fn(&RedisServer)) {
    let Some(server) = &mut field.server else { return };
    gently(server);
    server.kill();
    field.crew.tend_for(Duration::from_millis(rng.random_range(AWAY_MS)));
    if let Some(server) = &mut field.server {
        server.again();
    }
}

fn tell(field: &Field, words: &[&str]) -> bool {
    field.server.as_ref().is_some_and(|server| command(server, words).is_ok())
}

/// What a stranger does to the handler's group.
fn of_group(field: &Field, command: impl Fn(&str, &str) -> redis::Cmd) -> bool {
    let store = &field.crew.ledger().store;
    field.server.as_ref().is_some_and(|server| sent(server, &command(&store.input, &store.handler)).is_ok())
}

fn command_of(words: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
}

fn command(server: &RedisServer, words: &[&str]) -> redis::RedisResult<redis::Value> {
    sent(server, &command_of(words))
}

fn sent(server: &RedisServer, command: &redis::Cmd) -> redis::RedisResult<redis::Value> {
    let timeout = Duration::from_secs(5);
    let mut connection = redis::Client::open(server.url())?.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    command.query(&mut connection)
}
