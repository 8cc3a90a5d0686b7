//! Looks at everything that a backend shows, after each step: streams, counters, dead letters, inboxes, states.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{KeyState, Subscription};
use tidemill_storage::SubscriptionStatus;
use uuid::Uuid;

use super::reference::{Group, Number, Place, Stream};
use super::run::Run;
use super::steps::{IDS, KEYS};
use super::tracked::Tracked;

/// More than a case can make.
const ALL: usize = 10_000;

impl Run<'_> {
    pub(super) async fn look(&mut self) -> Result<()> {
        for stream in [self.input.clone(), self.output.clone()] {
            self.model.listed(&stream, &self.backend.entries(&stream, None, ALL).await?)?;
        }
        for subscription in self.subscriptions.clone() {
            self.look_at(&subscription).await.with_context(|| format!("handler {}", subscription.handler))?;
        }
        Ok(())
    }

    async fn look_at(&mut self, subscription: &Subscription) -> Result<()> {
        let ids: Vec<Uuid> = (0..IDS).map(|id| Uuid::from_u128(id.into())).collect();
        let keys = KEYS.map(Arc::from);
        let (status, letters, states, found) = tokio::try_join!(
            self.backend.status(subscription),
            self.backend.dead_letters(subscription, None, ALL),
            self.backend.states(subscription, None, ALL),
            self.backend.look_up(subscription, &ids, &keys),
        )?;

        let stream = &self.model.streams[&subscription.stream];
        let group = self
            .model
            .groups
            .get_mut(&(subscription.stream.clone(), subscription.handler.clone()))
            .expect("it has joined");
        group.compare_counters(&status)?;
        group.compare_dead(stream, &letters)?;
        let expected: Vec<(String, KeyState)> = group.states.clone().into_iter().collect();
        ensure!(states == expected, "its states are {states:?}, not {expected:?}");
        let expected = KEYS.map(|key| group.states.get(key).cloned().unwrap_or_default());
        ensure!(found.states == expected, "it looks up the states {:?}, not {expected:?}", found.states);
        let expected: Vec<_> = ids.iter().map(|id| group.inbox.get(id).copied()).collect();
        ensure!(found.seen == expected, "its inbox holds {:?}, not {expected:?}", found.seen);

        let seen = self.letters.entry(subscription.clone()).or_default();
        letters.iter().for_each(|letter| {
            if !seen.contains(&letter.id) {
                seen.push(letter.id)
            }
        });
        Ok(())
    }
}

impl Group {
    /// All but what depends on the clock (ages) and on who looked when (consumers).
    fn compare_counters(&self, status: &SubscriptionStatus) -> Result<()> {
        ensure!(status.balances(), "the counters do not balance: {status:?}");
        let counts = self.counters();
        let letters = || self.dead.iter().map(|number| &self.deliveries[number]);
        let expected = SubscriptionStatus {
            published: self.published,
            timers: self.timers,
            committed: self.committed,
            skipped: self.skipped,
            duplicates: self.duplicates,
            retried: self.retried,
            dead: self.dead.len() as u64,
            dead_unrun: letters().filter(|tracked| tracked.never_ran()).count() as u64,
            dead_bytes: letters().map(Tracked::letter_bytes).sum(),
            dropped: self.dropped,
            evicted_ran: self.evicted_ran,
            evicted_unrun: self.evicted_unrun,
            strayed: 0,
            repeated: 0,
            left: 0,
            lag: counts.lag,
            pending: counts.pending,
            due: counts.due,
            far: counts.far,
            redelivery: counts.again,
            quarantined: counts.quarantined,
            torn: 0,
            oldest_pending_age: status.oldest_pending_age,
            consumers: status.consumers,
            oldest_age: status.oldest_age,
        };
        ensure!(*status == expected, "its counters are\n  {status:?}, not\n  {expected:?}");
        Ok(())
    }

    fn compare_dead(&mut self, stream: &Stream, letters: &[DeadLetter]) -> Result<()> {
        let dead = self.dead.clone();
        ensure!(letters.len() == dead.len(), "{} dead letters lie there, not {}", letters.len(), dead.len());
        ensure!(letters.is_sorted_by(|a, b| a.id < b.id), "dead letters are not in the order of their ids");
        for (letter, number) in letters.iter().zip(dead) {
            let context = || format!("dead letter {} of entry {number}", letter.id);
            self.compare_letter(stream, letter, number).with_context(context)?;
        }
        Ok(())
    }

    fn compare_letter(&mut self, stream: &Stream, letter: &DeadLetter, number: Number) -> Result<()> {
        let tracked = self.deliveries.get_mut(&number).context("the model has lost it")?;
        let Place::Dead { letter: id, reason } = &mut tracked.place else { unreachable!("it is in the list") };
        let id = *id.get_or_insert(letter.id);
        let expected = DeadLetter {
            id,
            origin: match tracked.origin {
                Some(origin) => origin,
                None => stream.entries[number].id.context("its stream was listed before")?,
            },
            body: tracked.body.clone(),
            reason: reason.clone(),
            at_ms: letter.at_ms,
            attempts: tracked.attempts,
            crashes: tracked.crashes,
            history: tracked.history.clone(),
            replayed: tracked.replayed,
        };
        ensure!(*letter == expected, "it is\n  {letter:?}, not\n  {expected:?}");
        Ok(())
    }
}
