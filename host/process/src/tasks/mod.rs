//! Tasks and threads: the one place where any is started, so that none can end unseen.
//!
//! Each has a row in a table that says what its death means: it is started again, the host exits and others reclaim its
//! deliveries, or its caller gets the error. `docs/guides/operating.md` shows the same table, a test compares them, and
//! another one lets a host suffer the panic of each (docs/decisions/0032).

mod table;
mod watch;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use super::fault;
pub use table::{End, Task};
use tidemill_core::policy::backoff::Backoff;
use watch::Watched;
pub use watch::{
    LOOK_EVERY, alive, end_host, fatal, idle, is_beyond_help, is_fatal, look, panics, report_panics, start_begins,
    start_is_over, tick, trouble, waits,
};

/// So often one is started again within [`RESTARTS_WITHIN`]. Beyond that its state, or what it is given, is at fault.
pub(crate) const RESTARTS_MAX: usize = 5;
pub(crate) const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// Before it is started again.
const RESTART: Backoff = Backoff { first: Duration::from_millis(100), last: RESTARTS_WITHIN };
/// One that is at work must tick at least this often, besides what its own work may take.
pub const STUCK_MAX: Duration = Duration::from_secs(120);

/// How often one was started again lately.
#[derive(Default)]
struct Restarts(Vec<Instant>);

impl Restarts {
    /// How long to wait before it is started again; none: it was too often.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        self.0.retain(|at| now.duration_since(*at) < RESTARTS_WITHIN);
        self.0.push(now);
        let deaths = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        (self.0.len() <= RESTARTS_MAX).then(|| RESTART.wait(deaths))
    }
}

/// What became of one that died: how long to wait before it goes on; none if the host ends.
fn died(watched: &Watched, restarts: &mut Restarts) -> Option<Duration> {
    let wait = match watched.task.end() {
        End::Restarted => restarts.next(Instant::now()),
        End::EndsHost | End::Told => None,
    };
    match wait {
        Some(wait) => {
            watched.is_down(true);
            tracing::error!(task = watched.task.name(), of = watched.of, ?wait, "it died, and is started again");
        }
        None => {
            end_host(&format!("{} has died{}", watched.name(), if restarts.0.is_empty() { "" } else { " too often" }))
        }
    }
    wait
}

/// Runs what `make` makes until it ends by itself; what dies is dealt with as its row says. `of`: whose it is, where there
/// are several; `silent_max`: the longest time between two of its ticks ([`tick`]), if it is watched.
pub(crate) async fn supervised<F: Future<Output = ()>>(
    task: Task,
    of: String,
    silent_max: Option<Duration>,
    mut make: impl FnMut() -> F,
) {
    let watched = Watched::new(task, of, silent_max);
    let mut restarts = Restarts::default();
    loop {
        watched.is_down(false);
        let mut work = pin!(async { make().await });
        let ended = std::future::poll_fn(|context| {
            let _current = watched.enter();
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(true),
                Err(_) => Poll::Ready(false),
            }
        });
        if ended.await {
            return;
        }
        match died(&watched, &mut restarts) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}

/// Lets a [`supervised`] one count as dead though it has not panicked itself: a thread of its, for example, has.
pub fn die() -> ! {
    std::panic::resume_unwind(Box::new("what it waits for has died"))
}

/// Starts a task that serves until it is told to end.
pub fn serve<F: Future<Output = ()> + Send + 'static>(
    task: Task,
    mut make: impl FnMut() -> F + Send + 'static,
) -> JoinHandle<()> {
    let begin = move || {
        tick();
        make()
    };
    tokio::spawn(supervised(task, String::new(), None, begin))
}

/// The same among others that end together.
pub fn serve_in<F: Future<Output = ()> + Send + 'static>(
    set: &mut JoinSet<()>,
    task: Task,
    of: String,
    silent_max: Option<Duration>,
    make: impl FnMut() -> F + Send + 'static,
) {
    set.spawn(supervised(task, of, silent_max, make));
}

/// Starts a task that does one thing. Awaiting it returns its panic.
pub fn once<T: Send + 'static>(task: Task, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(named(task, work))
}

/// The same among others that end together.
pub fn once_in<T: Send + 'static>(set: &mut JoinSet<T>, task: Task, work: impl Future<Output = T> + Send + 'static) {
    set.spawn(named(task, work));
}

async fn named<T>(task: Task, work: impl Future<Output = T>) -> T {
    let watched = Watched::new(task, String::new(), None);
    let mut work = pin!(async {
        fault::tick(task.name());
        work.await
    });
    std::future::poll_fn(|context| {
        let _current = watched.enter();
        work.as_mut().poll(context)
    })
    .await
}

/// Runs what blocks on a thread for such. Awaiting it returns its panic.
pub fn blocking<T: Send + 'static>(task: Task, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || named_here(task, work))
}

/// Starts a thread that does one thing. Joining it returns its panic.
pub fn thread<T: Send + 'static>(
    task: Task,
    name: String,
    stack_bytes: Option<usize>,
    silent_max: Option<Duration>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    let of = if silent_max.is_some() { name.clone() } else { String::new() };
    builder(name, stack_bytes).spawn(move || watched_here(&Watched::new(task, of, silent_max), work))
}

/// The same for a thread that borrows.
pub fn scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    task: Task,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    builder(task.name().to_owned(), None).spawn_scoped(scope, move || named_here(task, work))
}

fn named_here<T>(task: Task, work: impl FnOnce() -> T) -> T {
    watched_here(&Watched::new(task, String::new(), None), work)
}

fn watched_here<T>(watched: &Arc<Watched>, work: impl FnOnce() -> T) -> T {
    let _current = watched.enter();
    fault::tick(watched.task.name());
    work()
}

/// Starts a thread that works until `work` returns; when it panics, it goes on as its row says.
pub fn serve_thread(
    task: Task,
    name: String,
    stack_bytes: Option<usize>,
    silent_max: Option<Duration>,
    mut work: impl FnMut() + Send + 'static,
) -> io::Result<()> {
    let serve = move || {
        let watched = Watched::new(task, thread::current().name().unwrap_or_default().to_owned(), silent_max);
        let _current = watched.enter();
        let mut restarts = Restarts::default();
        loop {
            watched.is_down(false);
            let ended = catch_unwind(AssertUnwindSafe(|| {
                tick();
                work();
            }));
            match ended {
                Ok(()) => return,
                Err(_) => match died(&watched, &mut restarts) {
                    Some(wait) => thread::sleep(wait),
                    None => return,
                },
            }
        }
    };
    builder(name, stack_bytes).spawn(serve).map(drop)
}

fn builder(name: String, stack_bytes: Option<usize>) -> thread::Builder {
    let builder = thread::Builder::new().name(name);
    match stack_bytes {
        Some(bytes) => builder.stack_size(bytes),
        None => builder,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = Task::ALL.iter().map(|task| task.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Task::ALL.len());
    }

    #[test]
    fn restarts_are_bounded_within_a_time() {
        let (mut restarts, begun) = (Restarts::default(), Instant::now());
        let waits: Vec<_> = (0..=RESTARTS_MAX).map(|_| restarts.next(begun)).collect();
        assert_eq!((waits[0], waits[RESTARTS_MAX]), (Some(RESTART.first), None));
        assert!(waits[..RESTARTS_MAX].is_sorted() && waits[..RESTARTS_MAX].iter().all(Option::is_some));
        assert_eq!(restarts.next(begun + RESTARTS_WITHIN), Some(RESTART.first), "that was long ago");
    }

    #[tokio::test]
    async fn what_dies_is_started_again_until_it_ends_well() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        supervised(Task::Janitor, String::new(), None, move || {
            let counted = counted.clone();
            async move {
                tokio::task::yield_now().await;
                if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                    die();
                }
            }
        })
        .await;
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_a_panic() {
        assert!(once(Task::Request, async { die() }).await.is_err());
        assert!(blocking(Task::Load, || die()).await.is_err());
        assert!(thread(Task::Trial, "trial".to_owned(), None, None, || die()).unwrap().join().is_err());
    }
}
