//! A site: a folder with a configuration, a handler and a backend, and the command `tidemill` typed there, by a person or a
//! script. And the list of all commands, for tests of what has to hold for each of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// No step of a host should take this long, on a busy machine either.
const STEP_MAX: Duration = Duration::from_secs(90);

pub(crate) struct Site {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Site {
    /// With this text as its `tidemill.toml`.
    pub(crate) fn new(config: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder"), variables: Vec::new() };
        site.write("tidemill.toml", config);
        site
    }

    /// A variable that every command finds in its environment.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The token of the host's API, once it is there.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.path("tidemill.token")).unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("a writable folder");
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tidemill_testkit::tidemill();
        command.args(args).current_dir(self.folder.path()).env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// A host at work, with this in RUST_LOG and these arguments besides.
    pub(crate) fn host(&self, level: &str, args: &[&str]) -> Host {
        let log = self.path("host.log");
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = self.command(&[&["run"], args].concat());
        let child = command.env("RUST_LOG", level).stdout(Stdio::null()).stderr(file).spawn().expect("a host");
        Host { child, log }
    }
}

/// Ends with its owner.
pub(crate) struct Host {
    child: Child,
    log: PathBuf,
}

impl Host {
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until that has come true.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let give_up = Instant::now() + STEP_MAX;
        while !wanted(&self.log()) {
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none() && Instant::now() < give_up, "{what}: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill has to work on our own child");
        self.child.wait().expect("a child ends")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that an output says, on both sides.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The whole answer to a request that bears this token, head and body.
pub(crate) fn ask(address: &str, token: &str, method: &str, path: &str) -> String {
    let mut answer = Vec::new();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
    );
    if let Ok(mut stream) = TcpStream::connect(address)
        && stream.write_all(head.as_bytes()).is_ok()
    {
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Every route of the HTTP side.
pub(crate) const ROUTES: [(&str, &str); 8] = [
    ("GET", "/api/status"),
    ("GET", "/api/plugins"),
    ("POST", "/api/plugins/mischief/reload"),
    ("POST", "/api/plugins/mischief/rollback"),
    ("POST", "/api/reload"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
];

/// Every command, with arguments that fit a site with the handler `mischief`. `LETTER` is the id of a dead letter, `PLUGIN`
/// a component.
pub(crate) const COMMANDS: [&[&str]; 30] = [
    &["init", "a\u{1b}[2Jb"],
    &["demo", "--events", "10"],
    &["config", "check"],
    &["publish", "events.jsonl"],
    &["publish", "--dry-run", "events.jsonl"],
    &["publish", "no\u{1b}[2Jfile"],
    &["status"],
    &["doctor"],
    &["doctor", "--deep"],
    &["backup", "copy.db"],
    &["dead", "ls"],
    &["dead", "ls", "--flat"],
    &["dead", "show", "LETTER"],
    &["dead", "edit", "LETTER", "--file", "events.jsonl", "--yes"],
    &["dead", "export"],
    &["dead", "replay", "--all", "--dry-run"],
    &["dead", "drop", "LETTER", "--dry-run"],
    &["state", "mischief"],
    &["plugin", "ls"],
    &["plugin", "build", "a\u{1b}[2Jb"],
    &["plugin", "check", "PLUGIN"],
    &["plugin", "stamp", "PLUGIN", "--manifest", "events.jsonl", "--out", "stamped.wasm"],
    &["plugin", "pause", "mischief", "--note", "a\u{1b}[2Jb"],
    &["plugin", "resume", "mischief"],
    &["plugin", "shadow", "mischief", "--plugin", "PLUGIN"],
    &["plugin", "reload", "mischief"],
    &["plugin", "rollback", "mischief"],
    &["reload"],
    &["dead", "audit"],
    &["completions", "bash"],
];

/// The commands with these in place of the words in capitals.
pub(crate) fn commands<'a>(letter: &'a str, plugin: &'a Path) -> Vec<Vec<&'a str>> {
    let plugin = plugin.to_str().expect("a path in UTF-8");
    let word = |word: &&'static str| match *word {
        "LETTER" => letter,
        "PLUGIN" => plugin,
        word => word,
    };
    COMMANDS.iter().map(|words| words.iter().map(word).collect()).collect()
}
