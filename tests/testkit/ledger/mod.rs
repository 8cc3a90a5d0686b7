//! The ledger: a world for killing hosts in. Hosts are processes, the producer keeps a log of its own, and the checker
//! judges both.

pub mod host;
pub mod producer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::checker::{Database, Report, Store, Terms, judge, read_log};
use crate::clock::Clock;
use host::Host;
use producer::{Mix, Producer};

/// No run until idle should take this long; one that does is stuck.
const IDLE_MAX: Duration = Duration::from_secs(180);

pub struct Ledger {
    pub store: Store,
    /// Where hosts find the backend.
    pub url: String,
    pub folder: tempfile::TempDir,
    hosts: AtomicUsize,
    /// The clock that its hosts go by, if it is not the machine's.
    clock: Option<Arc<Clock>>,
}

/// What differs between ledgers.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub deadline: &'static str,
    pub batch: usize,
    /// Bounds of the input stream, as keys of its table.
    pub bounds: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: "2s", batch: 16, bounds: "" }
    }
}

impl Ledger {
    /// On a Redis at this URL, where hosts may go by another one (a proxy's).
    pub fn on_redis(url: &str, hosts_go_by: &str, options: Options) -> Self {
        Self::new(Database::Redis(url.to_owned()), Some(hosts_go_by), options)
    }

    /// On a SQLite file of its own.
    pub fn on_sqlite(options: Options) -> Self {
        Self::new(Database::Sqlite(PathBuf::new()), None, options)
    }

    fn new(mut database: Database, hosts_go_by: Option<&str>, options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("ledger-").tempdir().expect("a folder");
        if let Database::Sqlite(file) = &mut database {
            *file = folder.path().join("ledger.db");
        }
        let url = match (&database, hosts_go_by) {
            (_, Some(url)) => url.to_owned(),
            (Database::Redis(url), None) => url.clone(),
            (Database::Sqlite(file), None) => format!("sqlite:{}", file.display()),
        };
        let suffix = Uuid::new_v4().simple();
        let (input, output) = (format!("posted-{suffix}"), format!("booked-{suffix}"));
        let store = Store { database, input, output, handler: "ledger".to_owned() };
        std::fs::write(folder.path().join("tidemill.toml"), config(&store, &url, options)).expect("a writable folder");
        Self { store, url, folder, hosts: AtomicUsize::new(0), clock: None }
    }

    /// From now on hosts are started by this clock.
    pub(crate) fn go_by(&mut self, clock: &Arc<Clock>) {
        self.clock = Some(clock.clone());
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("tidemill.toml")
    }

    /// The producer's log.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("producer.jsonl")
    }

    /// Starts a host, which dies at the fault point if one is given (`NAME:TIMES`).
    pub fn host(&self, fault: Option<&str>) -> Host {
        self.spawn(&["run"], fault)
    }

    /// Starts a host by this configuration, odd in these ways.
    pub(crate) fn odd_host(&self, config: &Path, odd: &host::Odd) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("host-{number}.log"));
        Host::start_odd(self.clock.as_deref(), config, &log, &["run"], odd)
    }

    /// Writes another configuration of the same world: with this text in place of that, and more at its end.
    pub fn variant(&self, name: &str, place: (&str, &str), more: &str) -> PathBuf {
        let text = std::fs::read_to_string(self.config()).expect("its configuration");
        assert!(text.contains(place.0), "there is no {:?} in it", place.0);
        let file = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text.replacen(place.0, place.1, 1) + more).expect("a writable folder");
        file
    }

    /// Starts any command of tidemill on this world.
    pub fn spawn(&self, args: &[&str], fault: Option<&str>) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("host-{number}.log"));
        Host::start_by(self.clock.as_deref(), &self.config(), &log, args, fault)
    }

    /// Events of a mix, so many a second, until the producer is told to stop.
    pub fn produce(&self, mix: Mix, per_second: u32, seed: u64) -> Producer {
        Producer::start(&self.store, &self.url, &self.log(), mix, per_second, seed)
    }

    /// Runs a healthy host until nothing waits any more.
    pub fn run_until_idle(&self) {
        let mut host = self.spawn(&["run", "--until-idle"], None);
        let give_up = Instant::now() + IDLE_MAX;
        while host.exit().is_none() {
            if Instant::now() > give_up {
                let found = self.store.read().map(|found| format!("{:?} wait", found.waiting.len()));
                panic!("the host is stuck: {found:?}\n{}", host.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(host.exit().is_some_and(|exit| exit.success()), "the host ended badly\n{}", host.said());
    }

    /// The checker's judgement of the store as it is now.
    pub fn check(&self, terms: Terms) -> Report {
        let inputs = read_log(&self.log()).expect("the producer's log");
        let found = self.store.read().unwrap_or_else(|error| panic!("the store cannot be read: {error}"));
        judge(&inputs, &found, terms)
    }

    pub fn pending_of(&self, consumer: &str) -> Result<usize, String> {
        self.store.pending_of(consumer)
    }

    pub fn takes_writes(&self) -> bool {
        self.store.takes_writes()
    }

    /// All that hosts have written to their logs.
    pub fn said(&self) -> String {
        let logs = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

impl Report {
    /// For tests: fails with everything that is wrong.
    #[track_caller]
    pub fn must_be_clean(&self, ledger: &Ledger) {
        if !self.violations.is_empty() {
            panic!("{self}\nthe hosts said:\n{}", tail(&ledger.said(), 60));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn config(store: &Store, url: &str, options: Options) -> String {
    let Options { deadline, batch, bounds } = options;
    let file = |path: &Path| path.display().to_string();
    format!(
        r#"
        [backend]
        url = "{url}"
        [schemas]
        path = "{schemas}"
        [streams."{input}"]
        events = ["Test.Entry.Posted", "Test.Thing.Asked"]
        {bounds}
        [streams."{output}"]
        events = ["Test.Entry.Booked"]
        [host]
        batch = {batch}
        workers = 2
        [handlers.{handler}]
        plugin = "{plugin}"
        events = ["Test.Entry.Posted"]
        key = "/data/key"
        deadline = "{deadline}"
        retry = {{ max = 3, base = "50ms", factor = 1, cap = "200ms" }}
        breaker = {{ failure_rate = 1.0, min_events = 1000000, open_for = "1s" }}
        [handlers.{handler}.grants]
        emit = ["Test.Entry.Booked"]
        state = true
        "#,
        schemas = file(&crate::root().join("tests/schemas")),
        plugin = file(&crate::guest("ledger")),
        input = store.input,
        output = store.output,
        handler = store.handler,
    )
}
