//! Admin operations on a subscription: dead letters replayed, dropped, edited; pausing; and the audit records of them.

use bytes::Bytes;
use redis::{Pipeline, Value};

use super::keys::Keys;
use super::record::{WrittenId, for_each_pair, parse};
use super::script::{Arguments, DropArgs, PauseArgs, ReplayArgs, ScriptCall};
use super::value::Fields;
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
            let call = replay(subscription, act, "replay", &[]);
            replayed += self.act_on(call, subscription, &mut rest).await?;
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
            let arguments = DropArgs {
                dead: keys.dead(),
                stats: keys.stats(),
                audit_log: keys.audit(),
                operator: &act.name,
                reason: &act.reason,
                records_max: AUDIT_MAX,
                ids_max: AUDIT_IDS_MAX,
            };
            dropped += self.act_on(arguments.call(), subscription, &mut rest).await?;
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
        let call = replay(subscription, act, "edit", &body);
        Ok(self.act_on(call, subscription, &mut &[id][..]).await? == 1)
    }

    /// Runs the call with the first of these ids as its last arguments, and takes off those that are done; answers how
    /// many letters there were.
    async fn act_on(&self, mut call: ScriptCall, subscription: &Subscription, ids: &mut &[EntryId]) -> Result<usize> {
        let all = *ids;
        let some = &all[..all.len().min(CALL_MAX)];
        some.iter().for_each(|id| _ = call.cmd.arg(WrittenId(*id)));
        let mut answer = Fields::of(self.run_script(&call, subscription).await?)?;
        let mut number = |name| answer.count(name).map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        *ids = &all[number("done")?.clamp(1, some.len())..];
        number("found")
    }

    pub(super) async fn pause_or_resume(
        &self,
        subscription: &Subscription,
        paused: bool,
        act: &Operator,
    ) -> Result<()> {
        let keys = Keys::of(subscription);
        let arguments = PauseArgs {
            stream: keys.stream(),
            stats: keys.stats(),
            audit_log: keys.audit(),
            operator: &act.name,
            reason: &act.reason,
            records_max: AUDIT_MAX,
            ids_max: AUDIT_IDS_MAX,
            group: &subscription.handler,
            verb: if paused { "pause" } else { "resume" },
        };
        self.run_script(&arguments.call(), subscription).await?;
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

fn replay(subscription: &Subscription, act: &Operator, verb: &str, body: &[u8]) -> ScriptCall {
    let keys = Keys::of(subscription);
    let arguments = ReplayArgs {
        dead: keys.dead(),
        redelivery: keys.redelivery(),
        audit_log: keys.audit(),
        stats: keys.stats(),
        operator: &act.name,
        reason: &act.reason,
        records_max: AUDIT_MAX,
        ids_max: AUDIT_IDS_MAX,
        verb,
        body,
    };
    arguments.call()
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
