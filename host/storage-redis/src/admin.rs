//! Admin operations on a subscription: dead letters replayed, dropped, edited; pausing; and the audit records of them.

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::keys::Keys;
use super::record::{WriteId, for_each_pair, parse};
use super::script::{DROP, PAUSE, REPLAY, Script};
use super::{Redis, value};
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::{AUDIT_IDS_MAX, AUDIT_MAX, AuditRecord, Operator, Pause, Result};

/// A script holds up the server while it runs: no call touches more letters than this, nor (the scripts see to that)
/// more than 16 MiB of them.
const CALL_MAX: usize = 200;

impl Redis {
    pub(super) async fn replay_letters(
        &self,
        subscription: &Subscription,
        ids: &[EntryId],
        act: &Operator,
    ) -> Result<usize> {
        let (mut replayed, mut rest) = (0, ids);
        while !rest.is_empty() {
            let mut call = begin(&REPLAY, &replay_keys(subscription), act);
            call.arg("replay").arg("");
            replayed += self.act_on(&REPLAY, call, subscription, &mut rest).await?;
        }
        Ok(replayed)
    }

    pub(super) async fn drop_letters(
        &self,
        subscription: &Subscription,
        ids: &[EntryId],
        act: &Operator,
    ) -> Result<usize> {
        let keys = Keys::of(subscription);
        let (mut dropped, mut rest) = (0, ids);
        while !rest.is_empty() {
            let call = begin(&DROP, &[keys.dead(), keys.stats(), keys.audit()], act);
            dropped += self.act_on(&DROP, call, subscription, &mut rest).await?;
        }
        Ok(dropped)
    }

    pub(super) async fn edit_letter(
        &self,
        subscription: &Subscription,
        id: EntryId,
        body: Bytes,
        act: &Operator,
    ) -> Result<bool> {
        let mut call = begin(&REPLAY, &replay_keys(subscription), act);
        call.arg("edit").arg(&body[..]);
        Ok(self.act_on(&REPLAY, call, subscription, &mut &[id][..]).await? == 1)
    }

    /// Runs the call with the first of these ids as its last arguments, and takes off those that are done; answers how
    /// many letters there were.
    async fn act_on(
        &self,
        script: &Script,
        mut call: Cmd,
        subscription: &Subscription,
        ids: &mut &[EntryId],
    ) -> Result<usize> {
        let all = *ids;
        let some = &all[..all.len().min(CALL_MAX)];
        some.iter().for_each(|id| call.write_id(*id));
        let [count, done] = value::tuple(self.run_script(script, &call, subscription).await?)?;
        let number = |value| value::count(value).map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        *ids = &all[number(&done)?.clamp(1, some.len())..];
        number(&count)
    }

    pub(super) async fn pause_or_resume(
        &self,
        subscription: &Subscription,
        paused: bool,
        act: &Operator,
    ) -> Result<()> {
        let keys = Keys::of(subscription);
        let mut call = begin(&PAUSE, &[keys.stream(), keys.stats(), keys.audit()], act);
        call.arg(&*subscription.handler).arg(if paused { "pause" } else { "resume" });
        self.run_script(&PAUSE, &call, subscription).await?;
        Ok(())
    }

    pub(super) async fn which_are_paused(&self, subscriptions: &[Subscription]) -> Result<Vec<Pause>> {
        let mut read = Pipeline::with_capacity(2 * subscriptions.len());
        for subscription in subscriptions {
            let keys = Keys::of(subscription);
            read.cmd("HGET").arg(keys.stats()).arg("paused");
            read.cmd("HGET").arg(keys.position()).arg("lost");
        }
        if subscriptions.is_empty() {
            return Ok(Vec::new());
        }
        let flags = self.run_all(&read, &"what is paused").await?;
        let pause = |flags: &[Value]| match flags {
            [_, Value::BulkString(_)] => Pause::Lost,
            [Value::BulkString(paused), _] if paused == b"1" => Pause::Asked,
            _ => Pause::No,
        };
        Ok(flags.chunks(2).map(pause).collect())
    }

    pub(super) async fn list_audit(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<AuditRecord>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(Keys::of(subscription).audit()).arg(after.map_or_else(|| "-".to_owned(), |id| format!("({id}")));
        cmd.arg("+").arg("COUNT").arg(max.min(AUDIT_MAX));
        let entries = value::entries(self.run(&cmd, subscription).await?)?;
        entries.into_iter().map(|(id, fields)| audit_record(id, fields.unwrap_or_default())).collect()
    }
}

fn replay_keys(subscription: &Subscription) -> [String; 4] {
    let keys = Keys::of(subscription);
    [keys.dead(), keys.redelivery(), keys.audit(), keys.stats()]
}

/// A call whose first arguments name the operator.
pub(super) fn begin(script: &Script, keys: &[String], act: &Operator) -> Cmd {
    let mut call = script.call(keys);
    call.arg(&act.name).arg(&act.reason).arg(AUDIT_MAX).arg(AUDIT_IDS_MAX);
    call
}

/// What is missing or cannot be read was written by another program; the rest is still worth showing.
fn audit_record(id: EntryId, fields: Vec<Value>) -> Result<AuditRecord> {
    let mut record =
        AuditRecord { id, at_ms: id.0, verb: String::new(), count: 0, ids: Vec::new(), operator: Operator::default() };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    for_each_pair(fields, |name, value| match &name[..] {
        b"verb" => record.verb = text(&value),
        b"count" => record.count = parse(&value).unwrap_or(0),
        b"ids" => record.ids = text(&value).split(' ').filter_map(|id| id.parse().ok()).collect(),
        b"who" => record.operator.name = text(&value),
        b"note" => record.operator.reason = text(&value),
        _ => {}
    })?;
    Ok(record)
}
