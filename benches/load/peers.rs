//! What people use today, on the same events and the same server: each peer is a process of its own under
//! `benches/peers/`, set up as its documentation recommends. It measures itself from the first event in hand until all are
//! acknowledged; whether they are is looked up in Redis here. The contract is in `benches/peers/README.md`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamInfoGroup, StreamInfoGroupsReply};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::model::Sample;

pub(crate) struct Peer {
    pub name: &'static str,
    pub language: &'static str,
    /// What it promises in this set-up, says its documentation; crashes were not tried.
    pub gives: &'static str,
    /// A longer backlog breaks it, or takes minutes.
    pub events_max: u64,
    /// The program and its first arguments, in `benches/peers/`.
    program: &'static [&'static str],
    queue: Queue,
}

/// Where a peer keeps what it has to do, and so how it is asked what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// A Redis Stream with one group.
    Stream,
    /// Lists and a hash for each job.
    BullMq,
    /// A list, one hash for all jobs, and a set of those that are done.
    Apalis,
}

const RUST: &str = "rust/target/release/tidemill-peers";
const PYTHON: &str = "python/.venv/bin/python";

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "native",
        language: "Rust",
        gives: "schema check, duplicates left out; loses an event when it dies between dedup_key and handler; no retries",
        events_max: 1_000_000,
        program: &[RUST, "native"],
        queue: Queue::Stream,
    },
    Peer {
        name: "apalis",
        language: "Rust",
        gives: "at least once, retries, dead set",
        // Its script hands all due jobs to `unpack`, which takes less than 8,000.
        events_max: 7_000,
        program: &[RUST, "apalis"],
        queue: Queue::Apalis,
    },
    Peer {
        name: "apalis-parallel",
        language: "Rust",
        gives: "at least once, retries, dead set",
        events_max: 7_000,
        program: &[RUST, "apalis-parallel"],
        queue: Queue::Apalis,
    },
    Peer {
        name: "sea-streamer",
        language: "Rust",
        gives: "at least once",
        events_max: 1_000_000,
        program: &[RUST, "sea-streamer"],
        queue: Queue::Stream,
    },
    Peer {
        name: "bullmq-200",
        language: "Node",
        gives: "at least once, retries, failed set",
        events_max: 50_000,
        program: &["node", "node/bullmq.js", "200"],
        queue: Queue::BullMq,
    },
    Peer {
        name: "bullmq-50",
        language: "Node",
        gives: "at least once, retries, failed set",
        events_max: 50_000,
        program: &["node", "node/bullmq.js", "50"],
        queue: Queue::BullMq,
    },
    Peer {
        name: "faststream-batch",
        language: "Python",
        gives: "at least once, the batch as a whole",
        events_max: 100_000,
        program: &[PYTHON, "python/faststream_peer.py", "batch"],
        queue: Queue::Stream,
    },
    Peer {
        name: "faststream",
        language: "Python",
        gives: "at least once",
        events_max: 10_000,
        program: &[PYTHON, "python/faststream_peer.py", "single"],
        queue: Queue::Stream,
    },
    Peer {
        name: "taskiq",
        language: "Python",
        gives: "at least once",
        events_max: 10_000,
        program: &[PYTHON, "python/taskiq_peer.py"],
        queue: Queue::Stream,
    },
];

/// How long a peer may take to fill its queue, to connect, or to drain.
const STEP_MAX: Duration = Duration::from_secs(120);

/// What a peer says at its end, in one line of JSON.
#[derive(Deserialize)]
struct Report {
    events: u64,
    seconds: f64,
    cpu_s: f64,
    peak_mib: f64,
    settings: String,
}

/// Installs and builds what is not there yet. Only the first time takes long, and needs the net.
pub(crate) fn prepare(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("benches/peers");
    node(&folder.join("node"))?;
    python(&folder.join("python"))?;
    let rust = folder.join("rust");
    // Wherever our own builds go, this one stays in its folder: it is a workspace of its own.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--target-dir", "target"]).env_remove("CARGO_TARGET_DIR");
    passes(cargo.current_dir(rust), "install Rust: https://rustup.rs")
}

fn node(folder: &Path) -> anyhow::Result<()> {
    let hint = "BullMQ needs Node.js 20 or later with npm: https://nodejs.org";
    // Not `npm ci`: that refuses a lock file without the native add-on of every other system.
    let install = |folder: &Path| {
        let mut npm = Command::new("npm");
        passes(npm.args(["install", "--no-save", "--no-audit", "--no-fund"]).current_dir(folder), hint)
    };
    once(folder, "package-lock.json", "node_modules", install)
}

fn python(folder: &Path) -> anyhow::Result<()> {
    let hint = "FastStream and Taskiq need Python 3.11 or later with venv (Debian: python3-venv)";
    let install = |folder: &Path| {
        passes(Command::new("python3").args(["-m", "venv", ".venv"]).current_dir(folder), hint)?;
        let mut pip = Command::new(folder.join(".venv/bin/python"));
        passes(pip.args(["-m", "pip", "install", "--quiet", "-r", "requirements.txt"]).current_dir(folder), hint)
    };
    once(folder, "requirements.txt", ".venv", install)
}

/// Installs unless a copy of the list of what is wanted lies beside what is installed.
fn once(
    folder: &Path,
    wanted: &str,
    installed: &str,
    install: impl Fn(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let list =
        std::fs::read(folder.join(wanted)).with_context(|| format!("reading {wanted} in {}", folder.display()))?;
    let copy = folder.join(installed).join("tidemill-installed");
    if std::fs::read(&copy).is_ok_and(|copy| copy == list) {
        return Ok(());
    }
    install(folder)?;
    Ok(std::fs::write(copy, list)?)
}

fn passes(command: &mut Command, hint: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Progress; stdout is for results alone.
    let status =
        command.stdout(std::io::stderr()).status().with_context(|| format!("running {program}\n  hint: {hint}"))?;
    ensure!(status.success(), "{program} ended with {status}\n  hint: {hint}");
    Ok(())
}

/// Fills the peer's queue in an empty Redis, lets it drain, and looks whether it did. Also says the peer's settings.
pub(crate) async fn drain(
    peer: &Peer,
    events: u64,
    url: &str,
    connection: &mut MultiplexedConnection,
) -> anyhow::Result<(Sample, String)> {
    let events = events.min(peer.events_max);
    let _: () = redis::cmd("FLUSHALL").query_async(connection).await?;
    Process::start(peer, "fill", url, events)?.end().await?;
    let open = peer.queue.open(connection).await?;
    ensure!(open == events, "{}: {open} events are in its queue, not {events}", peer.name);

    let mut process = Process::start(peer, "drain", url, events)?;
    ensure!(process.line().await? == "ready", "{}: its first line is not \"ready\"", peer.name);
    let redis_s = redis_seconds(connection).await?;
    process.go()?;
    let line = process.line().await?;
    let redis_s = redis_seconds(connection).await? - redis_s;
    process.end().await?;

    let report: Report = serde_json::from_str(&line).with_context(|| format!("{} says {line:?}", peer.name))?;
    ensure!(report.events == events, "{}: it drained {} events of {events}", peer.name, report.events);
    let open = peer.queue.open(connection).await?;
    ensure!(open == 0, "{}: {open} of {events} events are not acknowledged", peer.name);
    let sample = Sample {
        events_per_s: events as f64 / report.seconds,
        client_us: report.cpu_s * 1e6 / events as f64,
        redis_us: redis_s * 1e6 / events as f64,
        client_mib: report.peak_mib,
    };
    Ok((sample, report.settings))
}

/// Processor time that the server has used.
async fn redis_seconds(connection: &mut MultiplexedConnection) -> anyhow::Result<f64> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(connection).await?;
    let of = |name: &str| -> anyhow::Result<f64> {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.with_context(|| format!("INFO cpu has no {name}"))?.trim().parse()?)
    };
    Ok(of("used_cpu_sys:")? + of("used_cpu_user:")?)
}

impl Queue {
    /// How many events are not acknowledged, says Redis.
    async fn open(self, connection: &mut MultiplexedConnection) -> anyhow::Result<u64> {
        match self {
            Self::Stream => {
                let length = number(connection, &["XLEN", "peer"]).await?;
                let groups: StreamInfoGroupsReply = connection.xinfo_groups("peer").await?;
                let read = |group: &StreamInfoGroup| group.entries_read.unwrap_or(0) as u64;
                let behind = |group: &StreamInfoGroup| length.saturating_sub(read(group)) + group.pending as u64;
                // The group may be its consumer's to make.
                Ok(groups.groups.first().map_or(length, behind))
            }
            Self::BullMq => {
                let mut open = 0;
                for list in ["bull:peer:wait", "bull:peer:active"] {
                    open += number(connection, &["LLEN", list]).await?;
                }
                for set in ["bull:peer:delayed", "bull:peer:prioritized", "bull:peer:failed"] {
                    open += number(connection, &["ZCARD", set]).await?;
                }
                Ok(open)
            }
            Self::Apalis => {
                let jobs = number(connection, &["HLEN", "peer:data"]).await?;
                let inflight = number(connection, &["SCARD", "peer:inflight:one"]).await?;
                let done = number(connection, &["SCARD", "peer:done"]).await?;
                Ok(jobs - done.min(jobs) + inflight)
            }
        }
    }
}

async fn number(connection: &mut MultiplexedConnection, words: &[&str]) -> anyhow::Result<u64> {
    let (name, arguments) = words.split_first().context("a command has a name")?;
    Ok(redis::cmd(name).arg(arguments).query_async(connection).await?)
}

/// A running peer. It is ended with us: a peer that hangs must not outlive the harness.
struct Process {
    name: &'static str,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn start(peer: &Peer, verb: &str, url: &str, events: u64) -> anyhow::Result<Self> {
        let folder = tidemill_testkit::root().join("benches/peers");
        let (program, arguments) = peer.program.split_first().context("a peer has a program")?;
        // A bare name is looked for on the PATH.
        let path = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
        let mut command = Command::new(&path);
        command.args(arguments).args([verb, url, &events.to_string()]).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {} ({})", peer.name, path.display()))?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        let (sender, lines) = mpsc::channel(4);
        let listen = move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name(peer.name.to_owned()).spawn(listen).context("starting a thread")?;
        Ok(Self { name: peer.name, child, lines })
    }

    fn go(&mut self) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is a pipe")?;
        Ok(writeln!(stdin, "go")?)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(STEP_MAX, self.lines.recv()).await;
        line.with_context(|| format!("{} is silent for {STEP_MAX:?}", self.name))?
            .with_context(|| format!("{} ended early; what it said is on stderr", self.name))
    }

    /// Waits until it ends, and wants it to end well.
    async fn end(mut self) -> anyhow::Result<()> {
        let quiet = tokio::time::timeout(STEP_MAX, self.lines.recv()).await;
        match quiet.with_context(|| format!("{} does not end within {STEP_MAX:?}", self.name))? {
            Some(line) => bail!("{} says more than it should: {line}", self.name),
            None => {
                let status = self.child.wait()?;
                ensure!(status.success(), "{} ended with {status}; what it said is on stderr", self.name);
                Ok(())
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
