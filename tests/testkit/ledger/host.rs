//! A host as a process: started, signalled, killed and waited for from outside. It ends with its owner.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// A host says its name as soon as it has reached the backend, which may be away for a while.
const NAME_MAX: Duration = Duration::from_secs(60);
const SIGABRT: i32 = 6;

/// What is odd about a host from its start.
#[derive(Debug, Default)]
pub(crate) struct Odd {
    /// The point at which it dies: `NAME:TIMES`.
    pub(crate) fault: Option<String>,
    /// The task or thread that panics: `NAME:TIMES`.
    pub(crate) panic: Option<String>,
    /// The disk under its log is full.
    pub(crate) mute: bool,
}

pub struct Host {
    child: Child,
    log: PathBuf,
    exit: Option<ExitStatus>,
    consumer: Option<String>,
}

impl Host {
    pub fn start(config: &Path, log: &Path, args: &[&str], fault: Option<&str>) -> Self {
        Self::start_by(None, config, log, args, fault)
    }

    /// Starts one that goes by this clock.
    pub fn start_by(clock: Option<&Clock>, config: &Path, log: &Path, args: &[&str], fault: Option<&str>) -> Self {
        Self::start_odd(clock, config, log, args, &Odd { fault: fault.map(str::to_owned), ..Odd::default() })
    }

    /// The same for one that is odd in other ways, too.
    pub(crate) fn start_odd(clock: Option<&Clock>, config: &Path, log: &Path, args: &[&str], odd: &Odd) -> Self {
        // What is written there is lost, with an error.
        let file = if odd.mute { Path::new("/dev/full") } else { log };
        let file = std::fs::OpenOptions::new().write(true).create(!odd.mute).truncate(!odd.mute).open(file);
        let mut command = crate::tidemill();
        command.args(args).arg("--config").arg(config).env("RUST_LOG", "info").env("NO_COLOR", "1");
        for (variable, plan) in [("TIDEMILL_FAULT", &odd.fault), ("TIDEMILL_PANIC", &odd.panic)] {
            if let Some(plan) = plan {
                command.env(variable, plan);
            }
        }
        if let Some(clock) = clock {
            clock.of(&mut command);
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file.expect("a log file"));
        Self { child: command.spawn().expect("the host starts"), log: log.to_owned(), exit: None, consumer: None }
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.exit = self.exit.or_else(|| self.child.try_wait().expect("a child can be asked"));
        self.exit
    }

    /// Waits for its end; `None` if that does not come in time.
    pub fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let give_up = Instant::now() + time;
        while self.exit().is_none() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.exit()
    }

    /// Whether it has died at a fault point.
    pub fn died_by_fault(&mut self) -> bool {
        self.exit().is_some_and(|exit| exit.signal() == Some(SIGABRT))
    }

    /// Sends a signal: `TERM`, `STOP`, `CONT`, `INT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} has to work on our own child");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.exit().is_none() {
            self.child.kill().expect("a child can be killed");
            self.exit = Some(self.child.wait().expect("a killed child ends"));
        }
    }

    /// The name under which it holds deliveries, as it says in its log; `None` before it has got that far.
    pub fn consumer(&mut self) -> Option<String> {
        if self.consumer.is_none() {
            let said = self.said();
            let line = said.lines().find(|line| line.contains("host started"))?;
            let name = line.split_once("consumer=")?.1.trim_start_matches('"');
            self.consumer = Some(name.split(['"', ' ']).next().unwrap_or_default().to_owned());
        }
        self.consumer.clone()
    }

    /// The same, once it has got that far.
    pub fn wait_for_consumer(&mut self) -> String {
        let give_up = Instant::now() + NAME_MAX;
        loop {
            match self.consumer() {
                Some(name) => return name,
                None if self.exit().is_some() || Instant::now() > give_up => {
                    panic!("the host does not come up: {:?}\n{}", self.exit, self.said())
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The resident memory of its process in KiB; `None` where the system does not tell, or it has ended.
    pub fn memory_kib(&self) -> Option<u64> {
        self.status_kib("VmRSS:")
    }

    /// The most that it ever was, or since `forget_peak`.
    pub fn memory_peak_kib(&self) -> Option<u64> {
        self.status_kib("VmHWM:")
    }

    pub fn forget_peak(&self) {
        // Where the system has no such file the peak is that of its whole life, which is no less.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status_kib(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}
