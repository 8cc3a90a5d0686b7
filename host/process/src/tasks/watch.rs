//! Which tasks are at work and tick, which have panicked, and whether the host has to end.
//!
//! Ticks are counted, not timed: a task that did not tick during so many heartbeats is stuck. A process that was
//! stopped, or a machine without a moment to spare, stops the heartbeat task as well, and so no task counts as stuck.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::table::{End, Task};
use crate::fault;

/// How often [`look`] is to be called. Hosts that share a process (in tests) do not look more often for that.
pub const LOOK_EVERY: Duration = Duration::from_millis(1500);
/// No [`look`] for so long: the heartbeat task itself is stuck.
const LOOKED_MAX: Duration = Duration::from_secs(60);
/// A task that waits for another one ticks this often.
const WAITS_EVERY: Duration = Duration::from_secs(5);

/// One that runs. It is forgotten when it ends.
pub(super) struct Watched {
    pub task: Task,
    pub of: String,
    silent_max: Option<Duration>,
    ticks: AtomicU64,
    /// False while it waits for work that may never come.
    at_work: AtomicBool,
    down: AtomicBool,
    /// What [`look`] saw last, and how many looks ago that changed.
    seen: AtomicU64,
    looks: AtomicU32,
}

static RUNNING: Mutex<Vec<Weak<Watched>>> = Mutex::new(Vec::new());
static LOOKED: Mutex<Option<Instant>> = Mutex::new(None);
static FATAL: LazyLock<watch::Sender<Option<Arc<str>>>> = LazyLock::new(|| watch::Sender::new(None));
static STARTED: AtomicBool = AtomicBool::new(false);
static PANICS: [AtomicU64; Task::ALL.len() + 1] = [const { AtomicU64::new(0) }; Task::ALL.len() + 1];

thread_local! {
    /// The task that this thread runs at the moment.
    static CURRENT: RefCell<Option<Arc<Watched>>> = const { RefCell::new(None) };
}

/// Puts the one before back when it goes, also when that is by a panic.
pub(super) struct Current(Option<Arc<Watched>>);

impl Drop for Current {
    fn drop(&mut self) {
        let before = self.0.take();
        let _ = CURRENT.try_with(|current| std::mem::replace(&mut *current.borrow_mut(), before));
    }
}

impl Watched {
    pub(super) fn new(task: Task, of: String, silent_max: Option<Duration>) -> Arc<Self> {
        let watched = Arc::new(Self {
            task,
            of,
            silent_max: silent_max.map(fault::shortened),
            ticks: AtomicU64::new(0),
            at_work: AtomicBool::new(true),
            down: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            looks: AtomicU32::new(0),
        });
        // A task that does one thing and ends is not watched.
        if task.end() != End::Told {
            let mut running = lock(&RUNNING);
            running.retain(|known| known.strong_count() > 0);
            running.push(Arc::downgrade(&watched));
        }
        watched
    }

    pub(super) fn enter(self: &Arc<Self>) -> Current {
        Current(CURRENT.with(|current| current.borrow_mut().replace(self.clone())))
    }

    /// Whether it waits to be started again.
    pub(crate) fn is_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(super) fn name(&self) -> String {
        match &*self.of {
            of if of.is_empty() || of == self.task.name() => self.task.name().to_owned(),
            of => format!("{} ({of})", self.task.name()),
        }
    }

    fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.at_work.store(true, Ordering::Relaxed);
    }

    /// For how long it has not ticked; none if that is no fault.
    fn silent(&self) -> Option<Duration> {
        let silent = LOOK_EVERY * self.looks.load(Ordering::Relaxed);
        (self.at_work.load(Ordering::Relaxed) && silent > self.silent_max?).then_some(silent)
    }
}

fn current(then: impl FnOnce(&Watched)) {
    // None while a thread ends, and where nothing is watched: in benches and tests.
    let _ = CURRENT.try_with(|current| {
        if let Some(watched) = &*current.borrow() {
            then(watched);
        }
    });
}

/// The current task begins the next round of its work. A test may let it panic here.
pub fn tick() {
    let mut name = None;
    current(|watched| {
        watched.tick();
        name = Some(watched.task.name());
    });
    name.into_iter().for_each(fault::tick);
}

/// The current task is not stuck: it waits for the backend, which is away, or for another task, which is watched.
pub fn alive() {
    current(Watched::tick);
}

/// The current task has nothing to do until it is woken.
pub fn idle() {
    current(|watched| watched.at_work.store(false, Ordering::Relaxed));
}

/// Waits for what another task holds. The holder is watched; the waiting task is not stuck.
pub async fn waits<T>(what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    // Mostly there is nothing to wait for.
    let first = std::future::poll_fn(|context| Poll::Ready(what.as_mut().poll(context)));
    if let Poll::Ready(value) = first.await {
        return value;
    }
    loop {
        match tokio::time::timeout(WAITS_EVERY, &mut what).await {
            Ok(value) => return value,
            Err(_) => alive(),
        }
    }
}

/// Finds tasks that have not ticked since the last time; called with each heartbeat. One that is stuck ends the host.
pub fn look() {
    let mut looked = lock(&LOOKED);
    if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY / 2) {
        return;
    }
    *looked = Some(Instant::now());
    drop(looked);
    let running: Vec<Arc<Watched>> = lock(&RUNNING).iter().filter_map(Weak::upgrade).collect();
    for watched in running {
        let turns = watched.ticks.load(Ordering::Relaxed);
        if watched.seen.swap(turns, Ordering::Relaxed) == turns && watched.at_work.load(Ordering::Relaxed) {
            watched.looks.fetch_add(1, Ordering::Relaxed);
        } else {
            watched.looks.store(0, Ordering::Relaxed);
        }
        if let Some(silent) = watched.silent() {
            end_host(&format!("{} is stuck: no progress for {silent:?}", watched.name()));
        }
    }
}

/// A host starts: the first one, or the next one with other settings.
pub fn start_begins() {
    STARTED.store(false, Ordering::Relaxed);
}

/// The host's start is over: from now on the heartbeat task watches all tasks.
pub fn start_is_over() {
    *lock(&LOOKED) = Some(Instant::now());
    STARTED.store(true, Ordering::Relaxed);
}

/// Why this process does not do its work; none if it does.
pub fn trouble() -> Option<String> {
    if let Some(reason) = is_fatal() {
        return Some(format!("the host ends: {reason}"));
    }
    let running: Vec<Arc<Watched>> = lock(&RUNNING).iter().filter_map(Weak::upgrade).collect();
    if let Some(down) = running.iter().find(|watched| watched.down.load(Ordering::Relaxed)) {
        return Some(format!("{} has died and is started again", down.name()));
    }
    if !STARTED.load(Ordering::Relaxed) {
        return Some("the host is starting".to_owned());
    }
    silence()
}

/// Whether this process is beyond help, so that its supervisor should restart it: why.
pub fn is_beyond_help() -> Option<String> {
    is_fatal().map(|reason| format!("the host ends: {reason}")).or_else(silence)
}

/// How long ago the last [`look`] was, if that is too long.
fn silence() -> Option<String> {
    let looked = lock(&LOOKED).map_or(Duration::ZERO, |at| at.elapsed());
    (STARTED.load(Ordering::Relaxed) && looked > fault::shortened(LOOKED_MAX))
        .then(|| format!("no heartbeat for {} s", looked.as_secs()))
}

/// The host has to exit, so that others reclaim its deliveries. The first reason stands.
pub fn end_host(reason: &str) {
    let is_first = FATAL.send_if_modified(|fatal| {
        let is_first = fatal.is_none();
        fatal.get_or_insert_with(|| reason.into());
        is_first
    });
    if is_first {
        tracing::error!(reason, "the host exits; other hosts reclaim its deliveries");
    }
}

pub fn is_fatal() -> Option<Arc<str>> {
    FATAL.borrow().clone()
}

/// Waits until the host has to end; answers why.
pub async fn fatal() -> Arc<str> {
    let mut fatal = FATAL.subscribe();
    loop {
        let reason = fatal.borrow_and_update().clone();
        if let Some(reason) = reason {
            return reason;
        }
        // The sender is a static: it never goes.
        let _ = fatal.changed().await;
    }
}

/// Panics become lines of the log, and are counted by the task that they happened in.
pub fn report_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let mut task = None;
        current(|watched| task = Some(watched.task));
        let row = task.map_or(Task::ALL.len(), |task| task as usize);
        PANICS[row].fetch_add(1, Ordering::Relaxed);
        if !tracing::enabled!(tracing::Level::ERROR) {
            return before(info);
        }
        let task = task.map_or(OTHER, Task::name);
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let said = info.payload_as_str().unwrap_or("something that is no text");
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(task, place, %trace, "panicked: {said}");
        } else {
            tracing::error!(task, place, "panicked: {said}");
        }
    }));
}

/// A task of a library.
const OTHER: &str = "other";

/// How often each task has panicked since this process began, and what is none of them at the end.
pub fn panics() -> impl Iterator<Item = (&'static str, u64)> {
    let names = Task::ALL.iter().map(|task| task.name()).chain([OTHER]);
    names.zip(&PANICS).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
}

/// A lock whose holder panicked guards a plain list or a time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(silent_max: Duration) -> Arc<Watched> {
        Watched::new(Task::Worker, "x".to_owned(), Some(silent_max))
    }

    #[test]
    fn one_that_does_not_turn_is_silent_and_one_without_work_is_not() {
        let worker = watched(LOOK_EVERY * 2);
        let silent_after = |looks| {
            worker.looks.store(looks, Ordering::Relaxed);
            worker.silent()
        };
        assert_eq!((silent_after(2), silent_after(3)), (None, Some(LOOK_EVERY * 3)));
        let _current = worker.enter();
        idle();
        assert_eq!(silent_after(3), None);
        tick();
        assert_eq!(silent_after(3), Some(LOOK_EVERY * 3));
    }

    #[tokio::test]
    async fn who_waits_for_another_is_alive() {
        let worker = watched(LOOK_EVERY);
        let _current = worker.enter();
        let before = worker.ticks.load(Ordering::Relaxed);
        assert_eq!(waits(async { 1 }).await, 1);
        assert_eq!(worker.ticks.load(Ordering::Relaxed), before, "there was nothing to wait for");
        waits(tokio::time::sleep(WAITS_EVERY * 2)).await;
        assert!(worker.ticks.load(Ordering::Relaxed) > before);
    }
}
