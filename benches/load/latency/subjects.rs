//! Who is measured: clients that do less than the host does, each in a thread of this process, and the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use redis::streams::StreamReadReply;
use tidemill_benches::Case;
use tidemill_core::model::delivery::{Body, Delivery, Disposition, Effects, Emitted, Subscription};
use tidemill_storage::{Backend, Settled, Settlement, SettlementEntry, Start};
use uuid::Uuid;

use super::open_loop::{ID, id};
use crate::bench::Bench;
use crate::host::Host;
use crate::setup::{OUT, STREAM, Setup};
use crate::usage;

/// The handler, and so the group, of whoever is measured.
pub(super) const GROUP: &str = "bench-1";
/// As the host reads by default (`host.batch`).
const BATCH: usize = 128;
/// How long a read waits; stopping takes no longer either.
const WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    BareLoop,
    BareSettled,
    Tidemill { instance_events_max: u32 },
}

pub(super) enum Subject {
    Client(Client),
    Host(Host),
}

/// A client in a thread of its own.
pub(super) struct Client {
    shared: Arc<Shared>,
    thread: JoinHandle<anyhow::Result<()>>,
}

#[derive(Default)]
struct Shared {
    /// It is to end.
    stop: AtomicBool,
    /// Reads that brought something.
    reads: AtomicU64,
    /// The thread's number; 0 until it has begun.
    thread: AtomicU32,
}

impl Subject {
    pub(super) fn start(kind: Kind, bench: &Bench, url: &str) -> anyhow::Result<Self> {
        let url = url.to_owned();
        Ok(match kind {
            Kind::BareLoop => Self::Client(Client::start(move |shared| bare_loop(&url, shared))?),
            Kind::BareSettled => Self::Client(Client::start(move |shared| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(bare_settled(&url, shared))
            })?),
            Kind::Tidemill { instance_events_max } => {
                let setup = Setup::new(0, Case::Emit, instance_events_max);
                Self::Host(Host::start(&setup, &url, bench.folder.path())?)
            }
        })
    }

    /// An error if it has ended by itself.
    pub(super) fn lives(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Client(client) => {
                ensure!(!client.thread.is_finished(), "the client has ended by itself");
                Ok(())
            }
            Self::Host(host) => host.lives(),
        }
    }

    pub(super) fn cpu_s(&self) -> anyhow::Result<f64> {
        match self {
            Self::Client(client) => client.cpu_s(),
            Self::Host(host) => host.cpu_s(),
        }
    }

    pub(super) fn peak_mib(&self) -> anyhow::Result<f64> {
        match self {
            // With all that the harness has in hand.
            Self::Client(_) => usage::peak_mib(std::process::id()),
            Self::Host(host) => host.peak_mib(),
        }
    }

    /// How many reads have brought something until now.
    pub(super) fn reads(&self) -> anyhow::Result<f64> {
        match self {
            Self::Client(client) => Ok(client.shared.reads.load(Ordering::Relaxed) as f64),
            Self::Host(host) => host.fetches(),
        }
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Client(client) => {
                client.shared.stop.store(true, Ordering::Relaxed);
                client.thread.join().map_err(|_| anyhow::anyhow!("a client broke down"))?
            }
            Self::Host(host) => host.stop(),
        }
    }
}

impl Client {
    fn start(work: impl FnOnce(&Shared) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        let thread = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
            let own = std::fs::read_link("/proc/thread-self").context("reading /proc/thread-self")?;
            let number = own.file_name().and_then(|name| name.to_str()?.parse().ok());
            inside.thread.store(number.context("an odd /proc/thread-self")?, Ordering::Relaxed);
            let ended = work(&inside);
            // Whoever waits for what it emits sees no more than that nothing comes.
            ended.inspect_err(|error| eprintln!("a client has ended: {error:#}"))
        })?;
        Ok(Self { shared, thread })
    }

    /// Processor time of its thread, in seconds.
    fn cpu_s(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/self/task/{}/schedstat", self.shared.thread.load(Ordering::Relaxed));
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let ns: f64 = text.split(' ').next().unwrap_or_default().parse().with_context(|| format!("an odd {path}"))?;
        Ok(ns / 1e9)
    }
}

impl Shared {
    fn is_wanted(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn has_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is least for an event in and an event out: read, then publish and ack in one round trip.
fn bare_loop(url: &str, shared: &Shared) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", GROUP, "bare"]).arg("COUNT").arg(BATCH).arg("BLOCK").arg(WAIT.as_millis() as u64);
    read.arg(&["STREAMS", STREAM, ">"]);
    while shared.is_wanted() {
        let Some(reply) = read.query::<Option<StreamReadReply>>(&mut connection)? else { continue };
        let mut pipe = redis::pipe();
        let mut ids = Vec::new();
        for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
            let event: Vec<u8> = entry.get("event").context("an entry without an event")?;
            pipe.cmd("XADD").arg(&[OUT, "*", "event"]).arg(emitted(&event)?).ignore();
            ids.push(entry.id);
        }
        pipe.cmd("XACK").arg(STREAM).arg(GROUP).arg(ids).ignore();
        pipe.exec(&mut connection)?;
        shared.has_read();
    }
    Ok(())
}

/// The host's own calls, one batch after the other.
async fn bare_settled(url: &str, shared: &Shared) -> anyhow::Result<()> {
    let backend = tidemill::backends::open_backend(&Case::Stateless.config(url, "")).await?;
    let subscription = Subscription { stream: STREAM.into(), handler: GROUP.into() };
    backend.ensure_group(&subscription, Start::Beginning).await?;
    while shared.is_wanted() {
        let batch = backend.fetch(&subscription, "bare", BATCH, WAIT).await?.deliveries;
        if !batch.is_empty() {
            settle(&*backend, &subscription, batch).await?;
            shared.has_read();
        }
    }
    Ok(())
}

async fn settle(backend: &dyn Backend, subscription: &Subscription, batch: Vec<Delivery>) -> anyhow::Result<()> {
    let settlement = Settlement {
        subscription: subscription.clone(),
        consumer: "bare".into(),
        plugin: "bare".into(),
        token: Uuid::new_v4(),
        entries: batch.into_iter().map(entry).collect::<anyhow::Result<_>>()?,
    };
    let settled = backend.settle(&settlement).await?;
    ensure!(settled.iter().all(|settled| *settled == Settled::Committed), "not all are committed: {settled:?}");
    Ok(())
}

fn entry(delivery: Delivery) -> anyhow::Result<SettlementEntry> {
    let Body::Event(event) = &delivery.body else { anyhow::bail!("an entry without an event") };
    let dedup_key = Some((id(event, ID).context("an event without an id")?, [0; 16]));
    let emits = vec![Emitted { stream: OUT.into(), body: Bytes::from(emitted(event)?) }];
    let disposition = Disposition::Commit(Effects { emits, ..Effects::default() });
    Ok(SettlementEntry { delivery, dedup_key, state: None, disposition })
}

/// An event as large as that of the host's plugin, with the same cause.
fn emitted(event: &[u8]) -> anyhow::Result<String> {
    let (id, cause) = (Uuid::new_v4(), id(event, ID).context("an event without an id")?);
    Ok(format!(
        r#"{{"event_id":"{id}","event_type":"Notification.Email.Queued","version":"1","timestamp":"2026-01-31T12:00:00.000Z","correlation_id":"{cause}","causation_id":"{cause}","source":"bench-1","key":"12345678","data":{{"template":"welcome","user_id":12345678,"reference":"user-12345678"}}}}"#
    ))
}
