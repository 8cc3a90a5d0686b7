//! Recovering: what this consumer was given but never saw, and what consumers left behind whose hosts have died.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys::{self, Keys};
use super::record::{self, WriteId};
use super::script::{CLAIM, LEAVE};
use super::{Redis, millis, value};
use crate::backend::Result;
use crate::model::delivery::{Delivery, EntryId, Lane, Source};

/// Pending ids asked for at a time, entries read again at a time, and entries claimed in one script.
const PAGE: usize = 500;
/// Dead consumers with nothing left that are removed in one go.
const BURIALS_MAX: usize = 50;

const LANES: [Lane; 2] = [Lane::Input, Lane::Again];

impl Redis {
    pub(super) async fn recover_some(
        &self,
        source: &Source,
        consumer: &str,
        held: &HashSet<(Lane, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Vec<Delivery>> {
        let keys = Keys::of(source);
        let mut found = Vec::new();
        for lane in LANES {
            let lost = self.lost(source, &keys, lane, consumer, held, max - found.len()).await?;
            self.read_again(source, &keys, lane, consumer, lost, &mut found).await?;
        }
        self.add_crashes(source, &keys, &mut found).await?;
        self.claim_from_dead(source, &keys, consumer, lease, max, &mut found).await?;
        Ok(found)
    }

    /// The entries of one lane that are pending under this consumer and not in its hands. Only ids travel: usually
    /// there are many that are held and none that is lost.
    async fn lost(
        &self,
        source: &Source,
        keys: &Keys,
        lane: Lane,
        consumer: &str,
        held: &HashSet<(Lane, EntryId)>,
        max: usize,
    ) -> Result<BTreeSet<EntryId>> {
        let (mut lost, mut from) = (BTreeSet::new(), "-".to_owned());
        while lost.len() < max {
            let mut cmd = redis::cmd("XPENDING");
            cmd.arg(key_of(keys, lane)).arg(&*source.handler).arg(&from).arg("+").arg(PAGE).arg(consumer);
            let rows = value::array(self.run(&cmd, source).await?)?;
            let mut last = None;
            for row in &rows {
                let Value::Array(row) = row else { continue };
                let id = value::entry_id(row.first().unwrap_or(&Value::Nil))?;
                if !held.contains(&(lane, id)) && lost.len() < max {
                    lost.insert(id);
                }
                last = Some(id);
            }
            match last {
                Some(last) if rows.len() == PAGE => from = format!("({last}"),
                _ => break,
            }
        }
        Ok(lost)
    }

    /// Reads pending entries a second time. This reads the consumer's own list, so one that was claimed by somebody else
    /// in the meantime does not come.
    async fn read_again(
        &self,
        source: &Source,
        keys: &Keys,
        lane: Lane,
        consumer: &str,
        mut wanted: BTreeSet<EntryId>,
        found: &mut Vec<Delivery>,
    ) -> Result<()> {
        while let Some(first) = wanted.first().copied() {
            let mut cmd = redis::cmd("XREADGROUP");
            cmd.arg("GROUP").arg(&*source.handler).arg(consumer).arg("COUNT").arg(wanted.len().min(PAGE));
            cmd.arg("STREAMS").arg(key_of(keys, lane)).write_id(before(first));
            let entries = value::read_entries(self.run(&cmd, source).await?)?;
            let Some(last) = entries.last().map(|(id, _)| *id) else { break };
            for (id, fields) in entries {
                if wanted.contains(&id) {
                    found.push(record::delivery(lane, id, fields)?);
                }
            }
            wanted = wanted.split_off(&after(last));
        }
        Ok(())
    }

    /// Adds the deaths of hosts with these entries in their hands to what the entries brought along.
    async fn add_crashes(&self, source: &Source, keys: &Keys, deliveries: &mut [Delivery]) -> Result<()> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(keys.tries());
        for delivery in deliveries.iter() {
            cmd.arg(format!("{}{}", name_of(delivery.lane), delivery.entry));
        }
        let counts = value::array(self.run(&cmd, source).await?)?;
        for (delivery, count) in deliveries.iter_mut().zip(counts) {
            if count != Value::Nil {
                delivery.crashes = delivery.crashes.saturating_add(to_u32(value::count(&count)?));
            }
        }
        Ok(())
    }

    async fn claim_from_dead(
        &self,
        source: &Source,
        keys: &Keys,
        consumer: &str,
        lease: Duration,
        max: usize,
        found: &mut Vec<Delivery>,
    ) -> Result<()> {
        let mut burials = 0;
        for dead in self.dead_consumers(source, keys, consumer).await? {
            for (lane, pending) in dead.pending {
                while pending > 0 && found.len() < max {
                    let count = (max - found.len()).min(PAGE);
                    let claimed = self.claim(source, keys, lane, consumer, &dead.name, lease, count).await?;
                    let more = claimed.len() == count;
                    found.extend(claimed);
                    if !more {
                        break;
                    }
                }
            }
            // Its lanes with something pending are left to `claim`, which knows when the last of it is gone.
            if dead.idle >= lease && dead.pending.iter().any(|(_, pending)| *pending == 0) && burials < BURIALS_MAX {
                burials += 1;
                let mut call = LEAVE.call(&[keys.stream(), keys.again()]);
                call.arg(&*source.handler).arg(&dead.name);
                self.run_script(&LEAVE, &call, source).await?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // each is an argument of the script, too
    async fn claim(
        &self,
        source: &Source,
        keys: &Keys,
        lane: Lane,
        consumer: &str,
        dead: &str,
        lease: Duration,
        count: usize,
    ) -> Result<Vec<Delivery>> {
        let mut call = CLAIM.call(&[key_of(keys, lane), keys.tries(), keys.dead(), keys.stats()]);
        call.arg(&*source.handler).arg(consumer).arg(dead).arg(millis(lease)).arg(count);
        call.arg(name_of(lane)).arg(self.options.dead_letters_max);
        let [entries, crashes] = value::tuple(self.run_script(&CLAIM, &call, source).await?)?;
        let mut claimed = Vec::new();
        for ((id, fields), crashes) in value::entries(entries)?.into_iter().zip(value::array(crashes)?) {
            let mut delivery = record::delivery(lane, id, fields)?;
            delivery.crashes = delivery.crashes.saturating_add(to_u32(value::count(&crashes)?));
            claimed.push(delivery);
        }
        Ok(claimed)
    }

    /// The consumers of the group that have no heartbeat.
    async fn dead_consumers(&self, source: &Source, keys: &Keys, consumer: &str) -> Result<Vec<DeadConsumer>> {
        let mut ask = Pipeline::with_capacity(2);
        for lane in LANES {
            ask.cmd("XINFO").arg("CONSUMERS").arg(key_of(keys, lane)).arg(&*source.handler);
        }
        let mut others: HashMap<String, DeadConsumer> = HashMap::new();
        for (lane, answer) in LANES.into_iter().zip(self.run_all(&ask, source).await?) {
            for row in value::array(answer)? {
                let (name, pending, idle) = consumer_row(row)?;
                if name == consumer {
                    continue;
                }
                let other = others.entry(name.clone()).or_insert_with(|| DeadConsumer::new(name));
                other.pending[lane as usize].1 = pending;
                other.idle = other.idle.min(idle);
            }
        }
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let others: Vec<DeadConsumer> = others.into_values().collect();
        let mut beats = redis::cmd("MGET");
        for other in &others {
            beats.arg(keys::heartbeat(&other.name));
        }
        let beats = value::array(self.run(&beats, source).await?)?;
        Ok(others.into_iter().zip(beats).filter(|(_, beat)| *beat == Value::Nil).map(|(dead, _)| dead).collect())
    }
}

struct DeadConsumer {
    name: String,
    /// On each of the [`LANES`].
    pending: [(Lane, u64); 2],
    idle: Duration,
}

impl DeadConsumer {
    fn new(name: String) -> Self {
        Self { name, pending: LANES.map(|lane| (lane, 0)), idle: Duration::MAX }
    }
}

fn consumer_row(row: Value) -> Result<(String, u64, Duration)> {
    let (mut name, mut pending, mut idle) = (String::new(), 0, Duration::ZERO);
    let mut fields = value::array(row)?.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        match &value::bytes(field)?[..] {
            b"name" => name = value::text(value)?,
            b"pending" => pending = value::count(&value)?,
            b"idle" => idle = Duration::from_millis(value::count(&value)?),
            _ => {}
        }
    }
    Ok((name, pending, idle))
}

fn key_of(keys: &Keys, lane: Lane) -> String {
    match lane {
        Lane::Input => keys.stream(),
        Lane::Again => keys.again(),
    }
}

/// How scripts call a lane.
fn name_of(lane: Lane) -> &'static str {
    match lane {
        Lane::Input => "i",
        Lane::Again => "a",
    }
}

fn before(id: EntryId) -> EntryId {
    match id {
        EntryId(ms, 0) => EntryId(ms.saturating_sub(1), u64::MAX),
        EntryId(ms, seq) => EntryId(ms, seq - 1),
    }
}

fn after(id: EntryId) -> EntryId {
    match id {
        EntryId(ms, u64::MAX) => EntryId(ms.saturating_add(1), 0),
        EntryId(ms, seq) => EntryId(ms, seq + 1),
    }
}

fn to_u32(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
