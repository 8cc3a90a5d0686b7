//! A host with little memory, and a supervisor: what exceeds the limit is killed, what has ended is started again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ledger::host::Host;

/// How often the memory is looked at. (A limit on the address space would not do: wasmtime reserves much of it.)
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a host has for its end.
const END_MAX: Duration = Duration::from_secs(30);

/// Starts the host with this number.
type Start = Box<dyn Fn(usize) -> Host + Send>;

struct Seen {
    host: Host,
    deaths: u64,
    peak_kib: u64,
}

pub(super) struct Watched {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    /// Waits until the first one has come up.
    pub(super) fn start(memory_bytes: u64, start: Start) -> Self {
        let mut host = start(0);
        host.wait_for_consumer();
        let seen = Arc::new(Mutex::new(Seen { host, deaths: 0, peak_kib: 0 }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, told) = (seen.clone(), stop.clone());
        let work = move || {
            while !told.load(Ordering::Relaxed) {
                look(&mut locked(&shared), memory_bytes, &start);
                std::thread::sleep(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("supervisor".to_owned()).spawn(work).expect("a thread");
        Self { seen, stop, thread: Some(thread) }
    }

    /// What it takes now, in KiB.
    pub(super) fn memory_kib(&self) -> u64 {
        locked(&self.seen).host.memory_kib().unwrap_or_default()
    }

    pub(super) fn forget_peak(&self) {
        let mut seen = locked(&self.seen);
        seen.host.forget_peak();
        seen.peak_kib = 0;
    }

    /// The most that it took since then, in KiB.
    pub(super) fn peak_kib(&self) -> u64 {
        let seen = locked(&self.seen);
        seen.peak_kib.max(seen.host.memory_peak_kib().unwrap_or_default())
    }

    /// Hosts that have ended without being asked to.
    pub(super) fn deaths(&self) -> u64 {
        locked(&self.seen).deaths
    }

    /// Asks it to end; an error says what it did instead.
    pub(super) fn end(mut self) -> Result<(), String> {
        self.stop();
        let mut seen = locked(&self.seen);
        if seen.host.exit().is_none() {
            seen.host.signal("TERM");
        }
        match seen.host.ends_within(END_MAX) {
            Some(exit) if exit.success() => Ok(()),
            exit => Err(format!("the host did not end well within {END_MAX:?}: {exit:?}")),
        }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the supervisor ends well");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop();
    }
}

fn look(seen: &mut Seen, memory_bytes: u64, start: &Start) {
    seen.peak_kib = seen.peak_kib.max(seen.host.memory_peak_kib().unwrap_or_default());
    if seen.host.memory_kib().unwrap_or_default() * 1024 > memory_bytes {
        seen.host.kill();
    }
    if seen.host.exit().is_some() {
        seen.deaths += 1;
        seen.host = start(seen.deaths as usize);
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
