//! The clock of a drain: it waits for the word, begins with the first event, and ends when all are acknowledged.

use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

#[derive(Default)]
pub struct Span {
    begun: OnceLock<(Instant, f64)>,
}

/// Says that the peer is connected, and waits until the harness has looked at Redis' clock.
pub async fn ready() -> anyhow::Result<()> {
    println!("ready");
    let word = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    ensure!(word.await??.trim() == "go", "the word on stdin is go");
    Ok(())
}

impl Span {
    /// An event is in hand. Only the first one counts.
    pub fn begin(&self) {
        self.begun.get_or_init(|| (Instant::now(), cpu_seconds()));
    }

    /// All events are acknowledged.
    pub fn end(&self, events: u64, settings: &str) -> anyhow::Result<()> {
        let (begun, cpu) = self.begun.get().context("no event came")?;
        let report = json!({
            "events": events,
            "seconds": begun.elapsed().as_secs_f64(),
            "cpu_s": cpu_seconds() - cpu,
            "peak_mib": peak_mib()?,
            "settings": settings,
        });
        println!("{report}");
        Ok(())
    }
}

/// Of all threads, user and system.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn peak_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
