//! What an input costs: processor time of the thread that takes it, and memory of the process beyond what it had before.

use std::fs;
use std::time::Duration;

/// Multiples are told of inputs from this size on: smaller ones pay for what is there anyway.
const LARGE_BYTES: usize = 64 << 10;

/// What an input of so many bytes may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub(super) memory_per_byte: u64,
    pub(super) memory_anyway_bytes: u64,
    pub(super) time_per_byte: Duration,
    pub(super) time_anyway: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) memory_bytes: u64,
    pub(super) time: Duration,
}

/// Of all inputs of a target. Each figure is another input's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Largest {
    pub(super) memory_bytes: u64,
    /// For each byte of an input that is large.
    pub(super) memory_per_byte: f64,
    pub(super) time: Duration,
    pub(super) time_per_byte: Duration,
}

pub(super) struct Meter {
    time: Duration,
    /// What the process had, if this one is alone in it.
    memory_kib: Option<u64>,
}

impl Meter {
    /// `alone`: nothing else in this process takes memory meanwhile.
    pub(super) fn start(alone: bool) -> Self {
        let memory_kib = alone.then(|| {
            fs::write("/proc/self/clear_refs", "5").expect("a process may forget its own peak");
            in_status("VmRSS:")
        });
        Self { time: thread_time(), memory_kib }
    }

    pub(super) fn cost(&self) -> Cost {
        let memory = self.memory_kib.map(|before| in_status("VmHWM:").saturating_sub(before) * 1024);
        Cost { memory_bytes: memory.unwrap_or_default(), time: thread_time().saturating_sub(self.time) }
    }
}

impl Bounds {
    /// What is beyond, in words.
    pub(super) fn broken(&self, bytes: usize, cost: Cost) -> Option<String> {
        let memory_max = self.memory_anyway_bytes + self.memory_per_byte * bytes as u64;
        if cost.memory_bytes > memory_max {
            let taken = cost.memory_bytes;
            return Some(format!("took {taken} bytes of memory, for {bytes} bytes at most {memory_max}"));
        }
        let time_max = self.time_anyway + self.time_per_byte * bytes as u32;
        (cost.time > time_max)
            .then(|| format!("took {:?} of processor time, for {bytes} bytes at most {time_max:?}", cost.time))
    }
}

impl Largest {
    pub(super) fn add(&mut self, bytes: usize, cost: Cost) {
        self.memory_bytes = self.memory_bytes.max(cost.memory_bytes);
        self.time = self.time.max(cost.time);
        if bytes >= LARGE_BYTES {
            self.memory_per_byte = self.memory_per_byte.max(cost.memory_bytes as f64 / bytes as f64);
            self.time_per_byte = self.time_per_byte.max(cost.time / bytes as u32);
        }
    }
}

fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts processor time");
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds"))
}

/// A row of `/proc/self/status`, in KiB.
fn in_status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("a process has a status");
    let row = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel counts memory");
    row.trim().trim_end_matches(" kB").parse().expect("KiB")
}
