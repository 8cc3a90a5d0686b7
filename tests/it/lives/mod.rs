//! The life of a host as whoever runs it meets it: it starts like a service, it outlives its own log, and it never looks
//! alive when it does not work.

mod deaths;
mod log_lines;
mod on_a_full_disk;
mod reloads_break;
mod starts;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Backend, NewEntry, SubscriptionStatus};
use tidemill_testkit::world::event;
use uuid::Uuid;

/// Nothing here should take this long, however busy the machine is; what does is stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(120);

/// No answer by then is none: as for whoever looks after a host.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A folder with the configuration of a host in it: one handler, whose plugin may make requests.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    url: String,
    port: u16,
    asked: String,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    /// On a SQLite file of its own.
    pub(crate) fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("events.db").display());
        Self::new(folder, url)
    }

    pub(crate) fn on_redis(url: &str) -> Self {
        Self::new(tempfile::tempdir().expect("a folder"), url.to_owned())
    }

    fn new(folder: tempfile::TempDir, url: String) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let asked = format!("asked-{}", Uuid::new_v4().simple());
        let place = Self { folder, url, port, asked, runtime: runtime.expect("a runtime") };
        place.configure(16, "");
        place
    }

    /// Writes the configuration; `tables` at its end.
    pub(crate) fn configure(&self, batch: u32, tables: &str) {
        let (url, port, asked) = (&self.url, self.port, &self.asked);
        let (schemas, plugin) = (tidemill_testkit::root().join("tests/schemas"), tidemill_testkit::guest("caller"));
        let text = format!(
            r#"
            [backend]
            url = "{url}"
            [http]
            listen = "127.0.0.1:{port}"
            [schemas]
            path = "{}"
            [streams."{asked}"]
            events = ["Test.Thing.Asked"]
            [streams."done-{asked}"]
            events = ["Test.Thing.Done"]
            [host]
            batch = {batch}
            io_workers = 2
            http_private = ["127.0.0.1/32", "::1/128"]
            [handlers.caller]
            plugin = "{}"
            events = ["Test.Thing.Asked"]
            key = "/data/key"
            retry = {{ max = 3, base = "10ms", factor = 1, cap = "10ms" }}
            [handlers.caller.grants]
            emit = ["Test.Thing.Done"]
            state = true
            secrets = []
            http = ["* http://localhost:{port}/*"]
            {tables}
            "#,
            schemas.display(),
            plugin.display()
        );
        std::fs::write(self.file(), text).expect("a writable folder");
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("tidemill.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("events.db")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tidemill_testkit::tidemill();
        command
            .args(args)
            .arg("--config")
            .arg(self.file())
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts a command that logs into a file, with this in its environment.
    pub(crate) fn start(&self, args: &[&str], env: &[(&str, &str)]) -> Running {
        let log = self.folder.path().join(format!("log-{}", Uuid::new_v4().simple()));
        let stderr = std::fs::File::create(&log).expect("a log file");
        let mut command = self.command(args);
        let child = command.envs(env.iter().copied()).stderr(stderr).spawn().expect("it starts");
        Running { child, log, port: self.port }
    }

    /// By a connection of its own.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        let options = tidemill_conformance::options();
        let give_up = Instant::now() + STUCK;
        loop {
            match self.runtime.block_on(tidemill::backends::open(&self.url, options.clone())) {
                Ok(backend) => return backend,
                Err(error) => assert!(Instant::now() < give_up, "no backend: {error}"),
            }
        }
    }

    /// Publishes events with this data; what the stream refuses at the moment is tried again.
    pub(crate) fn put(&self, data: &Value, count: usize) {
        let bodies = (0..count).map(|_| event(Uuid::new_v4(), data.clone()).to_string());
        self.put_bodies(bodies.collect());
    }

    pub(crate) fn put_bodies(&self, bodies: Vec<String>) {
        let entries: Vec<NewEntry> =
            bodies.into_iter().map(|body| NewEntry { body: body.into(), dedup_key: None }).collect();
        let (backend, give_up) = (self.backend(), Instant::now() + STUCK);
        for entries in entries.chunks(100) {
            while let Err(error) = self.runtime.block_on(backend.publish(&self.asked, entries)) {
                assert!(Instant::now() < give_up, "cannot publish: {error}");
            }
        }
    }

    /// Waits until the counters say so.
    #[track_caller]
    pub(crate) fn until(&self, running: &Running, wanted: impl Fn(&SubscriptionStatus) -> bool) -> SubscriptionStatus {
        let subscription = Subscription { stream: self.asked.as_str().into(), handler: "caller".into() };
        let (backend, give_up) = (self.backend(), Instant::now() + STUCK);
        loop {
            let status = self.runtime.block_on(backend.status(&subscription));
            match &status {
                Ok(status) if wanted(status) => return *status,
                _ => assert!(Instant::now() < give_up, "{status:?}\n{}", running.said()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One more event is handled: this host does work.
    #[track_caller]
    pub(crate) fn works(&self, running: &Running) {
        let before = self.until(running, |_| true).committed;
        self.put(&json!({ "do": "ok" }), 1);
        self.until(running, |status| status.committed > before && status.waiting() == 0);
    }
}

/// A `tidemill` that runs. It ends with its owner.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    port: u16,
}

impl Running {
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn waits_until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let give_up = Instant::now() + STUCK;
        while !wanted(self) {
            let exit = self.child.try_wait().expect("a child can be asked");
            let in_time = Instant::now() < give_up && exit.is_none();
            assert!(in_time, "it does not come to that: {what}; {exit:?}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) {
        self.waits_until(text, |host| host.said().contains(text));
    }

    #[track_caller]
    pub(crate) fn is_ready(&mut self) {
        self.waits_until("ready", |host| host.get("/readyz").0 == 200);
    }

    /// Waits for its end; `None`: by a signal.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let give_up = Instant::now() + STUCK;
        loop {
            if let Some(exit) = self.child.try_wait().expect("a child can be asked") {
                return exit.code();
            }
            assert!(Instant::now() < give_up, "it does not end\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} has to work on our own child");
    }

    /// Ends it as a person would, and it ends well.
    #[track_caller]
    pub(crate) fn stops(&mut self) {
        self.signal("TERM");
        assert_eq!(self.ends(), Some(0), "{}", self.said());
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path)
    }

    /// Status and text of an answer; 0 if there is none.
    pub(crate) fn request(&self, method: &str, path: &str) -> (u16, String) {
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            // There is none before the host is up.
            let token = std::fs::read_to_string(self.log.with_file_name("tidemill.token")).unwrap_or_default();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\n",
                self.port,
                token.trim()
            );
            stream.write_all(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = answer().unwrap_or_default();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    /// The value of a line of `/metrics` that begins like this; 0 if there is none.
    pub(crate) fn metric(&self, begin: &str) -> u64 {
        let text = self.get("/metrics").1;
        let line = text.lines().find_map(|line| line.strip_prefix(begin));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}
