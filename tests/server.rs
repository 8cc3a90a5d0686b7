//! A real redis-server as a child process: it ends with the tests, however they end.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub struct RedisServer {
    pub port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
    /// A shell that kills the server as soon as this pipe closes, which it does even if we are killed.
    keeper: Option<(Child, ChildStdin)>,
}

impl RedisServer {
    /// Starts a server with these extra options, such as `--appendonly yes`.
    pub fn start(options: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { port, folder: tempfile::tempdir().expect("a folder"), options, keeper: None };
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

    /// Ends the server by SIGKILL.
    pub fn kill(&mut self) {
        if let Some((mut shell, pipe)) = self.keeper.take() {
            drop(pipe);
            shell.wait().expect("the keeper ends");
        }
    }

    /// Starts it (again), on the same port and folder.
    pub fn again(&mut self) {
        let program = std::env::var("TIDEMILL_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut shell = Command::new("sh")
            .args(["-c", r#""$@" >log 2>&1 & read -r _; kill -9 $!; wait $! 2>/dev/null"#, "keeper", &program])
            .args(["--port", &self.port.to_string()])
            .args(&self.options)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let pipe = shell.stdin.take().expect("a piped stdin");
        self.keeper = Some((shell, pipe));
        let give_up = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                Instant::now() < give_up,
                "redis-server does not come up; is it installed? (`cargo xtask test` does that)"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
