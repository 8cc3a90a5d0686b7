//! What a hostile guest costs: a real host at work on a steady backlog, and a hostile guest let loose in it. Told are the time until
//! each one's verdict, the most memory that the host took above what it had, and the steady handler's throughput beside the
//! guest as a ratio to that before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Backend, NewEntry, Options};
use tokio::runtime::Runtime;
use uuid::Uuid;

use tidemill_testkit::hostile_guests::{HOSTILE_GUESTS, HostileGuest, Stopped};
use tidemill_testkit::ledger::host::Host;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::service::Service;

/// How long each look at the steady handler's throughput is.
const WINDOW: Duration = Duration::from_secs(3);
/// A host that has just come up is slower.
const WARM_UP: Duration = Duration::from_secs(2);
/// Hostile events that are in the host while its throughput is looked at.
const CROWD: usize = 8;
/// Entries that the steady handler always has before it.
const BACKLOG: u64 = 20_000;
const PARCEL: usize = 500;
/// No verdict should take this long.
const VERDICT_MAX: Duration = Duration::from_secs(60);

pub(super) struct Figures {
    pub(super) name: &'static str,
    /// The class, or the words, with which it was stopped.
    pub(super) outcome: String,
    pub(super) as_expected: bool,
    pub(super) verdicts: Vec<Duration>,
    pub(super) peak_kib: u64,
    /// The steady handler's events per second without the hostile guest, and beside it.
    pub(super) before: f64,
    pub(super) beside: f64,
}

/// What came of one hostile event or load: its outcome, and how long it took.
type Met = (String, Duration);

pub(super) fn measure(name: &str, times: usize) -> Result<Figures, String> {
    let row = HOSTILE_GUESTS
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| format!("no hostile guest is called {name}"))?;
    let mut field = Field::new(row)?;
    match row.stopped {
        Stopped::AtLoad(_) => field.loads(times),
        Stopped::InCall(_) | Stopped::LeftOut(_) => field.calls(times),
    }
}

struct Field {
    row: &'static HostileGuest,
    server: RedisServer,
    folder: tempfile::TempDir,
    service: Service,
    address: SocketAddr,
    backend: Arc<dyn Backend>,
    /// The last one to go: tasks of it use the rest.
    runtime: Runtime,
}

impl Field {
    fn new(row: &'static HostileGuest) -> Result<Self, String> {
        let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
        let folder = tempfile::Builder::new().prefix("hostile-").tempdir().map_err(|error| error.to_string())?;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let options = Options {
            inbox_window: Duration::from_secs(60),
            dead_letters_max: 100_000,
            timers_max: 1000,
            ..Default::default()
        };
        let backend =
            runtime.block_on(tidemill::backends::open(&server.url(), options)).map_err(|error| error.to_string())?;
        // Free a moment ago, and nobody else is told of it.
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        std::fs::write(folder.path().join("hostile.wasm"), (row.plugin)()).map_err(|error| error.to_string())?;
        let field = Self { row, server, folder, service: Service::start(), address, backend, runtime };
        field.write_schemas().map_err(|error| error.to_string())?;
        Ok(field)
    }

    fn write_schemas(&self) -> std::io::Result<()> {
        let folder = self.folder.path().join("schemas");
        std::fs::create_dir(&folder)?;
        for name in ["Test.Thing.Asked.v1.json", "Test.Thing.Done.v1.json"] {
            std::fs::copy(tidemill_testkit::root().join("tests/schemas").join(name), folder.join(name))?;
        }
        std::fs::write(folder.join("Test.Steady.Ticked.v1.json"), "{}")
    }

    /// A host with the steady handler, with the hostile guest, or with both.
    fn host(&self, name: &str, steady: bool, hostile: bool) -> Host {
        let mut text = format!(
            "[backend]\nurl = \"{}\"\n[schemas]\npath = \"schemas\"\n[host]\ncache = \"cache-{name}\"\n\
             payload_bytes_max = \"256KiB\"\nhttp_private = {:?}\n\
             [streams.asked]\nevents = [\"Test.Thing.Asked\"]\n[streams.done]\nevents = [\"Test.Thing.Done\"]\n\
             [streams.ticked]\nevents = [\"Test.Steady.Ticked\"]\nmaxlen = 100000\n",
            self.server.url(),
            self.row.open()
        );
        let mut handler = |name: &str, plugin: &Path, events: &str, grants: &str| {
            text += &format!(
                "[handlers.{name}]\nplugin = \"{}\"\nevents = [\"{events}\"]\nretry = {{ max = 0 }}\n\
                 breaker = {{ failure_rate = 2.0 }}\n[handlers.{name}.grants]\nemit = [\"Test.Thing.Done\"]\nstate = true\ntimer = true\n{grants}\n",
                plugin.display()
            );
        };
        if steady {
            handler("steady", &tidemill_testkit::guest("mischief"), "Test.Steady.Ticked", "");
        }
        if hostile {
            let grants = self.row.grants(&self.service);
            handler("hostile", &self.folder.path().join("hostile.wasm"), "Test.Thing.Asked", &grants);
        }
        if steady {
            text += &format!("[http]\nlisten = \"{}\"\n", self.address);
        }
        let config = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&config, text).expect("a writable folder");
        Host::start(&config, &self.folder.path().join(format!("{name}.log")), &["run"], None)
    }

    /// Events that the host at work has to stop.
    fn calls(&mut self, times: usize) -> Result<Figures, String> {
        let mut host = self.host("work", true, true);
        let feeder = self.begin(&mut host)?;
        let before = self.rate()?;
        host.forget_peak();
        let rests = host.memory_kib().unwrap_or_default();
        let mut met = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            let settled = self.settled()?;
            self.ask(1)?;
            self.wait_settled(settled + 1, &mut host)?;
            let took = begun.elapsed();
            met.push((self.outcome()?, took));
        }
        let beside = self.rate_in_a_crowd()?;
        let peak = host.memory_peak_kib().unwrap_or_default();
        feeder.end();
        if host.exit().is_some() {
            return Err(format!("{}: the host is gone\n{}", self.row.name, host.said()));
        }
        Ok(self.figures(met, peak.saturating_sub(rests), before, beside))
    }

    /// Plugins that are refused by a host of their own, beside the one at work.
    fn loads(&mut self, times: usize) -> Result<Figures, String> {
        let mut work = self.host("work", true, false);
        let feeder = self.begin(&mut work)?;
        let before = self.rate()?;
        let (mut met, mut peak) = (Vec::new(), 0);
        let (begun, committed) = (Instant::now(), self.committed()?);
        while met.len() < times || begun.elapsed() < WINDOW {
            let (one, kib) = self.load(met.len())?;
            met.push(one);
            peak = peak.max(kib);
        }
        let beside = (self.committed()? - committed) as f64 / begun.elapsed().as_secs_f64();
        feeder.end();
        Ok(self.figures(met, peak, before, beside))
    }

    fn load(&self, number: usize) -> Result<(Met, u64), String> {
        let begun = Instant::now();
        let mut host = self.host(&format!("load-{number}"), false, true);
        let mut peak = 0;
        while host.exit().is_none() {
            peak = peak.max(host.memory_peak_kib().unwrap_or_default());
            if begun.elapsed() > VERDICT_MAX {
                return Err(format!("{}: not refused after {VERDICT_MAX:?}\n{}", self.row.name, host.said()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(((host.said(), begun.elapsed()), peak))
    }

    fn figures(&self, met: Vec<Met>, peak_kib: u64, before: f64, beside: f64) -> Figures {
        let (wanted, whole) = match self.row.stopped {
            Stopped::AtLoad(words) => (words, false),
            Stopped::InCall(class) => (class, true),
            Stopped::LeftOut(_) => ("committed", true),
        };
        let fits = |said: &str| if whole { wanted.split('|').any(|one| said == one) } else { said.contains(wanted) };
        let odd = met.iter().map(|(said, _)| said).find(|said| !fits(said));
        Figures {
            name: self.row.name,
            outcome: odd.cloned().unwrap_or_else(|| wanted.to_owned()),
            as_expected: odd.is_none(),
            verdicts: met.iter().map(|(_, took)| *took).collect(),
            peak_kib,
            before,
            beside,
        }
    }

    /// Waits until the host works off the backlog that is kept up from now on.
    fn begin(&self, host: &mut Host) -> Result<Feeder, String> {
        let feeder = Feeder::start(&self.runtime, self.backend.clone());
        host.wait_for_consumer();
        let give_up = Instant::now() + VERDICT_MAX;
        while self.committed().unwrap_or_default() == 0 {
            if Instant::now() > give_up {
                return Err(format!("the steady handler does not begin\n{}", host.said()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(WARM_UP);
        Ok(feeder)
    }

    /// Events per second of the steady handler.
    fn rate(&self) -> Result<f64, String> {
        let (begun, committed) = (Instant::now(), self.committed()?);
        std::thread::sleep(WINDOW);
        Ok((self.committed()? - committed) as f64 / begun.elapsed().as_secs_f64())
    }

    /// The same, while there are always some hostile events in the host.
    fn rate_in_a_crowd(&self) -> Result<f64, String> {
        let (begun, committed, settled) = (Instant::now(), self.committed()?, self.settled()?);
        let mut asked = 0;
        while begun.elapsed() < WINDOW {
            let there = (asked as u64).saturating_sub(self.settled()? - settled) as usize;
            if there < CROWD {
                self.ask(CROWD - there)?;
                asked += CROWD - there;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((self.committed()? - committed) as f64 / begun.elapsed().as_secs_f64())
    }

    fn ask(&self, count: usize) -> Result<(), String> {
        let data: Value = serde_json::from_str(&self.row.data(&self.service)).map_err(|error| error.to_string())?;
        let entries: Vec<NewEntry> = (0..count).map(|_| entry("Test.Thing.Asked", &data)).collect();
        let answer = self.runtime.block_on(self.backend.publish("asked", &entries));
        answer.map(drop).map_err(|error| error.to_string())
    }

    fn committed(&self) -> Result<u64, String> {
        self.metric("tidemill_deliveries_total", &["handler=\"steady\"", "result=\"committed\""])
    }

    /// Of the hostile guest's events: committed or dead.
    fn settled(&self) -> Result<u64, String> {
        let of = |result: &str| {
            self.metric("tidemill_deliveries_total", &["handler=\"hostile\"", &format!("result=\"{result}\"")])
        };
        Ok(of("committed")? + of("dead")?)
    }

    fn wait_settled(&self, count: u64, host: &mut Host) -> Result<(), String> {
        let give_up = Instant::now() + VERDICT_MAX;
        while self.settled()? < count {
            if Instant::now() > give_up || host.exit().is_some() {
                return Err(format!("{}: no verdict after {VERDICT_MAX:?}\n{}", self.row.name, host.said()));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    /// What the record of the last dead letter says; `committed` if there is none.
    fn outcome(&self) -> Result<String, String> {
        let subscription = Subscription { stream: "asked".into(), handler: "hostile".into() };
        let letters = self.runtime.block_on(self.backend.dead_letters(&subscription, None, 1000));
        let letters = letters.map_err(|error| error.to_string())?;
        let class = letters.last().and_then(|letter| letter.history.last()).map(|record| record.class.clone());
        Ok(class.unwrap_or_else(|| "committed".to_owned()))
    }

    /// The sum of the host's samples of that name with all of these labels.
    fn metric(&self, name: &str, labels: &[&str]) -> Result<u64, String> {
        let text = scrape(self.address).map_err(|error| format!("{}: no metrics: {error}", self.row.name))?;
        let mine = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        Ok(text.lines().filter(mine).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

fn scrape(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(VERDICT_MAX))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}

fn entry(kind: &str, data: &Value) -> NewEntry {
    let id = Uuid::new_v4();
    let event = json!({
        "event_id": id, "event_type": kind, "version": "1", "timestamp": "2026-01-31T12:00:00Z",
        "correlation_id": id, "data": data,
    });
    NewEntry { body: Bytes::from(event.to_string()), dedup_key: None }
}

/// Keeps the steady handler's stream ahead of it.
struct Feeder {
    on: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
}

impl Feeder {
    fn start(runtime: &Runtime, backend: Arc<dyn Backend>) -> Self {
        let (on, published) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (going, count) = (on.clone(), published.clone());
        let subscription = Subscription { stream: "ticked".into(), handler: "steady".into() };
        runtime.spawn(async move {
            while going.load(Relaxed) {
                let done = backend.status(&subscription).await.map_or(0, |status| status.committed);
                if count.load(Relaxed) >= done + BACKLOG {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let entries: Vec<NewEntry> =
                    (0..PARCEL).map(|_| entry("Test.Steady.Ticked", &json!({ "do": "ok" }))).collect();
                if backend.publish("ticked", &entries).await.is_ok() {
                    count.fetch_add(PARCEL as u64, Relaxed);
                }
            }
        });
        Self { on, published }
    }

    fn end(self) {
        self.on.store(false, Relaxed);
        assert!(self.published.load(Relaxed) > 0, "the steady handler had something to do");
    }
}

impl Figures {
    pub(super) fn ratio(&self) -> f64 {
        self.beside / self.before.max(1.0)
    }

    /// Median and maximum, in milliseconds.
    pub(super) fn verdict_ms(&self) -> (f64, f64) {
        let mut ms: Vec<f64> = self.verdicts.iter().map(|took| took.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        (ms.get(ms.len() / 2).copied().unwrap_or_default(), ms.last().copied().unwrap_or_default())
    }

    pub(super) fn json(&self) -> Value {
        let (median, max) = self.verdict_ms();
        json!({
            "guest": self.name, "outcome": self.outcome, "as_expected": self.as_expected,
            "verdicts": self.verdicts.len(), "verdict_ms_median": median, "verdict_ms_max": max,
            "peak_kib": self.peak_kib, "before_per_second": self.before, "beside_per_second": self.beside,
            "ratio": self.ratio(),
        })
    }
}
