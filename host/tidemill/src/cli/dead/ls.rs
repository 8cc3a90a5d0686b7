//! `tidemill dead ls`: dead letters in groups that died of the same cause, or one by one.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;

use super::select::{Selection, fingerprint_of, full_id};
use super::show::to_json;
use super::time;
use crate::cli::out;
use crate::cli::out::errln;
use crate::cli::table::{Table, thousands};
use tidemill_core::model::dead_letter::{DeadLetter, ReasonClass};
use tidemill_storage::{Backend, Error, SubscriptionStatus};

/// Groups held at a time. Letters of still other causes are only counted.
const GROUPS_MAX: usize = 10_000;
/// What a table shows of a text, in characters.
const TEXT_MAX: usize = 80;

struct Group {
    count: u64,
    first_ms: u64,
    last_ms: u64,
    /// The latest one, as an example.
    id: String,
    text: String,
}

pub(super) async fn groups(
    backend: &dyn Backend,
    selection: &Selection,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut groups: BTreeMap<(String, ReasonClass, String), Group> = BTreeMap::new();
    let (mut walk, mut others) = (selection.walk(), 0_u64);
    while let Some((subscription, letters)) = walk.next(backend).await? {
        for letter in letters {
            let key = (subscription.handler.to_string(), letter.reason.class, fingerprint_of(&letter));
            if groups.len() == GROUPS_MAX && !groups.contains_key(&key) {
                others += 1;
                continue;
            }
            let (first_ms, last_ms) = (letter.at_ms, letter.at_ms);
            let group = groups.entry(key).or_insert_with(|| Group {
                count: 0,
                first_ms,
                last_ms,
                id: String::new(),
                text: String::new(),
            });
            group.count += 1;
            group.first_ms = group.first_ms.min(first_ms);
            // Of two streams, the later letter may come first.
            if last_ms >= group.last_ms {
                group.last_ms = last_ms;
                group.id = full_id(subscription, letter.id);
                group.text = letter.reason.text;
            }
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    let left = groups.len().saturating_sub(limit);
    let mut table = Table::new(["handler", "reason", "fingerprint", "letters", "first", "last", "latest", "text"]);
    for ((handler, class, fingerprint), group) in groups.into_iter().take(limit) {
        let Group { count, first_ms, last_ms, id, text } = group;
        if as_json {
            let line = json!({
                "handler": handler, "reason": class.as_str(), "fingerprint": fingerprint, "count": count,
                "first_ms": first_ms, "last_ms": last_ms, "example": id, "text": text,
            });
            out::json(&line);
        } else {
            let (first, last) = (time(first_ms), time(last_ms));
            let cells = [handler, class.to_string(), fingerprint, thousands(count), first, last, id, short(&text)];
            table.row(cells);
        }
    }
    if !as_json {
        out::table(&table);
    }
    say_left(left as u64, "groups");
    if others > 0 {
        errln!("{} letters of still other groups; a filter shows them", thousands(others));
    }
    say_evicted(backend, selection).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn flat(
    backend: &dyn Backend,
    selection: &Selection,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(["id", "reason", "fingerprint", "attempts", "text"]);
    let (mut walk, mut shown, mut left) = (selection.walk(), 0, 0_u64);
    while let Some((subscription, letters)) = walk.next(backend).await? {
        for letter in letters {
            if shown == limit {
                left += 1;
                continue;
            }
            shown += 1;
            if as_json {
                out::json(&to_json(subscription, &letter));
            } else {
                let DeadLetter { id, reason, attempts, .. } = &letter;
                let (id, class) = (full_id(subscription, *id), reason.class.to_string());
                table.row([id, class, fingerprint_of(&letter), attempts.to_string(), short(&reason.text)]);
            }
        }
    }
    if !as_json {
        out::table(&table);
    }
    say_left(left, "letters");
    say_evicted(backend, selection).await?;
    Ok(ExitCode::SUCCESS)
}

fn say_left(left: u64, what: &str) {
    if left > 0 {
        errln!("{} {what} more; --limit shows them", thousands(left));
    }
}

/// What is not in the list because there was no room for it.
async fn say_evicted(backend: &dyn Backend, selection: &Selection) -> anyhow::Result<()> {
    for subscription in selection.subscriptions() {
        let (ran, unrun) = match backend.status(subscription).await {
            Ok(SubscriptionStatus { evicted_ran, evicted_unrun, .. }) => (evicted_ran, evicted_unrun),
            Err(Error::GroupGone { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if ran + unrun > 0 {
            errln!(
                "{subscription}: {} letters of events that ran and {} of events that never ran were evicted because of \
                 host.dead_letters_max and host.dead_letters_bytes_max",
                thousands(ran),
                thousands(unrun)
            );
        }
    }
    Ok(())
}

/// The first line, as far as there is room.
fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `TEXT_MAX`.
    #[test]
    fn a_table_shows_the_beginning_of_a_text() {
        let long = "é".repeat(TEXT_MAX);
        assert_eq!([short(&long), short(&format!("{long}y")), short(&format!("{long}\nz"))], [&*long; 3]);
    }
}
