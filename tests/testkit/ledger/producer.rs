//! The producer: publishes marked events at a steady rate through a client of its own, and keeps a log of what it sent
//! and what was acknowledged. An answer that does not come makes an event unknown, and the producer goes on.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tidemill_storage::{self as storage, Backend, NewEntry};
use uuid::Uuid;

use crate::checker::{Database, Store};

/// Accounts: few enough that events of one meet each other.
const KEYS: u64 = 12;
/// Longer than this the producer waits for no answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Before it tries to connect again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often an event is sent a second time under the same id: one in so many.
const TWICE_IN: u64 = 50;

/// Modes and how often they occur, in a thousand; the rest is `ok`.
pub type Mix = &'static [(&'static str, u32)];

/// Everything that can happen to an event by its own doing.
pub const EVERYTHING: Mix = &[("fail", 60), ("reject", 15), ("always-fail", 10), ("trap", 10), ("slow", 80)];
/// Events that take their time, so that a host has its hands full.
pub const SLOW: Mix = &[("slow", 1000)];
/// Many dead letters.
pub const DYING: Mix = &[("reject", 300), ("always-fail", 100), ("fail", 100)];

/// How often a slow event spins: some tens of milliseconds.
pub const SPINS: u64 = 10_000_000;

/// One event to send.
#[derive(Debug, Clone)]
pub struct Posting {
    pub n: u64,
    pub key: String,
    pub amount: i64,
    pub mode: &'static str,
    pub fail_times: u32,
    pub spins: u64,
}

pub struct Producer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Producer {
    pub fn start(store: &Store, url: &str, log: &Path, mix: Mix, per_second: u32, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, mut publisher) = (stop.clone(), Publisher::open(store, url, log));
        let work = move || {
            let (mut rng, begun, mut n) = (StdRng::seed_from_u64(seed), Instant::now(), 0);
            while !told.load(Ordering::Relaxed) {
                n += 1;
                let posting = draw(n, mix, &mut rng);
                let id = Uuid::new_v4();
                let twice = n.is_multiple_of(TWICE_IN) && matches!(posting.mode, "ok" | "fail");
                for _ in 0..1 + u32::from(twice) {
                    publisher.post(id, &posting);
                }
                // By the clock, not by sleeping in between: a stall is made up for, to a degree.
                let due = begun + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / per_second;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            n
        };
        let thread = std::thread::Builder::new().name("producer".to_owned()).spawn(work).expect("a thread");
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; answers how many events it has sent.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("the producer ends well")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn draw(n: u64, mix: Mix, rng: &mut StdRng) -> Posting {
    let mut left = rng.random_range(0..1000);
    let mut mode = "ok";
    for (name, share) in mix {
        if left < *share {
            mode = name;
            break;
        }
        left -= share;
    }
    Posting {
        n,
        key: format!("k{}", rng.random_range(0..KEYS)),
        amount: rng.random_range(-1000..1000),
        mode,
        fail_times: if mode == "fail" { rng.random_range(1..=3) } else { 0 },
        spins: SPINS,
    }
}

/// Sends events and writes the log.
pub struct Publisher {
    log: File,
    client: Client,
}

/// The two ways to publish. Redis is fed as any stranger would feed it, SQLite through the library: nobody else writes
/// to its file.
enum Client {
    Redis { url: String, stream: String, connection: Option<redis::Connection> },
    Sqlite { url: String, stream: String, runtime: tokio::runtime::Runtime, backend: Option<Arc<dyn Backend>> },
}

impl Publisher {
    pub fn open(store: &Store, url: &str, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a writable log");
        let stream = store.input.clone();
        let client = match &store.database {
            Database::Redis(url) => Client::Redis { url: url.clone(), stream, connection: None },
            Database::Sqlite(_) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                Client::Sqlite { url: url.to_owned(), stream, runtime, backend: None }
            }
        };
        Self { log, client }
    }

    pub fn post(&mut self, id: Uuid, posting: &Posting) {
        let Posting { n, key, amount, mode, fail_times, spins } = posting;
        let data =
            json!({ "n": n, "key": key, "amount": amount, "mode": mode, "fail_times": fail_times, "spins": spins });
        let event = json!({
            "event_id": id, "event_type": "Test.Entry.Posted", "version": "1", "timestamp": "2026-01-31T12:00:00Z",
            "correlation_id": id, "data": data,
        });
        let sent = json!({ "sent": n, "id": id, "key": key, "amount": amount, "mode": mode, "fail_times": fail_times });
        self.note(&sent);
        let answer = self.client.publish(&event.to_string());
        self.note(&json!({ if answer.is_ok() { "acknowledged" } else { "unknown" }: n }));
        if answer.is_err() {
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    fn note(&mut self, line: &serde_json::Value) {
        self.log.write_all(format!("{line}\n").as_bytes()).expect("the log can be written");
    }
}

impl Client {
    fn publish(&mut self, event: &str) -> Result<(), String> {
        match self {
            Self::Redis { url, stream, connection } => {
                let mut server = match connection.take() {
                    Some(server) => server,
                    None => connect(url).map_err(|error| error.to_string())?,
                };
                let sent =
                    redis::cmd("XADD").arg(&*stream).arg("*").arg("event").arg(event).query::<String>(&mut server);
                // After an error nobody knows what the next answer on this connection belongs to.
                *connection = sent.is_ok().then_some(server);
                sent.map(drop).map_err(|error| error.to_string())
            }
            Self::Sqlite { url, stream, runtime, backend } => runtime.block_on(async {
                let open = match backend.take() {
                    Some(open) => open,
                    None => {
                        let options = storage::Options {
                            inbox_window: Duration::from_secs(3600),
                            dead_letters_max: 100_000,
                            dead_letters_bytes_max: 256 << 20,
                            timers_max: 1000,
                            ..Default::default()
                        };
                        tidemill::backends::open(url.as_str(), options).await.map_err(|error| error.to_string())?
                    }
                };
                let entry = NewEntry { body: event.to_owned().into(), dedup_key: None };
                let sent = open.publish(stream, &[entry]).await;
                *backend = Some(open);
                sent.map(drop).map_err(|error| error.to_string())
            }),
        }
    }
}

fn connect(url: &str) -> redis::RedisResult<redis::Connection> {
    let server = redis::Client::open(url)?.get_connection_with_timeout(ANSWER_MAX)?;
    server.set_read_timeout(Some(ANSWER_MAX))?;
    server.set_write_timeout(Some(ANSWER_MAX))?;
    Ok(server)
}
