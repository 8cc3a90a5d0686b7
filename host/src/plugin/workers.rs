//! The workers: plain OS threads that own live instances and call guests synchronously, a batch at a time.
//!
//! Why not on tokio: a guest computes, for up to its deadline, and would hold up everything else on that thread; and a
//! synchronous call is the cheapest way into a guest.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use tokio::sync::oneshot;

use super::Plugin;
use super::invoke::{Call, Live};
use crate::config::limits::INSTANCE_IDLE_MAX;
use crate::model::delivery::KeyState;
use crate::model::event::Event;
use crate::model::outcome::{Crash, Outcome};

/// The native stack of a worker: well above the guest's own bound, which must be what trips first.
const WORKER_STACK_BYTES: usize = 8 << 20;

/// Batches that may wait for a worker. Consumers keep no more in flight than a few each, so it is rarely reached.
const JOBS_MAX: usize = 1024;

/// How often a worker looks which of its instances nobody calls any more: of versions that are no longer served, above all.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A batch of events for one plugin.
pub struct Job {
    pub plugin: Arc<Plugin>,
    pub stream: Arc<str>,
    pub now: Arc<str>,
    pub calls: Vec<JobCall>,
    /// The state of every key in the batch. Later events of a key see what earlier ones wrote.
    pub states: HashMap<Arc<str>, KeyState>,
    pub deadline: Duration,
    /// No new call is begun after this: what is left comes back untouched, so that a slow event does not make its
    /// neighbours outlive their lease.
    pub budget: Duration,
    pub instance_events_max: u32,
    pub reply: oneshot::Sender<Answer>,
}

pub struct JobCall {
    pub event: Arc<Event>,
    pub attempt: u32,
}

/// What came of each call that was begun, in order; or why not even the first could be: the host had no instance to
/// give, which says nothing about the events.
pub type Answer = Result<Vec<Called>, String>;

pub struct Called {
    pub outcome: Outcome,
    /// The version of the key's state that the outcome stands on, if it does.
    pub state_version: Option<u64>,
    pub took: Duration,
}

#[derive(Clone)]
pub struct Workers {
    jobs: crossbeam_channel::Sender<Job>,
}

impl Workers {
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(JOBS_MAX);
        for number in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("worker-{number}")).stack_size(WORKER_STACK_BYTES).spawn(
                move || {
                    let (mut lives, mut swept) = (Lives::new(), Instant::now());
                    loop {
                        match queue.recv_timeout(SWEEP_EVERY) {
                            Ok(job) => run(&mut lives, job),
                            Err(RecvTimeoutError::Timeout) => {}
                            Err(RecvTimeoutError::Disconnected) => return,
                        }
                        if swept.elapsed() >= SWEEP_EVERY {
                            swept = Instant::now();
                            lives.retain(|_, live| live.idle() < INSTANCE_IDLE_MAX);
                        }
                    }
                },
            )?;
        }
        Ok(Self { jobs })
    }

    /// Runs a batch. None: the workers are gone, the process is ending.
    pub async fn run(&self, job: impl FnOnce(oneshot::Sender<Answer>) -> Job) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let (mut job, jobs) = (job(reply), &self.jobs);
        while let Err(error) = jobs.try_send(job) {
            match error {
                crossbeam_channel::TrySendError::Full(back) => job = back,
                crossbeam_channel::TrySendError::Disconnected(_) => return None,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answer.await.ok()
    }
}

/// One live instance for each handler: a handler's next batch finds it warm.
type Lives = HashMap<Arc<str>, Live>;

fn run(lives: &mut Lives, mut job: Job) {
    let begun = Instant::now();
    let mut called = Vec::with_capacity(job.calls.len());
    for index in 0..job.calls.len() {
        if index > 0 && begun.elapsed() >= job.budget {
            break;
        }
        match one_call(lives, &mut job, index) {
            Ok(one) => called.push(one),
            // What ran before stands; the rest comes back untouched.
            Err(_) if index > 0 => break,
            Err(error) => {
                let _ = job.reply.send(Err(format!("{error:#}")));
                return;
            }
        }
    }
    // Nobody waits any more if the host is ending; what was done then is simply not settled.
    let _ = job.reply.send(Ok(called));
}

fn one_call(lives: &mut Lives, job: &mut Job, index: usize) -> wasmtime::Result<Called> {
    let begun = Instant::now();
    let mut live = take_live(lives, job)?;
    let JobCall { event, attempt } = &job.calls[index];
    // Lent to the guest's context for the time of the call, and taken back: a key may hold many values.
    let state = job.states.remove(event.key());
    let has_state = state.is_some();
    let KeyState { version, values } = state.unwrap_or_default();
    let values = Arc::new(values);
    let call = Call {
        event,
        stream: &job.stream,
        now: &job.now,
        attempt: *attempt,
        values: values.clone(),
        deadline: job.deadline,
    };
    // A panic in here is a fault of the host. It must not end the worker, and the event must not come back for ever:
    // so it counts as a crash of this attempt.
    let ran = catch_unwind(AssertUnwindSafe(|| live.call(&call)));
    drop(call);
    let (outcome, state_touched) = match ran {
        Ok(ran) => (ran.outcome, ran.state_touched),
        Err(_) => (crashed("the host panicked while it ran the plugin".to_owned()), false),
    };
    if !matches!(outcome, Outcome::Crashed { .. }) && live.calls() < job.instance_events_max {
        lives.insert(job.plugin.handler.clone(), live);
    }
    if has_state {
        let mut state = KeyState { version, values: Arc::unwrap_or_clone(values) };
        if let Outcome::Done(effects) = &outcome {
            state.apply(effects);
        }
        job.states.insert(event.key().clone(), state);
    }
    Ok(Called { outcome, state_version: state_touched.then_some(version), took: begun.elapsed() })
}

fn crashed(reason: String) -> Outcome {
    Outcome::Crashed { crash: Crash::Trap, reason, log: Vec::new() }
}

/// The warm instance of this very plugin version, or a fresh one. It is out of the map while it runs, so that a panic
/// cannot leave a broken one behind.
fn take_live(lives: &mut Lives, job: &Job) -> wasmtime::Result<Live> {
    match lives.remove(&job.plugin.handler) {
        Some(live) if Arc::ptr_eq(live.plugin(), &job.plugin) => Ok(live),
        _ => Live::new(&job.plugin).or_else(|_| {
            // Perhaps the pool is empty: the instances that this worker keeps warm are the first to go.
            lives.clear();
            Live::new(&job.plugin)
        }),
    }
}
