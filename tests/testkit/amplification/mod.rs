//! Amplification: what a byte that somebody sends costs the host, its log, its dead letters, its backend and its neighbours.
//! The example shop with little memory, bombs at the bounds, and good orders beside them all the time.

mod bombs;
mod corpus;
pub mod figures;
mod neighbours;
mod shop;
mod watched;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidemill_core::model::delivery::EntryId;

use crate::hostile_guests::HOSTILE_GUESTS;
use bombs::{ROWS, Row};
use figures::Figures;
use neighbours::Neighbours;
use shop::{Counters, Shop};
use watched::Watched;

/// No row should take this long to be settled, nor what is left at the end.
const ROW_MAX: Duration = Duration::from_secs(120);
/// How often the counters are read meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Dead letters that a subscription keeps: fewer than one row of junk has.
const DEAD_LETTERS_MAX: u64 = 10_000;
const DEAD_LETTERS_MAX_SHORT: u64 = 2_000;

#[derive(Debug, Clone)]
pub struct Plan {
    pub sqlite: bool,
    /// What a host may take, in bytes.
    pub memory_bytes: u64,
    /// Passes over all rows are begun until then. At least one is made.
    pub length: Duration,
    pub seed: u64,
    /// One pass, over fewer and smaller rows, without the hostile guests.
    pub short: bool,
    /// Only the rows of these names; empty: all.
    pub only: Vec<String>,
}

/// How it went.
pub struct Outcome {
    pub figures: Vec<Figures>,
    /// What a host takes with good orders alone, in KiB.
    pub base_kib: u64,
    /// Each bound that was broken, by which row.
    pub broken: Vec<String>,
    /// What the last host said at its end.
    pub last_words: String,
}

/// How it stood before a row.
struct Marks {
    begun: Instant,
    counters: Counters,
    deaths: u64,
    memory_kib: u64,
    size_bytes: u64,
    log_bytes: u64,
    settled: u64,
}

struct Field {
    plan: Plan,
    shop: Shop,
    host: Watched,
    base_kib: u64,
    /// The last dead letters that were read, by subscription.
    letters: BTreeMap<String, EntryId>,
}

/// The names of all rows: of the bombs, and of the hostile guests.
pub fn row_names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name).chain(HOSTILE_GUESTS.iter().map(|row| row.name))
}

/// Runs it; an error says what kept it from being run.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let shop = Shop::open(plan.sqlite, if plan.short { DEAD_LETTERS_MAX_SHORT } else { DEAD_LETTERS_MAX })?;
    let host = shop.host(plan.memory_bytes);
    let neighbours = Neighbours::start(&shop)?;
    let mut field = Field { plan: plan.clone(), shop, host, base_kib: 0, letters: BTreeMap::new() };
    // All its handlers have worked by then.
    field.rate(field.quiet() * 2)?;
    field.base_kib = field.host.memory_kib();
    field.shop.letters(&mut field.letters)?;
    let begun = Instant::now();
    let (mut figures, mut pass, mut broken) = (Vec::new(), 0, Vec::new());
    if !plan.short {
        field.corpus(&mut figures, &mut broken)?;
    }
    'run: loop {
        for (at, row) in ROWS.iter().enumerate().filter(|(_, row)| plan.takes(row)) {
            let mut rng = StdRng::seed_from_u64(plan.seed.wrapping_add((pass * ROWS.len() + at) as u64));
            let row = field.row(row, &mut rng)?;
            let settled = row.settled;
            figures.push(row);
            // What follows would be blamed for what this one left.
            if !settled || (pass > 0 && begun.elapsed() > plan.length) {
                break 'run;
            }
        }
        pass += 1;
        if plan.short || begun.elapsed() > plan.length || !ROWS.iter().any(|row| plan.takes(row)) {
            break;
        }
    }
    broken.extend(figures.iter().flat_map(Figures::broken));
    let sent = neighbours.stop(&field.shop)?;
    broken.extend(field.balance()?);
    broken.extend(sent.missing(&field.shop)?);
    let Field { shop, host, base_kib, .. } = field;
    broken.extend(host.end().err());
    Ok(Outcome { figures, base_kib, broken, last_words: shop.last_words() })
}

impl Plan {
    fn takes(&self, row: &Row) -> bool {
        self.count(row) > 0 && self.wants(row.name)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }

    fn count(&self, row: &Row) -> usize {
        if self.short { row.short } else { row.count }
    }
}

impl Field {
    /// How long the neighbours are measured alone, before each row.
    fn quiet(&self) -> Duration {
        Duration::from_millis(if self.plan.short { 300 } else { 1_000 })
    }

    fn row(&mut self, row: &Row, rng: &mut StdRng) -> Result<Figures, String> {
        let rate_before = self.rate(self.quiet())?;
        let dedup_keys = self.dedup_keys()?;
        let (count, make, mut on_orders) = (self.plan.count(row), row.make, 0);
        let bombs = (0..count).map(|number| make(rng, number));
        let sent_bytes = self.shop.send(bombs.inspect(|bomb| on_orders += u64::from(bomb.stream != bombs::UNIONS)))?;
        let mut figures =
            Figures { name: row.name, entries: count as u64, sent_bytes, rate_before, ..Figures::default() };
        self.wait(&mut figures)?;
        figures.handlers = if on_orders == 0 { 1 } else { 4 };
        self.take(figures, &dedup_keys, on_orders, dedup_keys.begun)
    }

    fn dedup_keys(&self) -> Result<Marks, String> {
        self.host.forget_peak();
        Ok(Marks {
            begun: Instant::now(),
            counters: self.shop.counters()?,
            deaths: self.host.deaths(),
            memory_kib: self.host.memory_kib(),
            size_bytes: self.shop.size_bytes()?,
            log_bytes: self.shop.log_bytes(),
            settled: self.settled()?,
        })
    }

    /// What is there now, beside the deduplication keys; so many of what was settled were bombs.
    fn take(&mut self, figures: Figures, dedup_keys: &Marks, bombs: u64, begun: Instant) -> Result<Figures, String> {
        let took = begun.elapsed();
        let neighbours = (self.settled()? - dedup_keys.settled).saturating_sub(bombs);
        let after = self.shop.counters()?;
        let peak_kib = self.host.peak_kib();
        let letters = self.shop.letters(&mut self.letters)?;
        Ok(Figures {
            took,
            rate_during: neighbours as f64 / dedup_keys.begun.elapsed().as_secs_f64(),
            refusals: after.turned_away.saturating_sub(dedup_keys.counters.turned_away),
            growth_bytes: self.shop.size_bytes()?.saturating_sub(dedup_keys.size_bytes),
            log_bytes: self.shop.log_bytes() - dedup_keys.log_bytes,
            fetch_bytes_max: self.shop.fetch_bytes_max,
            peak_bytes: peak_kib.saturating_sub(self.base_kib) * 1024,
            taken_bytes: peak_kib.saturating_sub(dedup_keys.memory_kib) * 1024,
            deaths: self.host.deaths() - dedup_keys.deaths,
            by_class: letters.by_class,
            letter_bytes_max: letters.bytes_max,
            letter_extra_bytes_max: letters.extra_bytes_max,
            ..figures
        })
    }

    /// Until all that was there when it was called is settled; retries come later.
    fn wait(&self, figures: &mut Figures) -> Result<(), String> {
        let begun = Instant::now();
        let (mut settled, mut moved) = (self.settled()?, begun);
        while begun.elapsed() < ROW_MAX {
            std::thread::sleep(LOOK_EVERY);
            let waited = begun.elapsed();
            let mut left = false;
            for subscription in self.shop.targets() {
                let status = self.shop.status(subscription)?;
                left |= status.oldest_age.is_some_and(|age| age >= waited);
                figures.quarantined = figures.quarantined.max(status.quarantined);
            }
            let now = self.settled()?;
            figures.pause = figures.pause.max(moved.elapsed());
            if now > settled {
                (settled, moved) = (now, Instant::now());
            }
            if !left {
                figures.settled = true;
                break;
            }
        }
        Ok(())
    }

    /// What the notification service is done with.
    fn settled(&self) -> Result<u64, String> {
        let subscription = self.shop.targets().find(|subscription| &*subscription.handler == "notification-service");
        let status = self.shop.status(subscription.ok_or("the shop has no notification service")?)?;
        Ok(status.committed + status.skipped + status.dead + status.dropped)
    }

    /// Good orders that it settles in a second.
    fn rate(&self, time: Duration) -> Result<f64, String> {
        let (begun, before) = (Instant::now(), self.settled()?);
        std::thread::sleep(time);
        Ok((self.settled()? - before) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Waits until nothing waits any more; what is wrong with the counters then.
    fn balance(&self) -> Result<Vec<String>, String> {
        let give_up = Instant::now() + ROW_MAX;
        while self.shop.counters()?.waiting > 0 && Instant::now() < give_up {
            std::thread::sleep(LOOK_EVERY);
        }
        let mut found = Vec::new();
        for subscription in &self.shop.subscriptions {
            let status = self.shop.status(subscription)?;
            if !status.balances() || status.waiting() > 0 || status.torn > 0 {
                found
                    .push(format!("{subscription}: the counters do not balance, or something still waits: {status:?}"));
            }
        }
        Ok(found)
    }
}
