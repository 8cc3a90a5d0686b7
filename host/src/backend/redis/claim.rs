//! Claiming: consumers whose hosts have died are found, their deliveries taken over, and their names removed.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys::{self, Keys};
use super::recover::{LANES, PAGE, key_of, name_of, to_u32};
use super::script::{BURY, CLAIM};
use super::{Redis, millis, record, value};
use crate::backend::Result;
use crate::model::delivery::{Delivery, Lane, Source};

/// Dead consumers with nothing left that are removed in one call, and such calls in a row. They are many where hosts
/// came and went for long while nobody recovered anything.
const BURIALS_MAX: u64 = 2000;
const BURIAL_CALLS_MAX: usize = 50;

impl Redis {
    /// Adds to `found`, up to `max`, what dead consumers have had for longer than `lease`.
    pub(super) async fn claim_from_dead(
        &self,
        source: &Source,
        keys: &Keys,
        consumer: &str,
        lease: Duration,
        max: usize,
        found: &mut Vec<Delivery>,
    ) -> Result<()> {
        self.bury(source, keys, lease).await?;
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
        }
        Ok(())
    }

    /// Removes dead consumers that have nothing, before the others are listed: a list of all might be long.
    /// Lanes with something pending are left to `claim`, which knows when the last of it is gone.
    async fn bury(&self, source: &Source, keys: &Keys, lease: Duration) -> Result<()> {
        let mut call = BURY.call(&[keys.stream(), keys.again()]);
        call.arg(&*source.handler).arg(millis(lease)).arg(BURIALS_MAX).arg(keys::HEARTBEAT_PREFIX);
        for _ in 0..BURIAL_CALLS_MAX {
            if value::count(&self.run_script(&BURY, &call, source).await?)? < BURIALS_MAX {
                break;
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "each is an argument of the script, too")]
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
                let (name, pending) = consumer_row(row)?;
                // Ours all have names that are text: any other is a stranger's, who may look after it.
                let Some(name) = name.filter(|name| name != consumer) else { continue };
                let other = others.entry(name.clone()).or_insert_with(|| DeadConsumer::new(name));
                other.pending[lane as usize].1 = pending;
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
}

impl DeadConsumer {
    fn new(name: String) -> Self {
        Self { name, pending: LANES.map(|lane| (lane, 0)) }
    }
}

fn consumer_row(row: Value) -> Result<(Option<String>, u64)> {
    let (mut name, mut pending) = (None, 0);
    let mut fields = value::array(row)?.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        match &value::bytes(field)?[..] {
            b"name" => name = value::text(value).ok(),
            b"pending" => pending = value::count(&value)?,
            _ => {}
        }
    }
    Ok((name, pending))
}
