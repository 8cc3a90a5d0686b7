//! The host: who runs when, and how it ends.
//!
//! ```text
//! build ---> Host --+-- consumer   a few lanes for each handler and stream: fetch, deliver, again
//!                   +-- resend     one for each handler and stream: what the backend refused is sent again
//!                   +-- scheduler  one for each handler and stream: what is due comes back
//!                   +-- janitor    trims streams, and says what leaks or has been set wrongly
//!                   +-- pause      sees what people have paused
//!                   +-- agreement  tells other hosts what this one wants, and looks after the groups
//!                   +-- heart      says that this host lives, and what it is doing
//!                   `-- idle       for `run --until-idle`: ends the host when nothing waits any more
//! ```
//! `settings` lets one host follow another when the configuration changes, `reloader` one plugin version another.
//!
//! Ending: first everybody stops fetching, then what is in hand is settled; what cannot be settled in time stays
//! pending for the next host. No attempt is counted for it.

pub mod agreement;
pub mod books;
pub mod build;
pub mod canary;
pub mod consumer;
pub mod heart;
pub mod janitor;
pub mod pause;
pub mod publisher;
pub mod reloader;
pub mod scheduler;
pub mod settings;
pub mod shadow;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backend::{Error, Group};
use crate::model::delivery::Source;
use crate::observe;
use crate::pipeline::{Handler, House};
use consumer::Consumer;
pub use heart::HEARTBEAT_TTL;
use heart::Heart;
use janitor::StreamBounds;

const IDLE_CHECK_EVERY: Duration = Duration::from_millis(100);
/// What ending may take beyond the last batch: its settlements.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// What taking leave may take.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// Everything that `run` needs, made by `build`.
pub struct Host {
    pub house: Arc<House>,
    pub consumers: Vec<Arc<Consumer>>,
    pub streams: Vec<StreamBounds>,
    /// The streams that handlers may emit to.
    pub targets: Vec<Arc<str>>,
    pub reloader: Arc<reloader::Reloader>,
}

/// Tells every task to stop fetching. Cheap to clone and to ask.
#[derive(Clone)]
pub struct Quiet(watch::Receiver<bool>);

impl Quiet {
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time to stop.
    pub async fn wait(&mut self) {
        // An error means that the sender is gone, and so the host.
        let _ = self.0.wait_for(|quiet| *quiet).await;
    }

    /// Sleeps, but not past the moment when it is time to stop. True: time to stop.
    pub async fn sleep(&mut self, time: Duration) -> bool {
        // An error means that the sender is gone, and so the host.
        tokio::time::timeout(time, self.0.wait_for(|quiet| *quiet)).await.is_ok()
    }
}

/// The switch that `Quiet` listens to.
pub struct Switch(watch::Sender<bool>);

impl Switch {
    pub fn new() -> (Self, Quiet) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Quiet(receiver))
    }

    pub fn quiet(&self) {
        self.0.send_replace(true);
    }
}

impl Host {
    /// Runs until `quiet` is set, or until nothing waits any more if `until_idle`.
    pub async fn run(self, switch: Arc<Switch>, quiet: Quiet, until_idle: bool) -> Result<(), Error> {
        let backend = self.house.backend.clone();
        let mut heart = Heart::new(self.house.clone(), self.consumers.clone());
        heart.beat().await?;
        // The heart beats until the very end: while this host drains, nobody may take its deliveries over.
        let mut beating = JoinSet::new();
        beating.spawn(heart.run());
        self.make_groups().await?;
        if let Err(error) = agreement::begin(&self.consumers).await {
            // Nobody is to wait for what this host wanted.
            backend.leave(&self.house.consumer, &self.sources()).await?;
            return Err(error);
        }
        for (source, status) in books::unreached(&*backend, &self.reloader.config).await? {
            observe::unreached(&source, status.waiting() - status.lag, status.dead);
        }
        pause::look(&*backend, &self.consumers).await?;
        observe::host_started(&self.house.consumer, &backend.describe().await?, self.consumers.len());
        let host = Arc::new(self);
        let mut tasks = JoinSet::new();
        for consumer in &host.consumers {
            for lane in 0..consumer::LANES {
                let lane = consumer.clone().lane(lane, quiet.clone());
                let what = || format!("a thread for {}", consumer.source);
                tasks.spawn(lane.map_err(|error| Error::Unavailable { what: what(), cause: error.to_string() })?);
            }
            tasks.spawn(consumer::resend::run(consumer.clone(), quiet.clone()));
            tasks.spawn(scheduler::run(consumer.clone(), quiet.clone()));
        }
        tasks.spawn(janitor::run(host.clone(), quiet.clone()));
        tasks.spawn(pause::run(backend.clone(), host.consumers.clone(), quiet.clone()));
        tasks.spawn(agreement::run(host.consumers.clone(), switch.clone(), quiet.clone()));
        if until_idle {
            tasks.spawn(host.clone().idle(switch, quiet.clone()));
        }
        host.drain(tasks, quiet).await;
        beating.shutdown().await;
        // One long beat: releasing may take its time, and nobody is to think meanwhile that this host has died.
        if let Err(error) = backend.beat(&host.house.consumer, LEAVE_MAX, "{}").await {
            observe::task_trouble("leave", &error);
        }
        match backend.leave(&host.house.consumer, &host.sources()).await {
            Ok(0) => {}
            Ok(count) => observe::released(count),
            Err(error @ Error::Replaced(_)) => return Err(error),
            Err(error) => observe::task_trouble("leave", &error),
        }
        observe::host_stopped(&host.house.consumer);
        Ok(())
    }

    fn sources(&self) -> Vec<Source> {
        self.consumers.iter().map(|consumer| consumer.source.clone()).collect()
    }

    async fn make_groups(&self) -> Result<(), Error> {
        for consumer in &self.consumers {
            match self.house.backend.ensure_group(&consumer.source, consumer.start).await? {
                Group::Restored => observe::group_remade(&consumer.source, Group::Restored),
                // `pause` says so, when it looks.
                Group::There | Group::New | Group::Lost => {}
            }
        }
        Ok(())
    }

    /// Waits for all tasks; once it is time to stop, not longer than a batch of the slowest handler and a margin.
    async fn drain(&self, mut tasks: JoinSet<()>, mut quiet: Quiet) {
        let all = async { while tasks.join_next().await.is_some() {} };
        let longest = self.consumers.iter().map(|consumer| consumer.handler.deadline).max().unwrap_or_default();
        let late = async {
            while !quiet.sleep(Duration::from_secs(3600)).await {}
            tokio::time::sleep(longest * 2 + DRAIN_MARGIN).await;
        };
        tokio::select! { () = all => {}, () = late => {} }
        tasks.abort_all();
    }

    /// Ends the host when nothing waits: nothing to fetch, nothing in anybody's hands, no retry to come, and no timer
    /// within [`FAR`](crate::backend::FAR).
    async fn idle(self: Arc<Self>, switch: Arc<Switch>, mut quiet: Quiet) {
        while !quiet.sleep(IDLE_CHECK_EVERY).await {
            if self.consumers.iter().any(|consumer| consumer.is_busy()) {
                continue;
            }
            match self.waiting().await {
                Ok(0) => {
                    self.say_what_is_left().await;
                    switch.quiet();
                }
                Ok(_) => {}
                Err(error) => observe::task_trouble("idle check", &error),
            }
        }
    }

    /// What waits for this host: not for a person to resume it, nor for a time that is far away.
    async fn waiting(&self) -> Result<u64, Error> {
        let mut waiting = 0;
        for consumer in self.consumers.iter().filter(|consumer| !consumer.is_paused()) {
            let status = self.house.backend.status(&consumer.source).await?;
            waiting += status.waiting().saturating_sub(status.far);
        }
        Ok(waiting)
    }

    async fn say_what_is_left(&self) {
        for consumer in &self.consumers {
            match self.house.backend.status(&consumer.source).await {
                Ok(status) if consumer.is_paused() => observe::left_paused(&consumer.source, status.waiting()),
                Ok(status) if status.far > 0 => observe::left_timers(&consumer.source, status.far),
                Ok(_) => {}
                Err(error) => observe::task_trouble("idle check", &error),
            }
        }
    }
}

/// Deliveries whose consumer may still be at work on them are left alone for this long: the time of a batch, of the
/// call that is running when that is over, and of the settlement.
pub fn lease(handler: &Handler) -> Duration {
    handler.deadline * 2 + Duration::from_secs(1)
}
