//! The host: which tasks run when, and how it shuts down.
//!
//! ```text
//! build ---> Host --+-- consumer   a few workers for each handler and stream: fetch, deliver, again
//!                   +-- resend     one for each handler and stream: what the backend refused is sent again
//!                   +-- scheduler  one for each handler and stream: moves what is due to redelivery
//!                   +-- janitor    trims streams, and reports leaks and wrong settings
//!                   +-- pause      polls what operators have paused
//!                   +-- agreement  declares what this host wants, and tends the groups
//!                   +-- heartbeat  signals that this host is alive, and what it is doing
//!                   `-- idle       for `run --until-idle`: ends the host once the backlog is drained
//! ```
//! `settings` lets one host follow another when the configuration changes, `reloader` one plugin version another.
//!
//! Shutdown: first all workers stop fetching, then in-flight deliveries are settled; what cannot be settled in time
//! stays pending for the next host. No attempt is counted for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::consumer::{self, Consumer};
use super::gaps::{self, HEARTBEAT_TTL};
use super::heartbeat::Heartbeat;
use super::janitor::{self, Janitor};
use super::patience::Patience;
use super::pipeline::HostContext;
use super::reload::plugins::Reloader;
use super::shutdown::{Shutdown, ShutdownTrigger};
use super::{observe, pause, scheduler, status};
use tidemill_core::model::delivery::Subscription;
use tidemill_process::tasks;
use tidemill_process::tasks::{STUCK_MAX, Task};
use tidemill_sandbox::capability::ids::Ids;
use tidemill_storage::{Error, Group};

const IDLE_CHECK_EVERY: Duration = Duration::from_millis(100);
/// How often it is said what keeps it from being idle.
const STILL_WAITING_EVERY: Duration = Duration::from_secs(10);
/// What ending may take beyond the last batch: its settlements.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// How long deregistering may take.
const LEAVE_MAX: Duration = Duration::from_secs(60);
/// And after a start that did not succeed.
const LEAVE_EARLY_MAX: Duration = Duration::from_secs(5);

/// Everything that `run` needs, made by `build`.
pub struct Host {
    pub context: Arc<HostContext>,
    pub consumers: Vec<Arc<Consumer>>,
    pub(crate) janitor: Arc<Janitor>,
    pub reloader: Arc<Reloader>,
    /// How long its start waits for a backend that is away; none: as long as it takes, as a host does that runs.
    pub(crate) start_wait: Option<Duration>,
}

/// The work of one task.
type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Host {
    /// Runs until `shutdown` is set, or until the backlog is drained if `until_idle`.
    ///
    /// # Errors
    /// The backend refuses a step of the start, or is away for longer than [`Self::start_wait`]; or a task or thread has
    /// died or is stuck, and other hosts are to reclaim its work.
    pub async fn run(self, trigger: Arc<ShutdownTrigger>, shutdown: Shutdown, until_idle: bool) -> Result<(), Error> {
        let backend = self.context.backend.clone();
        // Heartbeats continue to the very end: while this host drains, no other host may reclaim its deliveries.
        let mut beating = JoinSet::new();
        tasks::start_begins();
        let mut has_wished = false;
        let started = self.start(&mut beating, shutdown.clone(), &mut has_wished).await;
        let Ok(Some(about)) = started else {
            // No host is to wait for what this one wanted; it cannot deregister where the backend is away.
            beating.shutdown().await;
            let subscriptions = self.subscriptions();
            let leave = backend.deregister(&self.context.consumer, &subscriptions);
            if has_wished && !matches!(tokio::time::timeout(LEAVE_EARLY_MAX, leave).await, Ok(Ok(_))) {
                observe::left_without_leave(&self.context.consumer);
            }
            return started.map(|_| ());
        };
        tasks::start_is_over();
        observe::host_started(&self.context.consumer, &about, self.consumers.len());
        let host = Arc::new(self);
        let mut working = host.work(&trigger, &shutdown, until_idle);
        tokio::select! {
            () = host.drain(&mut working, shutdown.clone()) => {}
            _ = tasks::fatal() => {
                trigger.trigger();
                host.drain(&mut working, shutdown).await;
            }
        }
        working.abort_all();
        beating.shutdown().await;
        if let Some(reason) = tasks::is_fatal() {
            // It does not deregister: a delivery in flight may be what it dies of, and counts as a crash with the next.
            let hint =
                "others reclaim its work; the log says what has happened; it is a bug of Tidemill: please report it";
            return Err(Error::Permanent(match reason.contains("\n  hint: ") {
                true => reason.to_string(),
                false => format!("{reason}\n  hint: {hint}"),
            }));
        }
        // One long heartbeat: releasing may take its time, and no host is to take this one for dead meanwhile.
        if let Err(error) = backend.heartbeat(&host.context.consumer, LEAVE_MAX, "{}").await {
            observe::task_trouble("leave", &error);
        }
        match backend.deregister(&host.context.consumer, &host.subscriptions()).await {
            Ok(0) => {}
            Ok(count) => observe::released(count),
            Err(error @ Error::Replaced(_)) => return Err(error),
            Err(error) => observe::task_trouble("leave", &error),
        }
        observe::host_stopped(&host.context.consumer);
        match host.consumers.iter().find(|consumer| until_idle && consumer.lost_position.load(Ordering::Relaxed)) {
            Some(consumer) => Err(Error::Permanent(format!(
                "{}: its group was lost, and what waits there was not handled\n  hint: say where to begin: tidemill plugin resume \
                 {} --from ..",
                consumer.subscription, consumer.subscription.handler
            ))),
            None => Ok(()),
        }
    }

    /// All that has to be done before the first fetch, with heartbeats as soon as possible. Returns the backend's
    /// description of itself; none if it is time to stop.
    async fn start(
        &self,
        beating: &mut JoinSet<()>,
        shutdown: Shutdown,
        has_wished: &mut bool,
    ) -> Result<Option<String>, Error> {
        let backend = &self.context.backend;
        let mut patience = Patience::new(self.start_wait, shutdown);
        let (consumer, mut heart) =
            (&*self.context.consumer, Heartbeat::new(self.context.clone(), self.consumers.clone()));
        let note = heart.note();
        let at = Instant::now();
        if patience.out("heartbeat", || backend.heartbeat(consumer, HEARTBEAT_TTL, &note)).await?.is_none() {
            return Ok(None);
        }
        gaps::beaten(at);
        tasks::serve_in(beating, Task::Heartbeat, String::new(), None, move || heart.clone().run());
        let Some(key) = patience.out("key of ids", || backend.ids_key(rand::random())).await? else { return Ok(None) };
        self.context.ids.get_or_init(|| Ids::new(key));
        if !self.make_groups(&mut patience).await? {
            return Ok(None);
        }
        *has_wished = true;
        if patience.out("agreement", || consumer::tend::begin(&self.consumers)).await?.is_none() {
            return Ok(None);
        }
        let unreached = || status::unreached(&**backend, &self.reloader.config);
        for (subscription, status) in patience.out("counters", unreached).await?.unwrap_or_default() {
            observe::unreached(&subscription, &status);
        }
        if patience.out("paused handlers", || pause::look(&**backend, &self.consumers)).await?.is_none() {
            return Ok(None);
        }
        patience.out("version", || backend.describe()).await
    }

    /// Starts all tasks.
    fn work(self: &Arc<Self>, trigger: &Arc<ShutdownTrigger>, shutdown: &Shutdown, until_idle: bool) -> JoinSet<()> {
        let mut working = JoinSet::new();
        let mut serve = |task, of: String, make: Box<dyn FnMut() -> Work + Send>| {
            let silent_max = (task != Task::Worker && task != Task::Idle).then_some(STUCK_MAX);
            tasks::serve_in(&mut working, task, of, silent_max, make);
        };
        for consumer in &self.consumers {
            let of = consumer.subscription.to_string();
            for worker in 0..consumer::WORKERS_PER_SUBSCRIPTION {
                let (consumer, shutdown) = (consumer.clone(), shutdown.clone());
                let make = move || Box::pin(consumer.clone().worker(worker, shutdown.clone())) as Work;
                serve(Task::Worker, of.clone(), Box::new(make));
            }
            let (resent, shutdown) = ((consumer.clone(), shutdown.clone()), shutdown.clone());
            let make = move || Box::pin(consumer::resend::run(resent.0.clone(), resent.1.clone())) as Work;
            serve(Task::Resend, of.clone(), Box::new(make));
            let consumer = consumer.clone();
            let make = move || Box::pin(scheduler::run(consumer.clone(), shutdown.clone())) as Work;
            serve(Task::Scheduler, of, Box::new(make));
        }
        let (janitor, when) = (self.janitor.clone(), shutdown.clone());
        let make = move || Box::pin(janitor::run(janitor.clone(), when.clone())) as Work;
        serve(Task::Janitor, String::new(), Box::new(make));
        let (host, when) = (self.clone(), shutdown.clone());
        let look = move || pause::run(host.context.backend.clone(), host.consumers.clone(), when.clone());
        serve(Task::Pause, String::new(), Box::new(move || Box::pin(look()) as Work));
        let (consumers, ends, when) = (self.consumers.clone(), trigger.clone(), shutdown.clone());
        let make = move || Box::pin(consumer::tend::run(consumers.clone(), ends.clone(), when.clone())) as Work;
        serve(Task::Agreement, String::new(), Box::new(make));
        if until_idle {
            let (host, trigger, shutdown) = (self.clone(), trigger.clone(), shutdown.clone());
            let make = move || Box::pin(host.clone().idle(trigger.clone(), shutdown.clone())) as Work;
            serve(Task::Idle, String::new(), Box::new(make));
        }
        working
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.consumers.iter().map(|consumer| consumer.subscription.clone()).collect()
    }

    /// False: it is time to stop.
    pub(crate) async fn make_groups(&self, patience: &mut Patience) -> Result<bool, Error> {
        for consumer in &self.consumers {
            let make = || self.context.backend.ensure_group(&consumer.subscription, consumer.start);
            match patience.out("groups", make).await? {
                Some(Group::Restored) => observe::group_remade(&consumer.subscription, Group::Restored),
                // `pause` reports it.
                Some(Group::There | Group::New | Group::Lost) => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Waits for all tasks; once it is time to stop, not longer than a batch of the slowest handler and a margin.
    async fn drain(&self, working: &mut JoinSet<()>, mut shutdown: Shutdown) {
        let all = async { while working.join_next().await.is_some() {} };
        let longest = self.consumers.iter().map(|consumer| consumer.handler.deadline).max().unwrap_or_default();
        let late = async {
            while !shutdown.sleep(Duration::from_secs(3600)).await {}
            tokio::time::sleep(longest * 2 + DRAIN_MARGIN).await;
        };
        tokio::select! { () = all => {}, () = late => {} }
    }

    /// Ends the host when nothing waits: nothing to fetch, nothing in flight, no retry to come, and no timer within
    /// [`IDLE_TIMER_HORIZON`](tidemill_storage::IDLE_TIMER_HORIZON).
    async fn idle(self: Arc<Self>, trigger: Arc<ShutdownTrigger>, mut shutdown: Shutdown) {
        let mut said = Instant::now();
        while !shutdown.sleep(IDLE_CHECK_EVERY).await {
            tasks::tick();
            let say = said.elapsed() >= STILL_WAITING_EVERY;
            if say {
                said = Instant::now();
            }
            if self.consumers.iter().any(|consumer| consumer.is_busy()) {
                continue;
            }
            match self.waiting(say).await {
                Ok(0) => {
                    self.say_what_is_left().await;
                    trigger.trigger();
                }
                Ok(_) => {}
                Err(error) => observe::task_trouble("idle check", &error),
            }
        }
    }

    /// What waits for this host: neither for an operator to resume it, nor for a time that is far away. `say` logs it.
    async fn waiting(&self, say: bool) -> Result<u64, Error> {
        let mut waiting = 0;
        for consumer in self.consumers.iter().filter(|consumer| !consumer.is_paused()) {
            let status = self.context.backend.status(&consumer.subscription).await?;
            let here = status.waiting().saturating_sub(status.far);
            if say && here > 0 {
                observe::still_waiting(&consumer.subscription, &status);
            }
            waiting += here;
        }
        Ok(waiting)
    }

    async fn say_what_is_left(&self) {
        for consumer in &self.consumers {
            if consumer.lost_position.load(Ordering::Relaxed) {
                continue;
            }
            match self.context.backend.status(&consumer.subscription).await {
                Ok(status) if consumer.is_paused() => observe::left_paused(&consumer.subscription, status.waiting()),
                Ok(status) if status.far > 0 => observe::left_timers(&consumer.subscription, status.far),
                Ok(_) => {}
                Err(error) => observe::task_trouble("idle check", &error),
            }
        }
    }
}
