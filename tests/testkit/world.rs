//! A small world: one handler with the hostile guest `mischief`, on a backend of its own. A story puts events in, runs
//! the host until nothing waits any more, and looks at what came out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_config::{Config, read};
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::build;
use tidemill_runtime::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_sandbox::capability::ids::Ids;
use tidemill_storage::{Backend, Error, NewEntry, SubscriptionStatus};
use uuid::Uuid;

/// No story should take this long; one that does is stuck.
const STORY_MAX: Duration = Duration::from_secs(120);

pub struct World {
    pub config: Config,
    pub backend: Arc<dyn Backend>,
    pub asked: String,
    pub done: String,
    pub subscription: Subscription,
}

/// A configuration with one handler; `extra` goes into its table, `tables` behind it.
pub fn config(url: &str, plugin: &std::path::Path, suffix: &str, extra: &str, tables: &str) -> String {
    format!(
        r#"
        [backend]
        url = "{url}"
        [schemas]
        path = "tests/schemas"
        [streams."asked-{suffix}"]
        events = ["Test.Thing.Asked"]
        [streams."done-{suffix}"]
        events = ["Test.Thing.Done"]
        [host]
        payload_bytes_max = "256KiB"
        [handlers.mischief]
        plugin = "{}"
        events = ["Test.Thing.Asked"]
        key = "/data/key"
        {extra}
        [handlers.mischief.grants]
        emit = ["Test.Thing.Done"]
        state = true
        timer = true
        {tables}
        "#,
        plugin.display()
    )
}

/// Quick retries, so that stories are quick.
pub const QUICK: &str = r#"retry = { max = 3, base = "10ms", factor = 1, cap = "10ms" }"#;
pub const NO_RETRY: &str = "retry = { max = 0 }";

impl World {
    pub async fn new(url: &str, extra: &str) -> Self {
        Self::with(url, extra, "").await
    }

    pub async fn with(url: &str, extra: &str, tables: &str) -> Self {
        Self::of(&crate::guest("mischief"), url, extra, tables).await
    }

    /// A world with another plugin, under the same name.
    pub async fn of(plugin: &std::path::Path, url: &str, extra: &str, tables: &str) -> Self {
        let suffix = Uuid::new_v4().simple().to_string();
        let text = config(url, plugin, &suffix, extra, tables);
        let config = read::parse(&text, "world.toml".as_ref(), crate::root(), &[]).expect("a good configuration");
        let backend = tidemill::backends::open_backend(&config).await.expect("a backend");
        let (asked, done) = (format!("asked-{suffix}"), format!("done-{suffix}"));
        let subscription = Subscription { stream: asked.as_str().into(), handler: "mischief".into() };
        Self { config, backend, asked, done, subscription }
    }

    /// The same world by another road: through a proxy, or over connections of its own.
    pub async fn by(&self, url: &str) -> Self {
        let mut config = self.config.clone();
        config.backend.url = url.into();
        let backend = tidemill::backends::open_backend(&config).await.expect("a backend");
        let (asked, done, subscription) = (self.asked.clone(), self.done.clone(), self.subscription.clone());
        Self { config, backend, asked, done, subscription }
    }

    /// Puts an event on the stream, as any producer may; answers its id.
    pub async fn ask(&self, data: Value) -> Uuid {
        let id = Uuid::new_v4();
        self.put(event(id, data).to_string().into_bytes()).await;
        id
    }

    /// Puts these very bytes on the stream.
    pub async fn put(&self, bytes: impl Into<Bytes>) {
        let entry = NewEntry { body: bytes.into(), dedup_key: None };
        self.backend.publish(&self.asked, &[entry]).await.expect("published");
    }

    /// Runs a host until nothing waits any more.
    pub async fn run(&self) {
        tokio::time::timeout(STORY_MAX, self.host()).await.expect("the story is stuck");
    }

    /// A host that runs until nothing waits any more; two of them may run side by side.
    pub async fn host(&self) {
        let (trigger, shutdown) = ShutdownTrigger::new();
        self.host_until(Arc::new(trigger), shutdown, true).await.expect("a run");
    }

    /// A host that runs until its trigger is turned, or until nothing waits any more.
    pub async fn host_until(
        &self,
        trigger: Arc<ShutdownTrigger>,
        shutdown: Shutdown,
        until_idle: bool,
    ) -> Result<(), Error> {
        let checked = build::check(&self.config).expect("a good configuration");
        let plugins = build::plugins(&self.config, &checked).expect("good plugins");
        let host = build::host(&self.config, &checked, plugins, self.backend.clone()).expect("a host");
        host.run(trigger, shutdown, until_idle).await
    }

    pub async fn status(&self) -> SubscriptionStatus {
        let status = self.backend.status(&self.subscription).await.expect("status");
        assert!(status.balances(), "the counters do not balance: {status:?}");
        status
    }

    pub async fn dead(&self) -> Vec<DeadLetter> {
        self.backend.dead_letters(&self.subscription, None, 1000).await.expect("dead letters")
    }

    /// The one dead letter there should be, as `class: text`.
    pub async fn only_dead(&self) -> (DeadLetter, String) {
        let mut letters = self.dead().await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        let letter = letters.remove(0);
        let said = format!("{}: {}", letter.reason.class, letter.reason.text);
        (letter, said)
    }

    /// The events that the plugin emitted, in order.
    pub async fn emitted(&self) -> Vec<Value> {
        let entries = self.backend.entries(&self.done, None, 10_000).await.expect("entries");
        entries.iter().map(|(_, bytes)| serde_json::from_slice(bytes).expect("an emitted event is JSON")).collect()
    }

    /// What makes the ids of emitted events, by the secret that lies in the backend.
    pub async fn ids(&self) -> Ids {
        Ids::new(self.backend.ids_key([0; 32]).await.expect("a secret"))
    }

    /// How many events the plugin emitted, however many.
    pub async fn emitted_count(&self) -> u64 {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.backend.entries(&self.done, after, 1000).await.expect("entries");
            let Some((last, _)) = page.last() else { return count };
            (count, after) = (count + page.len() as u64, Some(*last));
        }
    }

    /// The value `n` of the state of a key.
    pub async fn count(&self, key: &str) -> Option<Value> {
        let states = self.backend.states(&self.subscription, None, 1000).await.expect("states");
        let state = states.into_iter().find(|(name, _)| name == key)?.1;
        state.values.get("n").map(|bytes| serde_json::from_slice(bytes).expect("JSON"))
    }
}

pub fn event(id: Uuid, data: Value) -> Value {
    json!({
        "event_id": id, "event_type": "Test.Thing.Asked", "version": "1", "timestamp": "2026-01-31T12:00:00Z",
        "correlation_id": "0191d3a0-0000-7000-8000-00000000c0de", "data": data,
    })
}

/// Loads a plugin that is not `mischief` into a host; the error for people if that is refused.
pub fn refusal_of(plugin: PathBuf, grants: &str) -> String {
    let text = config("sqlite::memory:", &plugin, "x", "", "")
        .replace("emit = [\"Test.Thing.Done\"]\n        state = true\n        timer = true", grants);
    let config = read::parse(&text, "world.toml".as_ref(), crate::root(), &[]).expect("a good configuration");
    let checked = build::check(&config).expect("a good configuration");
    match build::plugins(&config, &checked) {
        Ok(_) => panic!("the plugin was not refused"),
        Err(error) => error.to_string(),
    }
}
