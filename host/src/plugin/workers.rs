//! The workers: plain OS threads that own live instances and call guests synchronously, a job at a time. A process has
//! two lanes of them: one for guests that compute, and a wider one for guests that wait for others (`http`).
//!
//! Why not on tokio: a guest computes, for up to its deadline, and would hold up everything else on that thread; and a
//! synchronous call is the cheapest way into a guest.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Plugin;
use super::invoke::{Call, Live, Ran};
use crate::capability::http::Sent;
use crate::model::delivery::KeyState;
use crate::model::event::Event;
use crate::model::outcome::{Crash, Outcome};

/// The native stack of a worker: well above the guest's own bound, which must be what trips first.
const WORKER_STACK_BYTES: usize = 8 << 20;

/// Batches that may wait for a worker. Consumers keep no more in flight than a few each, so it is rarely reached.
const JOBS_MAX: usize = 1024;

/// A batch of events for one plugin, or a part of one.
pub struct Job {
    pub plugin: Arc<Plugin>,
    pub stream: Arc<str>,
    pub now: Arc<str>,
    pub calls: Vec<JobCall>,
    /// The state of every key in the batch. Later events of a key see what earlier ones wrote.
    pub states: HashMap<Arc<str>, KeyState>,
    pub deadline: Duration,
    /// No new call of the batch is begun when this is over: what is left comes back untouched, so that a slow event does
    /// not make its neighbours outlive their lease.
    pub budget: Duration,
    /// When the batch's first call was begun, for all jobs that it was split into.
    pub begun: Arc<OnceLock<Instant>>,
    pub instance_events_max: u32,
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
    pub sent: Vec<Sent>,
}

/// A job, and whom to tell what came of it.
type Asked = (Job, oneshot::Sender<Answer>);

#[derive(Clone)]
pub struct Workers {
    jobs: crossbeam_channel::Sender<Asked>,
}

impl Workers {
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Asked>(JOBS_MAX);
        for number in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("{name}-{number}")).stack_size(WORKER_STACK_BYTES).spawn(
                move || {
                    let mut lives = HashMap::new();
                    while let Ok((job, reply)) = queue.recv() {
                        // Nobody waits any more if the host is ending: what was not begun is left, what was done is
                        // simply not settled.
                        if !reply.is_closed() {
                            let _ = reply.send(run(&mut lives, job));
                        }
                    }
                },
            )?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job. None: the workers are gone, the process is ending.
    pub async fn run(&self, job: Job) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let (mut asked, jobs) = ((job, reply), &self.jobs);
        while let Err(error) = jobs.try_send(asked) {
            match error {
                crossbeam_channel::TrySendError::Full(back) => asked = back,
                crossbeam_channel::TrySendError::Disconnected(_) => return None,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answer.await.ok()
    }
}

/// One live instance for each handler: a handler's next batch finds it warm.
type Lives = HashMap<Arc<str>, Live>;

fn run(lives: &mut Lives, mut job: Job) -> Answer {
    let mut called = Vec::with_capacity(job.calls.len());
    for index in 0..job.calls.len() {
        let mut first = false;
        let begun = job.begun.get_or_init(|| {
            first = true;
            Instant::now()
        });
        if !first && begun.elapsed() >= job.budget {
            break;
        }
        match one_call(lives, &mut job, index) {
            Ok(one) => called.push(one),
            // What ran before stands; the rest comes back untouched.
            Err(_) if index > 0 => break,
            Err(error) => return Err(format!("{error:#}")),
        }
    }
    Ok(called)
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
    let Ran { outcome, state_touched, sent } = ran.unwrap_or_else(|_| panicked());
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
    Ok(Called { outcome, state_version: state_touched.then_some(version), took: begun.elapsed(), sent })
}

fn panicked() -> Ran {
    let reason = "the host panicked while it ran the plugin".to_owned();
    let outcome = Outcome::Crashed { crash: Crash::Trap, reason, log: Vec::new() };
    Ran { outcome, state_touched: false, sent: Vec::new() }
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
