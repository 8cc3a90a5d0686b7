//! The example shop on a backend of its own, with what bombs need beside it: a stream of unions, and room for fewer dead
//! letters. Its streams are written by a plain client, its counters are read through the backend.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::Connection;
use tidemill_config::{Config, read};
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{Body, EntryId, Subscription};
use tidemill_runtime::loading;
use tidemill_storage::{Backend, NewEntry, SubscriptionStatus, wire};
use tokio::runtime::Runtime;

use super::bombs::{Bomb, UNIONS, union_schema};
use super::watched::Watched;
use crate::hostile_guests::HostileGuest;
use crate::ledger::host::Host;
use crate::server::RedisServer;
use crate::service::Service;

/// Entries that are sent together, and their bytes.
const PARCEL: usize = 1_000;
const PARCEL_BYTES: usize = 32 << 20;
/// Dead letters that are read in one step: some have a megabyte.
const PAGE: usize = 100;

pub(super) struct Shop {
    pub(super) runtime: Runtime,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) fetch_bytes_max: u64,
    redis: Option<(RedisServer, Connection)>,
    folder: tempfile::TempDir,
    url: String,
    /// Its configuration, without hostile guests.
    text: String,
}

/// What the counters of all subscriptions say together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// Dead letters, what was dropped of them, and what was skipped.
    pub(super) turned_away: u64,
    pub(super) waiting: u64,
}

/// What was found in dead letters that came since they were last read.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub(super) by_class: BTreeMap<&'static str, u64>,
    /// The largest: all of it, and what it has beside the event, in bytes.
    pub(super) bytes_max: usize,
    pub(super) extra_bytes_max: usize,
}

impl Shop {
    pub(super) fn open(sqlite: bool, dead_letters_max: u64) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("bytes-").tempdir().map_err(|error| error.to_string())?;
        let text = furnish(folder.path(), dead_letters_max).map_err(|error| error.to_string())?;
        let server = (!sqlite).then(|| RedisServer::start(&["--save", "", "--appendonly", "no"]));
        let url = match &server {
            Some(server) => server.url(),
            None => format!("sqlite:{}", folder.path().join("shop.db").display()),
        };
        let mut config: Config = read::read(&folder.path().join("tidemill.toml")).map_err(|error| error.to_string())?;
        config.backend.url = (&url).into();
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let backend = runtime.block_on(tidemill::backends::open_backend(&config)).map_err(|error| error.to_string())?;
        // The groups first: the counters count from their start.
        for (subscription, start) in loading::subscriptions(&config) {
            runtime.block_on(backend.ensure_group(&subscription, start)).map_err(|error| error.to_string())?;
        }
        let connect = |server: RedisServer| {
            let client = redis::Client::open(server.url())?;
            redis::RedisResult::Ok((server, client.get_connection()?))
        };
        let redis = server.map(connect).transpose().map_err(|error| error.to_string())?;
        let subscriptions = loading::subscriptions(&config).into_iter().map(|(subscription, _)| subscription).collect();
        let fetch_bytes_max = config.host.fetch_bytes_max.as_u64();
        Ok(Self { runtime, backend, subscriptions, fetch_bytes_max, redis, folder, url, text })
    }

    pub(super) fn host(&self, memory_bytes: u64) -> Watched {
        let (folder, url) = (self.folder.path().to_owned(), self.url.clone());
        let start = move |number| {
            let log = folder.join(format!("host-{number}.log"));
            Host::start(&folder.join("tidemill.toml"), &log, &["run", "--backend", &url], None)
        };
        Watched::start(memory_bytes, Box::new(start))
    }

    /// Appends the bombs to their streams, as they come; answers how many bytes they have.
    pub(super) fn send(&mut self, bombs: impl Iterator<Item = Bomb>) -> Result<u64, String> {
        let (mut parcel, mut bytes, mut sent) = (Vec::new(), 0, 0);
        for bomb in bombs {
            bytes += bomb.bytes();
            parcel.push(bomb);
            if parcel.len() >= PARCEL || bytes >= PARCEL_BYTES {
                self.send_parcel(std::mem::take(&mut parcel))?;
                sent += std::mem::take(&mut bytes);
            }
        }
        if !parcel.is_empty() {
            self.send_parcel(parcel)?;
        }
        Ok((sent + bytes) as u64)
    }

    fn send_parcel(&mut self, parcel: Vec<Bomb>) -> Result<(), String> {
        let Some((_, connection)) = &mut self.redis else { return self.publish(parcel) };
        let mut pipe = redis::pipe();
        for Bomb { stream, fields } in &parcel {
            let add = pipe.cmd("XADD").arg(stream).arg("*");
            for (name, value) in fields {
                add.arg(&name[..]).arg(&value[..]);
            }
            add.ignore();
        }
        pipe.query(connection).map_err(|error| format!("cannot send: {error}"))
    }

    /// SQLite has no fields: an entry is what they hold.
    fn publish(&self, parcel: Vec<Bomb>) -> Result<(), String> {
        let mut by_stream = BTreeMap::<_, Vec<NewEntry>>::new();
        for Bomb { stream, mut fields } in parcel {
            let body = match fields.len() {
                1 => fields.remove(0).1,
                _ => fields.into_iter().flat_map(|(name, value)| [name, value]).flatten().collect(),
            };
            by_stream.entry(stream).or_default().push(NewEntry { body: body.into(), dedup_key: None });
        }
        for (stream, entries) in by_stream {
            let sent = self.runtime.block_on(self.backend.publish(stream, &entries));
            sent.map_err(|error| format!("cannot send: {error}"))?;
        }
        Ok(())
    }

    pub(super) fn status(&self, subscription: &Subscription) -> Result<SubscriptionStatus, String> {
        self.runtime.block_on(self.backend.status(subscription)).map_err(|error| format!("{subscription}: {error}"))
    }

    pub(super) fn counters(&self) -> Result<Counters, String> {
        let mut counters = Counters::default();
        for subscription in &self.subscriptions {
            let status = self.status(subscription)?;
            counters.turned_away += status.dead + status.dropped + status.skipped;
            counters.waiting += status.waiting();
        }
        Ok(counters)
    }

    /// Writes a configuration with one of the hostile corpus in it: the running host takes it, or refuses it.
    /// Answers the bytes of its component.
    pub(super) fn admit_guest(&self, handler: &str, row: &HostileGuest, service: &Service) -> std::io::Result<u64> {
        let (file, component) = (format!("{handler}.wasm"), (row.plugin)());
        std::fs::write(self.folder.path().join(&file), &component)?;
        let (open, grants) = (row.open(), row.grants(service));
        let more = format!(
            "http_private = {open:?}\n[handlers.{handler}]\nplugin = \"{file}\"\nevents = [\"Test.Thing.Asked\"]\n\
             retry = {{ max = 0 }}\ndeadline = \"10s\"\nbreaker = {{ failure_rate = 2.0 }}\n[handlers.{handler}.grants]\n\
             emit = [\"Test.Thing.Done\"]\nstate = true\ntimer = true\n{grants}\n"
        );
        self.configure(&(self.text.clone() + &more))?;
        Ok(component.len() as u64)
    }

    pub(super) fn dismiss_guests(&self) -> std::io::Result<()> {
        self.configure(&self.text)
    }

    /// Beside the old one, so that nobody reads half of it.
    fn configure(&self, text: &str) -> std::io::Result<()> {
        let (new, file) = (self.folder.path().join("new.toml"), self.folder.path().join("tidemill.toml"));
        std::fs::write(&new, text)?;
        std::fs::rename(new, file)
    }

    /// Publishes events for a hostile guest, with this `data`.
    pub(super) fn ask(&self, data: &str, count: u64) -> Result<(), String> {
        let event = || {
            let id = uuid::Uuid::new_v4();
            let body = format!(
                r#"{{"event_id":"{id}","event_type":"Test.Thing.Asked","version":"1","timestamp":"2026-01-31T12:00:00Z","correlation_id":"{id}","data":{data}}}"#
            );
            NewEntry { body: body.into(), dedup_key: None }
        };
        let entries: Vec<NewEntry> = (0..count).map(|_| event()).collect();
        let sent = self.runtime.block_on(self.backend.publish("asked", &entries));
        sent.map(drop).map_err(|error| format!("cannot send: {error}"))
    }

    /// The subscriptions that bombs are sent to.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter().filter(|subscription| ["order-events", UNIONS].contains(&&*subscription.stream))
    }

    pub(super) fn size_bytes(&self) -> Result<u64, String> {
        self.runtime.block_on(self.backend.size_bytes()).map_err(|error| error.to_string())
    }

    /// What all hosts have written to their logs, in bytes.
    pub(super) fn log_bytes(&self) -> u64 {
        self.logs().iter().filter_map(|log| Some(std::fs::metadata(log).ok()?.len())).sum()
    }

    /// What hosts have logged beyond so many bytes.
    pub(super) fn said_since(&self, bytes: u64) -> String {
        let mut logs = self.logs();
        logs.sort_by_key(|log| log.metadata().and_then(|facts| facts.modified()).ok());
        let all: Vec<u8> = logs.iter().filter_map(|log| std::fs::read(log).ok()).flatten().collect();
        String::from_utf8_lossy(&all[all.len().min(bytes as usize)..]).into_owned()
    }

    /// The end of the log of the host that came last.
    pub(super) fn last_words(&self) -> String {
        let newest = self.logs().into_iter().max_by_key(|log| log.metadata().and_then(|facts| facts.modified()).ok());
        let said = newest.and_then(|log| std::fs::read(log).ok()).unwrap_or_default();
        String::from_utf8_lossy(&said[said.len().saturating_sub(4_000)..]).into_owned()
    }

    fn logs(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
    }

    /// Reads the letters of all subscriptions that came after those in `last`.
    pub(super) fn letters(&self, last: &mut BTreeMap<String, EntryId>) -> Result<Letters, String> {
        let mut found = Letters::default();
        for subscription in self.targets() {
            let name = subscription.to_string();
            loop {
                let page = self.letters_after(subscription, last.get(&name).copied())?;
                let Some(newest) = page.last() else { break };
                last.insert(name.clone(), newest.id);
                for letter in &page {
                    let (body, extra) = sizes(letter);
                    *found.by_class.entry(letter.reason.class.as_str()).or_default() += 1;
                    found.bytes_max = found.bytes_max.max(body + extra);
                    found.extra_bytes_max = found.extra_bytes_max.max(extra);
                }
            }
        }
        Ok(found)
    }

    pub(super) fn letters_after(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
    ) -> Result<Vec<DeadLetter>, String> {
        let letters = self.runtime.block_on(self.backend.dead_letters(subscription, after, PAGE));
        letters.map_err(|error| format!("{subscription}: {error}"))
    }
}

/// What a letter stores of the event, and beside it, in bytes.
fn sizes(letter: &DeadLetter) -> (usize, usize) {
    let body = match &letter.body {
        Body::Fields(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
        body => body.bytes(),
    };
    (body, letter.reason.text.len() + wire::write_history(&letter.history).len())
}

/// The shop's own configuration, plugins and schemas, and what is added to them.
fn furnish(folder: &Path, dead_letters_max: u64) -> std::io::Result<String> {
    let root = crate::root();
    std::os::unix::fs::symlink(root.join("plugins"), folder.join("plugins"))?;
    let schemas = folder.join("schemas");
    std::fs::create_dir(&schemas)?;
    for entry in std::fs::read_dir(root.join("schemas"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            std::fs::copy(&path, schemas.join(path.file_name().unwrap_or_default()))?;
        }
    }
    for name in ["Test.Thing.Asked.v1.json", "Test.Thing.Done.v1.json"] {
        std::fs::copy(root.join("tests/schemas").join(name), schemas.join(name))?;
    }
    std::fs::write(schemas.join("Bomb.Sent.v1.json"), union_schema().to_string())?;
    let shop = std::fs::read_to_string(root.join("tidemill.toml"))?;
    let text = shop.replacen("[routing]\n", "[routing]\n\"Bomb.Sent\" = [\"analytics-service\"]\n", 1);
    let text = format!(
        "{text}\n[streams.{UNIONS}]\nevents = [\"Bomb.*\"]\n[streams.asked]\nevents = [\"Test.Thing.Asked\"]\n\
         [streams.done]\nevents = [\"Test.Thing.Done\"]\n[host]\ndead_letters_max = {dead_letters_max}\n"
    );
    std::fs::write(folder.join("tidemill.toml"), &text)?;
    Ok(text)
}
