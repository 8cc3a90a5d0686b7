//! Settling: a batch becomes one call of `settle.lua`, whose table says what goes where.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use redis::Cmd;

use super::keys::Keys;
use super::record;
use super::record::{WrittenBounds, WrittenId};
use super::script::{Arguments, SETTLE_WHEN_FULL, Script, ScriptCall, SettleArgs};
use super::{Redis, inbox_window_ms, millis, value};
use tidemill_core::model::delivery::{Disposition, Effects, EntryId, Queue};
use tidemill_storage::{Error, Options, Result, Settled, Settlement, SettlementEntry, VERSIONS_MAX};

impl Redis {
    /// What is sent to settle a batch. Needs no server, so that it can be measured by itself.
    pub fn encode(settlement: &Settlement, options: &Options) -> Result<Cmd> {
        encode(settlement, options).map(|call| call.cmd)
    }

    pub(super) async fn settle_batch(&self, settlement: &Settlement) -> Result<Vec<Settled>> {
        let entries = &settlement.entries;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let call = encode(settlement, &self.options)?;
        let answer = self.run_script(&call, &settlement.subscription).await?;
        let letters = value::bytes(answer)?;
        if letters.len() != entries.len() {
            return Err(super::error::odd_answer("one letter for each entry"));
        }
        letters.into_iter().map(settled).collect()
    }
}

fn encode(settlement: &Settlement, options: &Options) -> Result<ScriptCall> {
    let (subscription, entries) = (&settlement.subscription, &settlement.entries);
    let keys = Keys::of(subscription);
    let names = Names::of(entries, &keys, settlement)?;
    let dedup_keys = dedup_keys(entries);
    let (from_stream, from_redelivery) = (Ids::of(entries, Queue::Stream), Ids::of(entries, Queue::Redelivery));
    let arguments = SettleArgs {
        stream: keys.stream(),
        redelivery: keys.redelivery(),
        due: keys.due(),
        due_bodies: keys.due_bodies(),
        dead: keys.dead(),
        crashes: keys.crashes(),
        stats: keys.stats(),
        inbox: keys.seen(),
        state_index: keys.state_index(),
        receipt: keys.receipt(settlement.token),
        timers: keys.timers(),
        group: &subscription.handler,
        consumer: &settlement.consumer,
        window_ms: inbox_window_ms(options),
        letter_bounds: WrittenBounds::of(options),
        state_prefix_len: names.state_prefix.len(),
        ops: entries.iter().map(op).collect(),
        stream_ids: from_stream.text,
        stream_low: from_stream.low,
        stream_high: from_stream.high,
        redelivery_ids: from_redelivery.text,
        redelivery_low: from_redelivery.low,
        redelivery_high: from_redelivery.high,
        dedup_keys: dedup_keys.as_flattened(),
        shapes: shapes(entries, &names),
        crashed: u8::from(entries.iter().any(|entry| entry.delivery.crashes > 0)),
        timers_max: options.timers_max,
        plugin: &settlement.plugin,
        versions_max: VERSIONS_MAX,
        plain: if is_plain(entries, &dedup_keys) { "1".to_owned() } else { agreed(entries) },
    };
    let (args, bytes) = room(entries);
    let mut call = arguments.call_as(script(entries), &names.keys, args, bytes);
    for (number, entry) in entries.iter().enumerate() {
        write_extras(&mut call.cmd, entry, number, settlement);
    }
    Ok(call)
}

fn script(entries: &[SettlementEntry]) -> &'static Script {
    if entries.iter().all(takes_no_room) { &SETTLE_WHEN_FULL } else { SettleArgs::script() }
}

/// A dead letter does take some, but there is a bound on how many are kept. A retry or an effect may take any amount.
fn takes_no_room(entry: &SettlementEntry) -> bool {
    match &entry.disposition {
        Disposition::Commit(Effects { emits, writes, timers }) => {
            emits.is_empty() && writes.is_empty() && timers.is_empty()
        }
        Disposition::Skip { .. } | Disposition::Pass { .. } | Disposition::Leave => true,
        Disposition::Quarantine | Disposition::DeadLetter { .. } => true,
        Disposition::Retry { .. } => false,
    }
}

fn op(entry: &SettlementEntry) -> char {
    match entry.delivery.queue {
        Queue::Stream => op_letter(entry),
        Queue::Redelivery => op_letter(entry).to_ascii_uppercase(),
    }
}

fn op_letter(entry: &SettlementEntry) -> char {
    match &entry.disposition {
        Disposition::Commit(Effects { emits, timers, .. })
            if entry.dedup_key.is_some() && entry.state.is_none() && emits.is_empty() && timers.is_empty() =>
        {
            'c'
        }
        Disposition::Commit(_) => 'e',
        Disposition::Skip { duplicate: false } => 's',
        Disposition::Skip { duplicate: true } => 'u',
        Disposition::Pass { .. } => 'n',
        Disposition::Leave => 'l',
        Disposition::Retry { .. } => 'r',
        Disposition::Quarantine => 'q',
        Disposition::DeadLetter { .. } => 'd',
    }
}

fn settled(letter: u8) -> Result<Settled> {
    Ok(match letter {
        b'C' => Settled::Committed,
        b'S' => Settled::Skipped,
        b'R' => Settled::Retried,
        b'D' => Settled::Dead,
        b'Q' => Settled::Quarantined,
        b'U' => Settled::Duplicate,
        b'X' => Settled::Conflict,
        b'T' => Settled::Stale,
        b'F' => Settled::Fenced,
        b'O' => Settled::Full,
        b'L' => Settled::Left,
        b'W' => Settled::Outdated,
        _ => return Err(super::error::odd_answer("a letter of settle.lua")),
    })
}

fn is_commit(entry: &SettlementEntry) -> bool {
    matches!(entry.disposition, Disposition::Commit(_))
}

fn ids(entries: &[SettlementEntry], queue: Queue) -> impl Iterator<Item = EntryId> {
    entries.iter().map(|entry| &entry.delivery).filter(move |delivery| delivery.queue == queue).map(|d| d.entry)
}

/// The ids of a queue, and between which of them all lie.
struct Ids {
    text: String,
    low: WrittenId,
    high: WrittenId,
}

impl Ids {
    fn of(entries: &[SettlementEntry], queue: Queue) -> Self {
        let zero = EntryId(0, 0);
        let mut text = String::new();
        for (number, id) in ids(entries, queue).enumerate() {
            let space = if number == 0 { "" } else { " " };
            // Writing to a string never fails.
            let _ = write!(text, "{space}{id}");
        }
        let low = WrittenId(ids(entries, queue).min().unwrap_or(zero));
        Self { text, low, high: WrittenId(ids(entries, queue).max().unwrap_or(zero)) }
    }
}

/// The deduplication keys of all commits: the id of the event and the hash of its bytes.
fn dedup_keys(entries: &[SettlementEntry]) -> Vec<[u8; 32]> {
    let dedup_keys = entries.iter().filter(|entry| is_commit(entry)).filter_map(|entry| entry.dedup_key);
    let bytes = dedup_keys.map(|(id, hash)| {
        let mut dedup_key = [0; 32];
        dedup_key[..16].copy_from_slice(id.as_bytes());
        dedup_key[16..].copy_from_slice(&hash);
        dedup_key
    });
    bytes.collect()
}

/// Whether nothing in this batch depends on what else is in it: only commits with deduplication keys, each of another
/// event.
fn is_plain(entries: &[SettlementEntry], dedup_keys: &[[u8; 32]]) -> bool {
    let mut ids = HashSet::with_capacity(dedup_keys.len());
    entries.iter().all(|entry| entry.delivery.queue == Queue::Stream && op_letter(entry) == 'c')
        && dedup_keys.iter().all(|dedup_key| ids.insert(&dedup_key[..16]))
}

/// `0`, and behind it what hosts had agreed on when it was decided that none wants an entry: the oldest such number.
fn agreed(entries: &[SettlementEntry]) -> String {
    let number = |entry: &SettlementEntry| match entry.disposition {
        Disposition::Pass { agreed } => Some(agreed),
        _ => None,
    };
    entries.iter().filter_map(number).min().map_or_else(|| "0".to_owned(), |agreed| format!("0 {agreed}"))
}

/// The arguments of an entry beyond its id and its deduplication key.
fn write_extras(call: &mut Cmd, entry: &SettlementEntry, number: usize, settlement: &Settlement) {
    let delivery = &entry.delivery;
    match &entry.disposition {
        Disposition::Commit(effects) if op_letter(entry) == 'e' => {
            write_effects(call, entry, effects);
            for (index, timer) in effects.timers.iter().enumerate() {
                // Padded, so that those of one millisecond keep their order: the names decide then.
                call.arg(format!("{}:{}:{number}:t{index:06}", delivery.origin, settlement.token.simple()));
                call.arg(millis(timer.after));
                record::write_timer(call, delivery.origin, timer);
            }
        }
        Disposition::Commit(_) | Disposition::Skip { .. } | Disposition::Quarantine => {}
        Disposition::Pass { .. } | Disposition::Leave => {}
        Disposition::Retry { after, record } => {
            // Where it came from makes the name readable, the token makes it the only one.
            call.arg(format!("{}:{}:{number}", delivery.origin, settlement.token.simple()));
            call.arg(millis(*after));
            record::write(call, delivery, Some(record));
        }
        Disposition::DeadLetter { reason, record } => {
            call.arg("class").arg(reason.class.as_str()).arg("text").arg(&reason.text);
            record::write(call, delivery, record.as_ref());
        }
    }
}

fn write_effects(call: &mut Cmd, entry: &SettlementEntry, effects: &Effects) {
    if let Some((_, version)) = &entry.state {
        call.arg(version);
        if !effects.writes.is_empty() {
            call.arg("v").arg(version.saturating_add(1));
        }
    }
    for (name, value) in &effects.writes {
        if let Some(value) = value {
            call.arg(format!("={name}")).arg(&value[..]);
        }
    }
    for (name, _) in effects.writes.iter().filter(|(_, value)| value.is_none()) {
        call.arg(format!("={name}"));
    }
    for emitted in &effects.emits {
        call.arg(&emitted.body[..]);
    }
}

/// The shapes of all entries of the op `e`, packed as `outcomes.lua` unpacks them.
fn shapes(entries: &[SettlementEntry], names: &Names) -> Vec<u8> {
    let mut packed = Vec::new();
    for entry in entries.iter().filter(|entry| op_letter(entry) == 'e') {
        let Disposition::Commit(effects) = &entry.disposition else { continue };
        let key = entry.state.as_ref().map_or(0, |(key, _)| number_of(&names.states, key));
        let deleted = effects.writes.values().filter(|value| value.is_none()).count();
        // The new version is one more value to set.
        let set = if effects.writes.is_empty() { 0 } else { 1 + effects.writes.len() - deleted };
        packed.push(u8::from(entry.dedup_key.is_some()));
        let counts = [key, set, deleted, effects.emits.len(), effects.timers.len()];
        let streams = effects.emits.iter().map(|emitted| number_of(&names.streams, &emitted.stream));
        for number in counts.into_iter().chain(streams) {
            // There is no memory for as many effects as would not fit.
            packed.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    packed
}

/// The keys of a settlement that its entries add, and by which numbers (from 1, as Lua counts) they call them.
struct Names<'a> {
    keys: Vec<String>,
    state_prefix: String,
    states: HashMap<&'a str, usize>,
    streams: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(entries: &'a [SettlementEntry], keys: &Keys, settlement: &Settlement) -> Result<Self> {
        let state_prefix = keys.state_prefix();
        let (mut keys, mut states, mut streams) = (Vec::new(), HashMap::new(), HashMap::new());
        for entry in entries {
            let Disposition::Commit(effects) = &entry.disposition else { continue };
            match &entry.state {
                Some((key, _)) => number(&mut keys, &mut states, key, || format!("{state_prefix}{key}")),
                None if effects.writes.is_empty() => {}
                None => {
                    return Err(Error::Permanent(format!(
                        "{}: a commit writes state of no key",
                        settlement.subscription
                    )));
                }
            }
            for emitted in &effects.emits {
                number(&mut keys, &mut streams, &emitted.stream, || emitted.stream.to_string());
            }
        }
        Ok(Self { keys, state_prefix, states, streams })
    }
}

fn number<'a>(keys: &mut Vec<String>, known: &mut HashMap<&'a str, usize>, name: &'a str, key: impl Fn() -> String) {
    known.entry(name).or_insert_with(|| {
        keys.push(key());
        SettleArgs::KEYS.len() + keys.len()
    });
}

/// `Names::of` has given each a number.
fn number_of(numbers: &HashMap<&str, usize>, name: &str) -> usize {
    numbers.get(name).copied().unwrap_or_default()
}

/// How many arguments and bytes a settlement takes, near enough to allocate once.
fn room(entries: &[SettlementEntry]) -> (usize, usize) {
    let (mut args, mut bytes) = (0, 256 + 64 * entries.len());
    for entry in entries {
        match &entry.disposition {
            Disposition::Commit(effects) => {
                args += 3 + 2 * effects.writes.len() + effects.emits.len();
                args += (2 + record::WRITTEN) * effects.timers.len();
                bytes += effects.timers.iter().map(|timer| timer.body.len() + 200).sum::<usize>();
                bytes += effects.emits.iter().map(|emitted| emitted.body.len() + 2).sum::<usize>();
                let values = effects.writes.iter();
                bytes +=
                    values.map(|(name, value)| name.len() + 1 + value.as_ref().map_or(0, |v| v.len())).sum::<usize>();
            }
            Disposition::Retry { .. } | Disposition::DeadLetter { .. } => args += 4 + record::WRITTEN,
            Disposition::Skip { .. } | Disposition::Pass { .. } | Disposition::Leave | Disposition::Quarantine => {}
        }
    }
    (args, bytes)
}
