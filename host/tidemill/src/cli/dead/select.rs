//! Which dead letters: the filters that all commands share, and reading a page at a time what they let through.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use crate::cli::UsageError;
use tidemill_core::clock;
use tidemill_core::model::dead_letter::{DeadLetter, ReasonClass};
use tidemill_core::model::delivery::{Body, EntryId, Subscription};
use tidemill_core::policy::fingerprint::fingerprint;
use tidemill_storage::Backend;

/// Dead letters read in one step. Each may be as large as an event, and there may be millions of them.
pub(crate) const PAGE: usize = 100;
/// The first of a subscription, whose letters may have any size, and the bytes of those after it, by the size of those before.
const FIRST_PAGE: usize = 4;
const PAGE_BYTES: usize = 8 << 20;

#[derive(clap::Args, Default)]
pub(crate) struct Filter {
    /// These letters, as `ls --flat` prints them.
    pub ids: Vec<String>,
    /// All letters, or all that the other filters let through.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Of this handler.
    #[arg(long)]
    pub handler: Option<String>,
    /// Of this class: undecodable, invalid, unknown, conflict, rejected, exhausted, poison, refused or looped.
    #[arg(long)]
    pub reason: Option<String>,
    /// Of this group, as `ls` prints it.
    #[arg(long, value_name = "HEX")]
    pub(crate) fingerprint: Option<String>,
    /// Whose event is of this event_type.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Dead since then: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Dead before then.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// A filter that makes sense.
pub(crate) struct Selection {
    subscriptions: Vec<Subscription>,
    /// These and no others.
    ids: Option<Vec<(Subscription, EntryId)>>,
    class: Option<ReasonClass>,
    fingerprint: Option<String>,
    kind: Option<String>,
    since_ms: u64,
    until_ms: u64,
    /// What was asked for, for people; empty if nothing was.
    pub words: String,
}

impl Selection {
    pub(crate) fn of(filter: &Filter, subscriptions: &[Subscription]) -> anyhow::Result<Self> {
        let class = match &filter.reason {
            Some(text) => Some(ReasonClass::parse(text).ok_or_else(|| unknown_class(text))?),
            None => None,
        };
        let wanted = |subscription: &&Subscription| {
            filter.handler.as_ref().is_none_or(|handler| **handler == *subscription.handler)
        };
        let chosen: Vec<Subscription> = subscriptions.iter().filter(wanted).cloned().collect();
        if let Some(handler) = filter.handler.as_ref().filter(|_| chosen.is_empty()) {
            return Err(unknown_handler(handler, subscriptions).into());
        }
        let mut ids = Vec::new();
        for id in &filter.ids {
            let id = parse_id(subscriptions, id)?;
            if !ids.contains(&id) && chosen.contains(&id.0) {
                ids.push(id);
            }
        }
        Ok(Self {
            subscriptions: chosen,
            ids: (!filter.ids.is_empty()).then_some(ids),
            class,
            fingerprint: filter.fingerprint.clone(),
            kind: filter.kind.clone(),
            since_ms: filter.since.as_deref().map_or(Ok(0), |text| time_ms("--since", text))?,
            until_ms: filter.until.as_deref().map_or(Ok(u64::MAX), |text| time_ms("--until", text))?,
            words: words(filter),
        })
    }

    pub(crate) fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    pub(crate) fn is_of_ids(&self) -> bool {
        self.ids.is_some()
    }

    pub(crate) fn lets_through(&self, letter: &DeadLetter) -> bool {
        (self.since_ms..self.until_ms).contains(&letter.at_ms)
            && self.class.is_none_or(|class| class == letter.reason.class)
            && self.kind.as_ref().is_none_or(|kind| kind_of(letter).as_ref() == Some(kind))
            && self.fingerprint.as_ref().is_none_or(|wanted| *wanted == fingerprint_of(letter))
    }

    /// Everything that is selected now. Letters that come later are not: what is replayed may fail again at once, and
    /// would be met for ever.
    pub(crate) fn walk(&self) -> Walk<'_> {
        if let Some(ids) = &self.ids {
            let ids = ids.iter().map(|(subscription, id)| (Pages::one(subscription.clone(), *id), subscription));
            return Walk { selection: self, left: ids.collect() };
        }
        let all = self.subscriptions.iter().map(|subscription| (Pages::of(subscription.clone()), subscription));
        Walk { selection: self, left: all.collect() }
    }
}

/// The pages of a selection.
pub(crate) struct Walk<'a> {
    selection: &'a Selection,
    left: VecDeque<(Pages, &'a Subscription)>,
}

impl<'a> Walk<'a> {
    /// The next letters, of one subscription and never none; `None` at the end.
    pub(crate) async fn next(
        &mut self,
        backend: &dyn Backend,
    ) -> anyhow::Result<Option<(&'a Subscription, Vec<DeadLetter>)>> {
        while let Some((pages, subscription)) = self.left.front_mut() {
            let Some(mut letters) = pages.next(backend).await? else {
                self.left.pop_front();
                continue;
            };
            letters.retain(|letter| self.selection.lets_through(letter));
            if !letters.is_empty() {
                return Ok(Some((*subscription, letters)));
            }
        }
        Ok(None)
    }

    /// The same letters once more, and no others: how many there are, and a walk that ends where this one did.
    pub(crate) async fn count(mut self, backend: &dyn Backend) -> anyhow::Result<(u64, Walk<'a>)> {
        let (mut count, mut again) = (0, self.selection.walk());
        let mut ends: Vec<(&Subscription, EntryId)> = Vec::new();
        while let Some((subscription, letters)) = self.next(backend).await? {
            count += letters.len() as u64;
            ends.retain(|(known, _)| *known != subscription);
            ends.extend(letters.last().map(|letter| (subscription, letter.id)));
        }
        if !self.selection.is_of_ids() {
            again.left.retain_mut(|(pages, subscription)| match ends.iter().find(|(known, _)| known == subscription) {
                Some((_, end)) => {
                    pages.end = *end;
                    true
                }
                None => false,
            });
        }
        Ok((count, again))
    }
}

/// The dead letters of one subscription, a page at a time.
pub(crate) struct Pages {
    subscription: Subscription,
    after: Option<EntryId>,
    /// The last one that is wanted.
    end: EntryId,
    /// Letters of the next page: fewer where they are large.
    size: usize,
    over: bool,
}

impl Pages {
    pub(crate) fn of(subscription: Subscription) -> Self {
        Self { subscription, after: None, end: EntryId(u64::MAX, u64::MAX), size: FIRST_PAGE, over: false }
    }

    /// The page that holds only this letter, if it is there.
    pub(crate) fn one(subscription: Subscription, id: EntryId) -> Self {
        let before = match id {
            EntryId(0, 0) => None,
            EntryId(ms, 0) => Some(EntryId(ms - 1, u64::MAX)),
            EntryId(ms, number) => Some(EntryId(ms, number - 1)),
        };
        Self { subscription, after: before, end: id, size: 1, over: false }
    }

    pub(crate) async fn next(&mut self, backend: &dyn Backend) -> anyhow::Result<Option<Vec<DeadLetter>>> {
        if self.over {
            return Ok(None);
        }
        let max = self.size;
        let mut page = backend.dead_letters(&self.subscription, self.after, max).await?;
        self.after = page.last().map(|letter| letter.id).or(self.after);
        self.over = page.len() < max || self.after.is_none_or(|after| after >= self.end);
        let bytes: usize = page.iter().map(|letter| letter.body.bytes()).sum();
        self.size = (PAGE_BYTES / (bytes / page.len().max(1)).max(1)).clamp(1, PAGE);
        page.retain(|letter| letter.id <= self.end);
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}

pub(crate) fn fingerprint_of(letter: &DeadLetter) -> String {
    fingerprint(letter.reason.class, &letter.reason.text)
}

/// The event's type, if the body can be read that far.
fn kind_of(letter: &DeadLetter) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        event_type: String,
    }
    match &letter.body {
        Body::Event(bytes) | Body::Timer(bytes) => {
            serde_json::from_slice::<Head>(bytes).ok().map(|head| head.event_type)
        }
        Body::Fields(_) | Body::Large(_) => None,
    }
}

/// What was asked for, in the words of the command line.
fn words(filter: &Filter) -> String {
    let mut words = Vec::new();
    if !filter.ids.is_empty() {
        // The audit record names the letters themselves.
        words.push(format!("ids={}", filter.ids.len()));
    }
    if filter.all {
        words.push("all".to_owned());
    }
    for (name, value) in [
        ("handler", &filter.handler),
        ("reason", &filter.reason),
        ("fingerprint", &filter.fingerprint),
        ("type", &filter.kind),
        ("since", &filter.since),
        ("until", &filter.until),
    ] {
        words.extend(value.as_ref().map(|value| format!("{name}={value}")));
    }
    words.join(" ")
}

/// `2h` is that long ago; else RFC 3339.
fn time_ms(option: &str, text: &str) -> anyhow::Result<u64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(u64::try_from(time.as_millisecond()).unwrap_or(0));
    }
    let ago: Duration = humantime::parse_duration(text)
        .map_err(|_| UsageError(format!("{option} {text}: not a time\n  hint: 2h (ago), or 2026-01-31T12:00:00Z")))?;
    let ago = u64::try_from(ago.as_millis()).with_context(|| format!("{option} {text}"))?;
    Ok(clock::now_ms().saturating_sub(ago))
}

fn unknown_class(text: &str) -> UsageError {
    let known: Vec<&str> = ReasonClass::ALL.iter().map(|class| class.as_str()).collect();
    UsageError(format!("there is no reason \"{text}\"\n  hint: {}", known.join(", ")))
}

pub(crate) fn unknown_handler(name: &str, subscriptions: &[Subscription]) -> UsageError {
    let mut known: Vec<&str> = subscriptions.iter().map(|subscription| &*subscription.handler).collect();
    known.dedup();
    UsageError(format!("there is no handler \"{name}\"\n  hint: {}", known.join(", ")))
}

/// `payment-service/order-events/1700000000000-0`
pub(crate) fn full_id(subscription: &Subscription, id: EntryId) -> String {
    format!("{}/{}/{id}", subscription.handler, subscription.stream)
}

pub(crate) fn parse_id(subscriptions: &[Subscription], text: &str) -> anyhow::Result<(Subscription, EntryId)> {
    let wrong = || {
        UsageError(format!(
            "\"{text}\" is not a dead letter\n  hint: copy one from `tidemill dead ls --flat`: HANDLER/STREAM/ID"
        ))
    };
    let id = |subscription: &Subscription| {
        text.strip_prefix(&format!("{}/{}/", subscription.handler, subscription.stream))?.parse().ok()
    };
    let found = subscriptions.iter().find_map(|subscription| Some((subscription.clone(), id(subscription)?)));
    Ok(found.ok_or_else(wrong)?)
}

/// One letter by its id.
pub(crate) async fn find(
    backend: &dyn Backend,
    subscriptions: &[Subscription],
    id: &str,
) -> anyhow::Result<(Subscription, DeadLetter)> {
    let (subscription, entry) = parse_id(subscriptions, id)?;
    let page = Pages::one(subscription.clone(), entry).next(backend).await?;
    match page.and_then(|letters| letters.into_iter().next()) {
        Some(letter) => Ok((subscription, letter)),
        None => Err(UsageError(format!("there is no dead letter {id}\n  hint: `tidemill dead ls` lists them")).into()),
    }
}
