//! Real redis-servers as child processes: they end with the tests, however those end.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::RngExt;
use redis::{FromRedisValue, Value};

use crate::clock::Clock;

/// How long a server may take to come up, or to go down.
const START_MAX: Duration = Duration::from_secs(20);

pub struct RedisServer {
    pub port: u16,
    /// Keeps the port for us while no server listens on it: whoever looks for one asks for both.
    _claim: UdpSocket,
    folder: tempfile::TempDir,
    options: Vec<String>,
    /// A shell that kills the server as soon as this pipe closes, which it does even if we are killed.
    keeper: Option<(Child, ChildStdin)>,
    /// The clock that it goes by, if it is not the machine's.
    clock: Option<Arc<Clock>>,
}

impl RedisServer {
    /// Starts a server with these extra options, such as `--appendonly yes`.
    pub fn start(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), options)
    }

    /// Starts a server on what lies in this folder.
    pub fn start_in(folder: tempfile::TempDir, options: &[&str]) -> Self {
        Self::start_with(folder, options, None)
    }

    /// Starts a server that goes by this clock.
    pub fn start_by(clock: &Arc<Clock>, options: &[&str]) -> Self {
        Self::start_with(tempfile::tempdir().expect("a folder"), options, Some(clock.clone()))
    }

    fn start_with(folder: tempfile::TempDir, options: &[&str], clock: Option<Arc<Clock>>) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let (port, _claim) = free_port();
        let mut server = Self { port, _claim, folder, options, keeper: None, clock };
        server.again();
        server
    }

    /// The server that tests share. It has no persistence; use fresh names.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["--save", "", "--appendonly", "no"]))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server by SIGKILL.
    pub fn kill(&mut self) {
        if let Some((mut shell, pipe)) = self.keeper.take() {
            drop(pipe);
            shell.wait().expect("the keeper ends");
        }
    }

    /// Ends the server as an operator would: what it holds is saved as its options say.
    pub fn stop(&mut self) {
        // It answers by closing the connection.
        let _ = self.try_ask::<Value>(&["SHUTDOWN"]);
        let give_up = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(Instant::now() < give_up, "redis-server does not go down");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Starts it (again), on the same port and folder.
    pub fn again(&mut self) {
        let program = std::env::var("TIDEMILL_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut shell = Command::new("sh");
        if let Some(clock) = &self.clock {
            clock.of(&mut shell);
        }
        let mut shell = shell
            .args(["-c", r#""$@" >>log 2>&1 & read -r _; kill -9 $!; wait $! 2>/dev/null"#, "keeper", &program])
            .args(["--port", &self.port.to_string()])
            .args(&self.options)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let pipe = shell.stdin.take().expect("a piped stdin");
        self.keeper = Some((shell, pipe));
        let give_up = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(
                Instant::now() < give_up,
                "redis-server does not come up; is it installed? (`cargo xtask test` does that)\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks one command over a connection of its own, which fails if the server says so.
    pub fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(START_MAX)?;
        connection.set_read_timeout(Some(START_MAX))?;
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]).query(&mut connection)
    }

    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    pub fn config_set(&self, name: &str, value: &str) {
        self.ask::<()>(&["CONFIG", "SET", name, value]);
    }

    /// A field of INFO; empty if it has none of that name.
    pub fn info(&self, field: &str) -> String {
        let text: String = self.ask(&["INFO", "everything"]);
        let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_default().to_owned()
    }

    /// A connection for raw commands, once the server has read its files.
    pub async fn client(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a good url");
        let give_up = Instant::now() + START_MAX;
        loop {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("GET").arg("tm:none").query_async::<Value>(&mut connection).await.is_ok()
            {
                return connection;
            }
            assert!(Instant::now() < give_up, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes it a replica of the other one, and waits until it has caught up.
    pub fn replica_of(&self, primary: &RedisServer) {
        self.ask::<()>(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        let give_up = Instant::now() + START_MAX;
        while self.info("master_link_status") != "up" {
            assert!(Instant::now() < give_up, "the replica does not get in touch with its primary");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Gives the user these rights and no others, with `pw` for a password; its url.
    pub fn user(&self, name: &str, rights: &[&str]) -> String {
        let mut command = vec!["ACL", "SETUSER", name, "reset", "on", ">pw"];
        command.extend(rights);
        self.ask::<()>(&command);
        format!("redis://{name}:pw@127.0.0.1:{}", self.port)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port below those that outgoing connections take, and its twin of UDP: with that in hand, it is still free when the
/// server comes back to it, also from other tests that look for one.
fn free_port() -> (u16, UdpSocket) {
    loop {
        let port = rand::rng().random_range(20_000..32_000);
        if let (Ok(claim), Ok(_)) = (UdpSocket::bind(("127.0.0.1", port)), TcpListener::bind(("127.0.0.1", port))) {
            return (port, claim);
        }
    }
}
