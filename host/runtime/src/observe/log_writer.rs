//! Where log lines go: a queue that is bounded in bytes, and one thread that writes it to stderr.
//!
//! Logging never waits for the reader of stderr and never fails with it. A line that there is no room for, because
//! stderr is not read, or that cannot be written, because the reader is gone or the disk is full, is lost, and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use tidemill_process::tasks;
use tidemill_process::tasks::Task;

/// Lines that wait to be written, in bytes; as many again may be on their way.
const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;
/// How long the end of a process waits for its last lines to be written.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);
/// Before a pipe that is full, and does not block, is tried again.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(10);

static QUEUE: Queue = Queue::new();
static QUEUE_FULL: AtomicU64 = AtomicU64::new(0);
static UNWRITABLE: AtomicU64 = AtomicU64::new(0);

/// Lines lost since the process began, by cause.
pub fn lost() -> [(&'static str, u64); 2] {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    [("queue-full", count(&QUEUE_FULL)), ("unwritable", count(&UNWRITABLE))]
}

struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

struct State {
    bytes: Vec<u8>,
    /// The thread holds lines that are not written yet.
    writing: bool,
    /// The thread sleeps.
    idle: bool,
}

impl Queue {
    const fn new() -> Self {
        let state = State { bytes: Vec::new(), writing: false, idle: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Plain bytes, as good as before if a holder panicked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: there is no room for it.
    fn push(&self, line: &[u8]) -> bool {
        let mut state = self.state();
        // What is longer than all of the queue has room when that is empty: one line is bounded elsewhere.
        if !state.bytes.is_empty() && state.bytes.len() + line.len() > LOG_QUEUE_BYTES_MAX {
            return false;
        }
        state.bytes.extend_from_slice(line);
        if state.idle {
            state.idle = false;
            self.filled.notify_one();
        }
        true
    }

    /// Waits for lines, and takes all there are into `lines`, whose room is used again.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        let mut state = self.state();
        state.writing = false;
        while state.bytes.is_empty() {
            self.emptied.notify_all();
            state.idle = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.bytes, lines);
        state.writing = true;
    }

    fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut state = self.state();
        while state.writing || !state.bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state =
                self.emptied.wait_timeout(state, left).map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
    }
}

/// One line for the queue. It never fails: the caller has no way to mend it.
#[derive(Clone, Copy)]
pub struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        start();
        if !QUEUE.push(line) {
            QUEUE_FULL.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread with the first line. A machine that has none to spare loses its lines, and counts them.
fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let (mut lines, mut said) = (Vec::new(), 0);
        let work = move || {
            let mut torn = false;
            loop {
                QUEUE.take(&mut lines);
                tasks::alive();
                // Only where lines go through: else the word of what was lost would be lost, and so on.
                if write(&mut io::stderr(), &lines, &mut torn) {
                    say_what_was_lost(&mut said);
                }
            }
        };
        let _ = tasks::serve_thread(Task::Log, "log".to_owned(), None, None, work);
    });
}

/// Writes these lines; those that cannot be written are counted. `torn`: the last one of them was written in part. False:
/// not all could be written.
fn write(to: &mut impl Write, mut lines: &[u8], torn: &mut bool) -> bool {
    // A line of its own again.
    let begin: &[u8] = if std::mem::take(torn) { b"\n" } else { b"" };
    let mut begin = begin;
    while !lines.is_empty() {
        let part = if begin.is_empty() { lines } else { begin };
        match to.write(part) {
            Ok(count @ 1..) if begin.is_empty() => {
                *torn = lines[count - 1] != b'\n';
                lines = &lines[count..];
            }
            Ok(1..) => begin = b"",
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PIPE_WAIT),
            Ok(0) | Err(_) => {
                let count = lines.iter().filter(|byte| **byte == b'\n').count();
                UNWRITABLE.fetch_add(count as u64, Ordering::Relaxed);
                return false;
            }
        }
    }
    true
}

/// Once lines go through again, one says how many did not.
fn say_what_was_lost(said: &mut u64) {
    let lost: u64 = lost().iter().map(|(_, count)| count).sum();
    if lost > *said {
        tracing::warn!(lines = lost - *said, "log lines were lost: stderr was not read, or could not be written");
        *said = lost;
    }
}

/// Waits until all lines are written, but not for long.
pub fn flush() {
    QUEUE.flush(LOG_FLUSH_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then fails.
    struct Takes(usize, Vec<u8>);

    impl Write for Takes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= count;
            self.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_line_begins_anew() {
        let (mut to, mut torn) = (Takes(6, Vec::new()), false);
        let before = UNWRITABLE.load(Ordering::Relaxed);
        assert!(!write(&mut to, b"one\ntwo\nthree\n", &mut torn));
        assert!(torn && UNWRITABLE.load(Ordering::Relaxed) == before + 2);
        to.0 = 100;
        assert!(write(&mut to, b"four\n", &mut torn));
        assert_eq!((String::from_utf8_lossy(&to.1), torn), ("one\ntw\nfour\n".into(), false));
    }

    #[test]
    fn the_queue_has_a_bound_and_one_line_always_has_room() {
        let (queue, line) = (Queue::new(), vec![b'x'; LOG_QUEUE_BYTES_MAX / 4]);
        let pushed = (0..6).filter(|_| queue.push(&line)).count();
        assert_eq!(pushed, 4);
        let mut lines = Vec::new();
        queue.take(&mut lines);
        assert_eq!(lines.len(), LOG_QUEUE_BYTES_MAX);
        assert!(queue.push(&vec![b'x'; LOG_QUEUE_BYTES_MAX + 1]) && !queue.push(b"x"));
        queue.flush(Duration::from_millis(1));
    }
}
