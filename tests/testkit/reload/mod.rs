//! A host at work, and its plugin's file replaced under it: good versions that say in every event which one they are,
//! and bad builds in between. Afterwards every event is there once, and the counters say of each version what it did.
//!
//! Times are the server's: an emitted entry's id begins with the millisecond in which it was settled.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::Backend;

use crate::checker::Terms;
use crate::ledger::{Ledger, Options};
use crate::server::RedisServer;

/// What stands in the guest where it says which version it is, and is overwritten in a copy of it.
const MARK: &[u8; 16] = b"version=00000000";
/// Two good versions; the guest does not start as one of the bad ones.
pub const GOOD: [&[u8; 16]; 2] = [b"version=aaaaaaaa", b"version=bbbbbbbb"];
pub const REFUSES: &[u8; 16] = b"version=refuses!";
const TRAPS: &[u8; 16] = b"version=traps!!!";
/// Work without a swap, to compare with.
const CALM: Duration = Duration::from_secs(3);
/// Between two swaps, so that each version has something to do.
const PAUSE: Duration = Duration::from_millis(150);
/// No swap should take this long; one that does is a violation.
const SWAP_MAX: Duration = Duration::from_secs(30);
/// A bad build comes before every so manieth swap.
const BAD_IN: u32 = 3;

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub swaps: u32,
    pub per_second: u32,
    pub seed: u64,
}

#[derive(Debug)]
pub struct Outcome {
    pub plan: Plan,
    pub events: usize,
    pub refused: u32,
    /// From the moment at which the file was in place to the first settlement by what was in it.
    pub first_ms: Vec<u64>,
    /// The longest time between two settlements, without swaps and with them.
    pub calm_ms: u64,
    pub swapping_ms: u64,
    pub violations: Vec<String>,
}

/// A ledger whose plugin is a file of its own, and whose host can be asked.
pub struct Rig {
    pub ledger: Ledger,
    pub file: PathBuf,
    good: Vec<u8>,
    pub api: u16,
    /// Digest -> what that version says of itself.
    names: BTreeMap<String, String>,
    violations: Vec<String>,
}

pub fn run(plan: Plan) -> Outcome {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let mut rig = Rig::new(&server);
    rig.put(&rig.version(GOOD[0]));
    let mut host = rig.ledger.host(None);
    host.wait_for_consumer();
    match rig.wait(|plugin| plugin["digest"].is_string()) {
        Some(plugin) => rig.serves(&plugin, GOOD[0]),
        None => rig.violations.push("the host does not answer".to_owned()),
    }
    let producer = rig.ledger.produce(&[], plan.per_second, plan.seed);
    std::thread::sleep(CALM);
    let calm_until = now_ms();
    let (swaps, refused) = rig.swap_all(plan);
    producer.stop();
    host.signal("TERM");
    if host.ends_within(SWAP_MAX).is_none() {
        rig.violations.push("the host does not end".to_owned());
    }
    rig.ledger.run_until_idle();
    let report = rig.ledger.check(Terms::default());
    rig.violations.extend(report.violations.iter().cloned());
    if report.dead > 0 || report.counters.retried > 0 {
        rig.violations.push(format!("{} failed, {} were retried", report.dead, report.counters.retried));
    }
    let emitted = rig.emitted();
    rig.counters_agree(&emitted);
    let first_ms = rig.first_settlements(&swaps, &emitted);
    let times: Vec<u64> = emitted.iter().map(|(ms, _)| *ms).collect();
    let last_swap = swaps.last().map_or(0, |(ms, _)| *ms);
    Outcome {
        plan,
        events: emitted.len(),
        refused,
        first_ms,
        calm_ms: longest_gap(&times, 0, calm_until),
        swapping_ms: longest_gap(&times, calm_until, last_swap + 1000),
        violations: rig.violations,
    }
}

impl Rig {
    pub fn new(server: &RedisServer) -> Self {
        let ledger = Ledger::on_redis(&server.url(), &server.url(), Options { batch: 64, ..Options::default() });
        let file = ledger.folder.path().join("plugin.wasm");
        let api = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let config = std::fs::read_to_string(ledger.config()).expect("the ledger's configuration");
        let built = crate::guest("ledger").display().to_string();
        let config = config.replace(&built, &file.display().to_string());
        let http = format!("\n[http]\nlisten = \"127.0.0.1:{api}\"\n");
        std::fs::write(ledger.config(), config + &http).expect("a writable folder");
        let good = std::fs::read(crate::guest("ledger")).expect("the guest");
        Self { ledger, file, good, api, names: BTreeMap::new(), violations: Vec::new() }
    }

    /// The guest as another version of itself.
    pub fn version(&self, name: &[u8; 16]) -> Vec<u8> {
        let mut bytes = self.good.clone();
        let places: Vec<usize> =
            bytes.windows(MARK.len()).enumerate().filter(|(_, window)| window == MARK).map(|(at, _)| at).collect();
        assert!(!places.is_empty(), "the guest bears no dedup_key of its version: build it again");
        for at in places {
            bytes[at..at + name.len()].copy_from_slice(name);
        }
        bytes
    }

    /// Puts a file in place, whole at once. Answers when that was.
    pub fn put(&self, bytes: &[u8]) -> u64 {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &self.file)).expect("a writable folder");
        now_ms()
    }

    /// When which version was put in place, and how many bad ones were refused.
    fn swap_all(&mut self, plan: Plan) -> (Vec<(u64, String)>, u32) {
        let bad = [b"not a component".to_vec(), wrong_world(), self.version(REFUSES), self.version(TRAPS)];
        let (mut swaps, mut refused) = (Vec::new(), 0);
        for number in 0..plan.swaps {
            if number % BAD_IN == 0 {
                let bad = &bad[(number / BAD_IN) as usize % bad.len()];
                let (at, before) = (self.put(bad), self.plugin()["refused"].clone());
                let digest = self.plugin()["digest"].clone();
                match self.wait(|plugin| plugin["refused"] != before && !plugin["refused"].is_null()) {
                    Some(plugin) if plugin["digest"] == digest => refused += 1,
                    Some(plugin) => self.violations.push(format!("a bad build serves: {plugin}")),
                    None => self.violations.push(format!("the bad build of {at} was not refused")),
                }
            }
            let (name, before) = (GOOD[(number as usize + 1) % 2], self.plugin()["digest"].clone());
            let at = self.put(&self.version(name));
            match self.wait(|plugin| plugin["digest"] != before) {
                Some(plugin) => {
                    self.serves(&plugin, name);
                    swaps.push((at, text(name)));
                }
                None => self.violations.push(format!("swap {number} did not come: {}", self.plugin())),
            }
            std::thread::sleep(PAUSE);
        }
        (swaps, refused)
    }

    fn serves(&mut self, plugin: &Value, name: &[u8; 16]) {
        self.names.insert(plugin["digest"].as_str().unwrap_or_default().to_owned(), text(name));
    }

    pub fn wait(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let give_up = Instant::now() + SWAP_MAX;
        while Instant::now() < give_up {
            let plugin = self.plugin();
            if wanted(&plugin) {
                return Some(plugin);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub fn plugin(&self) -> Value {
        self.get("/api/plugins")["plugins"][0].take()
    }

    /// The JSON that the host answers with; null while there is none.
    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", path).1
    }

    /// Status and JSON of the answer to a request that bears the host's token.
    pub fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let token = std::fs::read_to_string(self.token()).unwrap_or_default();
        let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
        ask(self.api, &format!("{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\n{bearer}", self.api))
    }

    /// Where the host keeps it.
    pub fn token(&self) -> PathBuf {
        self.ledger.config().with_file_name("tidemill.token")
    }

    /// Every emitted event: when it was settled, and by which version.
    fn emitted(&self) -> Vec<(u64, String)> {
        self.with_backend(async |backend| {
            let (mut all, mut after): (Vec<(u64, String)>, Option<EntryId>) = (Vec::new(), None);
            loop {
                let some = backend.entries(&self.ledger.store.output, after, 1000).await.expect("entries");
                let Some((last, _)) = some.last() else { return all };
                after = Some(*last);
                all.extend(some.iter().map(|(id, body)| {
                    let event: Value = serde_json::from_slice(body).expect("JSON");
                    (id.0, event["data"]["version"].as_str().unwrap_or_default().to_owned())
                }));
            }
        })
    }

    /// For each version the counters count as many as it has emitted.
    fn counters_agree(&mut self, emitted: &[(u64, String)]) {
        let store = &self.ledger.store;
        let subscription = Subscription { stream: store.input.as_str().into(), handler: store.handler.as_str().into() };
        let counters =
            self.with_backend(async |backend| backend.committed_by(&subscription).await.expect("the counters"));
        let mut of_events: BTreeMap<String, u64> = BTreeMap::new();
        emitted.iter().for_each(|(_, version)| *of_events.entry(version.clone()).or_default() += 1);
        let name = |digest: &String| self.names.get(digest).unwrap_or(digest).clone();
        let of_counters: BTreeMap<String, u64> =
            counters.iter().map(|counter| (name(&counter.digest), counter.committed)).collect();
        if of_events != of_counters {
            self.violations.push(format!("the events say {of_events:?}, the counters say {of_counters:?}"));
        }
    }

    fn first_settlements(&mut self, swaps: &[(u64, String)], emitted: &[(u64, String)]) -> Vec<u64> {
        let mut took = Vec::new();
        for (at, version) in swaps {
            match emitted.iter().find(|(ms, by)| ms >= at && by == version) {
                Some((ms, _)) => took.push(ms - at),
                None => self.violations.push(format!("{version}, put in place at {at}, has settled nothing")),
            }
        }
        took
    }

    fn with_backend<T>(&self, work: impl AsyncFnOnce(&dyn Backend) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options = tidemill_storage::Options {
                inbox_window: Duration::from_secs(3600),
                dead_letters_max: 1000,
                timers_max: 1000,
                ..Default::default()
            };
            let backend = tidemill::backends::open(&self.ledger.url, options).await.expect("a backend");
            work(&*backend).await
        })
    }
}

/// A component, but none of ours.
fn wrong_world() -> Vec<u8> {
    wat::parse_str("(component)").expect("it is well formed")
}

fn text(name: &[u8; 16]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(now.as_millis()).expect("not that far in the future")
}

fn longest_gap(times: &[u64], from: u64, to: u64) -> u64 {
    let times: Vec<u64> = times.iter().copied().filter(|ms| (from..=to).contains(ms)).collect();
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0)
}

/// Status and JSON of an answer.
fn ask(port: u16, head: &str) -> (u16, Value) {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

impl Outcome {
    fn quantile(&self, share: f64) -> u64 {
        let mut ms = self.first_ms.clone();
        ms.sort_unstable();
        ms.get(((ms.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(0)
    }

    pub fn json(&self) -> Value {
        let Plan { swaps, per_second, seed } = self.plan;
        json!({
            "swaps": swaps, "refused": self.refused, "events": self.events, "events_per_s": per_second, "seed": seed,
            "first_settlement_ms": { "p50": self.quantile(0.5), "p99": self.quantile(0.99), "max": self.quantile(1.0) },
            "longest_pause_ms": { "calm": self.calm_ms, "swapping": self.swapping_ms },
            "violations": self.violations,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { swaps, per_second, .. } = self.plan;
        writeln!(f, "{} events at {per_second}/s, {swaps} swaps, {} bad builds refused", self.events, self.refused)?;
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.quantile(share));
        writeln!(f, "from the file to the first settlement by it: p50 {p50} ms, p99 {p99} ms, max {max} ms")?;
        write!(f, "longest pause: {} ms without swaps, {} ms with them", self.calm_ms, self.swapping_ms)?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}
