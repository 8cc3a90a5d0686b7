//! The hostile corpus in the shop: each guest becomes a handler of the running host by a reload, gets its events or is
//! refused, and goes again. What it cost is a row like that of a bomb.

use std::time::{Duration, Instant};

use tidemill_core::limits;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::Start;

use super::figures::Figures;
use super::{Field, LOOK_EVERY, ROW_MAX};
use crate::hostile_guests::{HOSTILE_GUESTS, HostileGuest, Stopped};
use crate::service::Service;

/// Events that each gets.
const EVENTS: u64 = 3;

impl Field {
    /// All of them; what is wrong is added to `broken`.
    pub(super) fn corpus(&mut self, figures: &mut Vec<Figures>, broken: &mut Vec<String>) -> Result<(), String> {
        let service = Service::start();
        let wanted: Vec<&HostileGuest> = HOSTILE_GUESTS.iter().filter(|row| self.plan.wants(row.name)).collect();
        for row in wanted {
            let (row_figures, outcome) = self.hostile_guest(row, &service)?;
            figures.push(row_figures);
            broken.extend(outcome.err().map(|error| format!("{}: {error}", row.name)));
        }
        Ok(())
    }

    fn hostile_guest(
        &mut self,
        row: &HostileGuest,
        service: &Service,
    ) -> Result<(Figures, Result<(), String>), String> {
        let rate_before = self.rate(self.quiet())?;
        let dedup_keys = self.dedup_keys()?;
        let handler = format!("hostile-{}", row.name);
        let subscription = Subscription { stream: "asked".into(), handler: handler.as_str().into() };
        let group = self.shop.runtime.block_on(self.shop.backend.ensure_group(&subscription, Start::New));
        group.map_err(|error| error.to_string())?;
        let (said, begun) = (self.shop.log_bytes(), Instant::now());
        let sent_bytes = self.shop.admit_guest(&handler, row, service).map_err(|error| error.to_string())?;
        let outcome = match row.stopped {
            Stopped::AtLoad(words) => self.refused(words, said),
            // The shop takes larger events than the test of the corpus does: within its bound, this one is not valid.
            Stopped::InCall(_) if row.name == "attributes-without-end" => {
                self.called(&subscription, row, service, "rejected")?
            }
            Stopped::InCall(class) => self.called(&subscription, row, service, class)?,
            Stopped::LeftOut(_) => self.called(&subscription, row, service, "committed")?,
        };
        self.shop.dismiss_guests().map_err(|error| error.to_string())?;
        let figures = Figures {
            name: row.name,
            entries: EVENTS,
            sent_bytes,
            rate_before,
            settled: outcome.is_ok(),
            handlers: 1,
            guest_bytes: limits::MEMORY.as_u64(),
            pause: self.idle_since(&dedup_keys)?,
            ..Figures::default()
        };
        Ok((self.take(figures, &dedup_keys, 0, begun)?, outcome))
    }

    /// Waits for what the log says of a plugin that is not taken.
    fn refused(&self, words: &str, since: u64) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < ROW_MAX {
            // The log writes quotes as escapes.
            if self.shop.said_since(since).replace('\\', "").contains(words) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(format!("it is not refused with \"{words}\" within {ROW_MAX:?}"))
    }

    /// Waits until its events are settled, and compares how the last attempt ended.
    fn called(
        &self,
        subscription: &Subscription,
        row: &HostileGuest,
        service: &Service,
        wanted: &str,
    ) -> Result<Result<(), String>, String> {
        self.shop.ask(&row.data(service), EVENTS)?;
        let begun = Instant::now();
        loop {
            let status = self.shop.status(subscription)?;
            if status.committed + status.dead >= EVENTS {
                break;
            }
            if begun.elapsed() > ROW_MAX {
                return Ok(Err(format!("it is not stopped within {ROW_MAX:?}: {status:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let letters = self.shop.letters_after(subscription, None)?;
        let last = letters.last().and_then(|letter| letter.history.last()).map(|record| record.class.clone());
        let class = last.unwrap_or_else(|| "committed".to_owned());
        let fits = wanted.split('|').any(|one| class == one);
        Ok(if fits { Ok(()) } else { Err(format!("it ended as \"{class}\" instead of \"{wanted}\"")) })
    }

    /// How long the neighbours got nothing, if that is so; a row of a hostile guest is short.
    fn idle_since(&self, dedup_keys: &super::Marks) -> Result<Duration, String> {
        Ok(if self.settled()? > dedup_keys.settled { Duration::ZERO } else { dedup_keys.begun.elapsed() })
    }
}
