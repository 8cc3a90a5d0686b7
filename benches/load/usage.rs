//! What a process has used up to now, as Linux tells it: processor time and memory.

use anyhow::Context;

/// The unit of /proc/PID/stat on Linux, everywhere that matters (sysconf(_SC_CLK_TCK)).
const TICKS_PER_S: f64 = 100.0;

/// User and system time of all its threads, in seconds.
pub(crate) fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let stat = read(pid, "stat")?;
    // Behind the name in parentheses: utime and stime are the 12th and 13th from there.
    let (_, rest) = stat.rsplit_once(')').context("an odd /proc/PID/stat")?;
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_S)
}

/// The memory that it has resident now, in MiB.
pub(crate) fn mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmRSS:")
}

/// The most that it ever had, or since `forget_peak`.
pub(crate) fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmHWM:")
}

/// Of this process. Where the system does not let us, the peak is that of its whole life, which is no less.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("reading {path}; the load harness wants Linux"))
}
