//! The host under test: `tidemill run` as a process of its own, so that its processor time and memory are its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::setup::Setup;
use crate::usage;

/// How long it may take to end after it was told to: it finishes what it has in hand.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long `/metrics` may take to answer.
const METRICS_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Host {
    child: Child,
    log: PathBuf,
    http: u16,
}

impl Host {
    /// Starts a host of this set-up; `folder` takes its configuration, its log, and compiled plugins.
    pub(crate) fn start(setup: &Setup, url: &str, folder: &Path) -> anyhow::Result<Self> {
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = setup.write(folder, url, http)?;
        let log = folder.join(format!("host-{http}.log"));
        let mut command = tidemill_testkit::tidemill();
        command.arg("run").arg("--config").arg(config).env("RUST_LOG", "warn").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        Ok(Self { child: command.spawn().context("starting tidemill")?, log, http })
    }

    /// An error with its log if it has ended by itself.
    pub(crate) fn lives(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the host ended with {status}:\n{}", self.said()),
        }
    }

    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        usage::cpu_s(self.child.id())
    }

    pub(crate) fn mib(&self) -> anyhow::Result<f64> {
        usage::mib(self.child.id())
    }

    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        usage::peak_mib(self.child.id())
    }

    /// Deliveries that it found to be another host's when it wanted to settle them.
    pub(crate) fn fenced(&self) -> anyhow::Result<f64> {
        self.metric("tidemill_deliveries_total{", r#"result="fenced""#)
    }

    /// Reads that brought something.
    pub(crate) fn fetches(&self) -> anyhow::Result<f64> {
        self.metric("tidemill_fetch_seconds_count{", "")
    }

    /// The sum of a metric over those labels that have `label` among them. There has to be such a metric.
    fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).context("asking the host for /metrics")?;
        stream.set_read_timeout(Some(METRICS_MAX))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading /metrics")?;
        ensure!(answer.contains(name), "/metrics has no {name}:\n{answer}");
        let rows = answer.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(rows.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Ends it as an operator does, and looks whether it ends well.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(killed.success(), "kill -TERM has to work on our own child");
        let give_up = Instant::now() + STOP_MAX;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the host ended with {status}:\n{}", self.said());
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the host does not end {STOP_MAX:?} after it was told to:\n{}", self.said())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
