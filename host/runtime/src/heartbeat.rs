//! The heartbeat task: signals that this host is alive, with a report of what it is doing. The reports of all hosts are
//! what `status` knows of breakers, rates and plugins; the backend only stores them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::consumer::Consumer;
use super::gaps::{self, HEARTBEAT_TTL};
use super::observe;
use super::pipeline::HostContext;
use tidemill_core::clock;
use tidemill_core::model::delivery::Subscription;
use tidemill_process::tasks;
use tidemill_storage::{Backend, Error};

/// A heartbeat may be late twice before other hosts consider this host dead.
const HEARTBEAT_EVERY: Duration = tasks::LOOK_EVERY;
/// Rates are taken over this many heartbeats: about 10 s.
const RATE_BEATS: usize = 7;
/// A report is sent with each heartbeat and read by every `status`.
const NOTE_BYTES_MAX: usize = 16 * 1024;
/// So much of a refusal of the backend goes into the report.
const REFUSAL_CHARS_MAX: usize = 400;

/// What a host reports of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostReport {
    pub version: String,
    pub pid: u32,
    /// Unix time in milliseconds, by the host's clock.
    pub(crate) started_ms: u64,
    pub(crate) beat_ms: u64,
    pub handlers: Vec<HandlerReport>,
    /// Handlers that are left out because the report would be too long.
    pub more: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandlerReport {
    pub handler: String,
    /// The first 12 hex digits of the plugin's SHA-256.
    pub plugin: String,
    /// `closed`, `half-open`, `open`.
    pub breaker: String,
    /// Deliveries committed per second, over about the last ten seconds.
    pub rate: f64,
    /// Deliveries in flight on this host.
    pub in_flight: usize,
    /// Of these: kept because the backend refuses to settle them.
    pub refused: usize,
    /// In which words it refused the oldest of them; truncated. Empty if there is none.
    pub refusal: String,
}

impl HostReport {
    /// As it is sent: no longer than `max` bytes, with as many handlers as have room.
    fn to_json(&self, max: usize) -> String {
        let mut note = self.clone();
        loop {
            // Plain data: nothing in it can fail to be written.
            let json = serde_json::to_string(&note).unwrap_or_default();
            if json.len() <= max || note.handlers.is_empty() {
                return json;
            }
            // Too long by this share; one at least goes each time.
            let keep = (note.handlers.len() * max / json.len()).min(note.handlers.len() - 1);
            note.more += note.handlers.len() - keep;
            note.handlers.truncate(keep);
        }
    }
}

/// The reports of live hosts that read one of these subscriptions. A host of another configuration on the same backend
/// is not counted; one whose report cannot be read (of another version) is left out.
pub async fn hosts(backend: &dyn Backend, subscriptions: &[Subscription]) -> Result<Vec<HostReport>, Error> {
    let notes = backend.hosts(subscriptions).await?;
    let notes = notes.iter().filter_map(|host| serde_json::from_str::<HostReport>(&host.report).ok());
    let ours = |note: &HandlerReport| subscriptions.iter().any(|subscription| *subscription.handler == *note.handler);
    Ok(notes.filter(|note| note.more > 0 || note.handlers.iter().any(ours)).collect())
}

/// Since when the backend accepts no heartbeat of this process, and its error.
static UNHEARD: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// The backend's error for this host's heartbeats, if it has accepted none for as long as one lasts: then others take
/// this host for dead.
pub fn trouble() -> Option<String> {
    let unheard = UNHEARD.lock().unwrap_or_else(PoisonError::into_inner);
    unheard.as_ref().filter(|(since, _)| since.elapsed() >= HEARTBEAT_TTL).map(|(_, error)| error.clone())
}

fn acknowledged() {
    if let Some((since, _)) = UNHEARD.lock().unwrap_or_else(PoisonError::into_inner).take() {
        observe::backend_is_back(since.elapsed());
    }
}

fn unheard(error: &Error) {
    observe::task_trouble("heartbeat", error);
    let mut unheard = UNHEARD.lock().unwrap_or_else(PoisonError::into_inner);
    let since = unheard.as_ref().map_or_else(Instant::now, |(since, _)| *since);
    *unheard = Some((since, error.to_string()));
}

#[derive(Clone)]
pub(crate) struct Heartbeat {
    context: Arc<HostContext>,
    consumers: Vec<Arc<Consumer>>,
    started_ms: u64,
    /// When, and how much each consumer had committed by then.
    past: VecDeque<(Instant, Vec<u64>)>,
}

impl Heartbeat {
    pub(crate) fn new(context: Arc<HostContext>, consumers: Vec<Arc<Consumer>>) -> Self {
        consumers.iter().for_each(|consumer| observe::subscription_opened(&consumer.subscription));
        Self { context, consumers, started_ms: clock::now_ms(), past: VecDeque::new() }
    }

    async fn beat(&mut self) -> Result<(), Error> {
        let note = self.note();
        self.context.backend.heartbeat(&self.context.consumer, HEARTBEAT_TTL, &note).await
    }

    /// Sends heartbeats, and checks each time that the tasks and threads make progress.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(HEARTBEAT_EVERY).await;
            tasks::tick();
            tasks::look();
            let at = Instant::now();
            match self.beat().await {
                Ok(()) => {
                    gaps::beaten(at);
                    acknowledged();
                }
                Err(error) => unheard(&error),
            }
        }
    }

    /// This host's report, as it is sent.
    pub(crate) fn note(&mut self) -> String {
        self.look().to_json(NOTE_BYTES_MAX)
    }

    fn look(&mut self) -> HostReport {
        let now = Instant::now();
        let committed: Vec<u64> =
            self.consumers.iter().map(|consumer| observe::committed(&consumer.subscription)).collect();
        self.past.push_back((now, committed.clone()));
        if self.past.len() > RATE_BEATS {
            self.past.pop_front();
        }
        let (since, before) = self.past.front().map_or((now, &committed), |(since, before)| (*since, before));
        let seconds = now.duration_since(since).as_secs_f64();
        let mut handlers: Vec<HandlerReport> = Vec::new();
        for (index, consumer) in self.consumers.iter().enumerate() {
            let breaker = consumer.breaker_name();
            observe::breaker_is(&consumer.handler.name, breaker);
            let (refused, refusal) = consumer.refused();
            observe::refused_kept(&consumer.subscription, refused);
            let refusal = refusal.map(|text| beginning(&text)).unwrap_or_default();
            let rate = if seconds > 0.0 { (committed[index] - before[index]) as f64 / seconds } else { 0.0 };
            match handlers.iter_mut().find(|note| *note.handler == *consumer.handler.name) {
                Some(note) => {
                    note.rate += rate;
                    note.in_flight += consumer.in_flight();
                    note.refused += refused;
                    if note.refusal.is_empty() {
                        note.refusal = refusal;
                    }
                }
                None => handlers.push(HandlerReport {
                    handler: consumer.handler.name.to_string(),
                    plugin: consumer.handler.serving.load().stable.digest.to_string(),
                    breaker: breaker.to_owned(),
                    rate,
                    in_flight: consumer.in_flight(),
                    refused,
                    refusal,
                }),
            }
        }
        HostReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            beat_ms: clock::now_ms(),
            handlers,
            more: 0,
        }
    }
}

fn beginning(refusal: &str) -> String {
    refusal.chars().take(REFUSAL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `REFUSAL_CHARS_MAX`.
    #[test]
    fn of_a_refusal_the_beginning_is_told() {
        let long = "é".repeat(REFUSAL_CHARS_MAX);
        assert_eq!([beginning(&long), beginning(&format!("{long}y"))], [long.clone(), long]);
    }

    /// Reaches `NOTE_BYTES_MAX`.
    #[test]
    fn a_note_has_a_bound_and_says_what_it_leaves_out() {
        let handler = |n: usize| HandlerReport { handler: format!("handler-{n}"), ..HandlerReport::default() };
        let short = HostReport { handlers: (0..3).map(handler).collect(), ..HostReport::default() };
        let read = |json: &str| serde_json::from_str::<HostReport>(json).unwrap();
        assert_eq!(read(&short.to_json(NOTE_BYTES_MAX)), short);
        let long = HostReport { handlers: (0..1000).map(handler).collect(), ..HostReport::default() };
        let json = long.to_json(NOTE_BYTES_MAX);
        let note = read(&json);
        assert!(json.len() <= NOTE_BYTES_MAX && note.handlers.len() > 100, "{} bytes", json.len());
        assert_eq!(note.handlers.len() + note.more, 1000);
        assert_eq!(read(&long.to_json(10)).more, 1000, "no room for any");
    }
}
