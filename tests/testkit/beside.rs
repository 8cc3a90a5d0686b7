//! Two versions of a plugin beside each other in one host: a world with the guest `editions`, and a canary published into
//! it before the first event is fetched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_config::Config;
use tidemill_core::policy::canary::CanarySnapshot;
use tidemill_runtime::history::How;
use tidemill_runtime::host::Host;
use tidemill_runtime::pipeline::Handler;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_runtime::{build, canary};
use tidemill_sandbox::{ActiveVersions, Plugin};

use crate::world::World;

/// No trial should take this long; one that does is stuck.
const TRIAL_MAX: Duration = Duration::from_secs(120);
/// How often to look whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What came of it.
pub struct Trial {
    /// What serves the handler at the end, and what served it at the beginning.
    pub after: Arc<ActiveVersions>,
    pub before: Arc<ActiveVersions>,
    /// What is known of both versions from the canary's time.
    pub facts: CanarySnapshot,
    /// How the version came to serve that serves at the end, as `GET /api/plugins` tells it.
    pub how: String,
    /// When it was promoted or rolled back, since it began.
    pub ended: Option<Duration>,
}

impl Trial {
    pub fn rolled_back(&self) -> bool {
        self.after.canary.is_none() && Arc::ptr_eq(&self.after.stable, &self.before.stable)
    }

    pub fn promoted(&self) -> bool {
        let tried = self.before.canary.as_ref().map(|canary| &canary.plugin.digest);
        self.after.canary.is_none() && tried == Some(&self.after.stable.digest)
    }
}

/// A world whose handler `mischief` is the guest `editions` as it is built.
pub async fn world(url: &str, extra: &str) -> World {
    let mut world = World::new(url, extra).await;
    set_plugin(&mut world.config, &crate::guest("editions"));
    world
}

fn set_plugin(config: &mut Config, file: &std::path::Path) {
    for handler in config.handlers.values_mut() {
        handler.plugin = file.to_owned();
    }
}

/// `count` events with even `n` on `keys` keys: the same ones each time.
pub async fn ask(world: &World, count: usize, keys: usize) {
    ask_on(world, count, keys, "k").await;
}

/// The same, on keys with names of one's own: others meet the canary then.
pub async fn ask_on(world: &World, count: usize, keys: usize, name: &str) {
    for round in 0..count {
        world.ask(json!({ "do": "", "n": 2 * round, "key": format!("{name}{}", round % keys) })).await;
    }
}

/// Publishes this edition, then runs the host until nothing waits any more.
pub async fn run(world: &World, edition: &str) -> Trial {
    let (host, candidates) = host(world, &[edition]);
    let (handler, reloader) = (host.consumers[0].handler.clone(), host.reloader.clone());
    let began = Instant::now();
    canary::publish(&handler, &candidates[0], How::File);
    let before = handler.serving.load_full();
    let (trigger, shutdown) = ShutdownTrigger::new();
    let run = host.run(Arc::new(trigger), shutdown, true);
    let (ran, ended) = tokio::join!(tokio::time::timeout(TRIAL_MAX, run), ended(&handler, &before, began));
    ran.expect("the trial is stuck").expect("a run");
    let facts = before.canary.as_ref().map(|canary| canary.trial().facts(Instant::now())).unwrap_or_default();
    let how = reloader.to_json()[0]["how"].as_str().expect("a version serves").to_owned();
    Trial { after: handler.serving.load_full(), before, facts, how, ended }
}

/// A host of this world that is not yet running, and the plugins of these editions.
pub fn host(world: &World, editions: &[&str]) -> (Host, Vec<Arc<Plugin>>) {
    let checked = build::check(&world.config).expect("a good configuration");
    let plugins = build::plugins(&world.config, &checked).expect("good plugins");
    let load = |edition: &&str| {
        let file = crate::edition(edition);
        let mut config = world.config.clone();
        set_plugin(&mut config, &file);
        plugins.loader.load(&config, &checked, "mischief").expect("a good candidate")
    };
    let candidates = editions.iter().map(load).collect();
    (build::host(&world.config, &checked, plugins, world.backend.clone()).expect("a host"), candidates)
}

/// When something else serves than at the beginning; none if that does not happen as long as events come.
async fn ended(handler: &Handler, before: &Arc<ActiveVersions>, began: Instant) -> Option<Duration> {
    let mut last = (0, Instant::now());
    while Arc::ptr_eq(&handler.serving.load(), before) {
        let trial = before.canary.as_ref()?.trial().facts(began);
        let calls = trial.stable.calls + trial.canary.calls;
        if calls != last.0 {
            last = (calls, Instant::now());
        }
        if last.1.elapsed() > Duration::from_secs(2) {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Some(began.elapsed())
}
