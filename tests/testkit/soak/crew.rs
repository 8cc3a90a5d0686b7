//! The hosts at work. A host that is gone is replaced; each death is watched until its deliveries are in others' worker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidemill_process::fault::POINTS;
use tidemill_process::tasks::{End, Task};

use super::Only;
use super::recovery::Watch;
use crate::ledger::Ledger;
use crate::ledger::host::{Host, Odd};

const HOSTS: usize = 2;
/// Between two looks at the hosts.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// One host in so many is started to die at a fault point, at one of its first so many passages.
const DOOMED_IN: u32 = 3;
const PASSAGES_MAX: u32 = 40;
/// Of the others, one in so many has a task or thread that panics, and of all one in so many has a full disk under its log.
const PANICS_IN: u32 = 4;
const MUTE_IN: u32 = 6;
/// One in so many goes by each of the other configurations.
const UNLIKE_IN: u32 = 6;
/// Draining takes two deadlines and a margin; with a backend that stands still, its patience comes on top.
const DRAIN_MAX: Duration = Duration::from_secs(90);

/// What may be odd with a host that is hired.
pub(super) const ODDITIES: [&str; 5] = [DOOMED, PANICS, MUTE, UNLIKE_WINDOW, UNLIKE_EVENTS];
const DOOMED: &str = "host that dies at a fault point";
const PANICS: &str = "host with panics";
const MUTE: &str = "host with full disk";
const UNLIKE_WINDOW: &str = "host with another window";
const UNLIKE_EVENTS: &str = "host with other events";

pub(super) struct Crew {
    ledger: Arc<Ledger>,
    rng: StdRng,
    only: Only,
    places: Vec<Place>,
    /// Configurations that are not like the others'.
    unlike: [PathBuf; 2],
    watches: Vec<Watch>,
    deaths: BTreeMap<String, u32>,
    violations: Vec<String>,
}

struct Place {
    host: Host,
    /// The fault point at which it is to die.
    doom: Option<String>,
    /// Stopped until then.
    asleep: Option<Instant>,
    /// Told to go at that time.
    leaving: Option<Instant>,
    /// It wants nothing of what is published.
    narrow: bool,
}

impl Crew {
    pub(super) fn new(ledger: Arc<Ledger>, seed: u64, only: Only) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let (places, watches, deaths) = (Vec::new(), Vec::new(), BTreeMap::new());
        let unlike = [
            ledger.variant("window", ("", ""), "\n[idempotency]\nwindow = \"2h\"\n"),
            // On the same stream, and nothing that is published there.
            ledger.variant("events", ("events = [\"Test.Entry.Posted\"]", "events = [\"Test.Thing.Asked\"]"), ""),
        ];
        let mut crew = Self { ledger, rng, only, places, unlike, watches, deaths, violations: Vec::new() };
        for _ in 0..HOSTS {
            let place = crew.hire(crew.places.len());
            crew.places.push(place);
        }
        crew
    }

    /// For a place that is empty, or whose host is gone.
    fn hire(&mut self, at: usize) -> Place {
        let doom = (self.rng.random_ratio(1, DOOMED_IN) && self.only.lets(DOOMED)).then(|| {
            let point = POINTS[self.rng.random_range(0..POINTS.len())];
            format!("{point}:{}", self.rng.random_range(1..=PASSAGES_MAX))
        });
        let panics = doom.is_none() && self.rng.random_ratio(1, PANICS_IN) && self.only.lets(PANICS);
        let panic = panics.then(|| {
            let restarted: Vec<&Task> = Task::ALL.iter().filter(|task| task.end() == End::Restarted).collect();
            let task = restarted[self.rng.random_range(0..restarted.len())];
            format!("{}:{}", task.name(), self.rng.random_range(1..=PASSAGES_MAX))
        });
        let mute = self.rng.random_ratio(1, MUTE_IN) && self.only.lets(MUTE);
        // What no host wants is skipped, and rightly so: one has to want it all the time, from before the narrow one comes.
        let has_left = self.places.get(at).and_then(|place| place.leaving);
        let mut others: Vec<&mut Place> =
            self.places.iter_mut().enumerate().filter(|(other, _)| *other != at).map(|(_, place)| place).collect();
        // One that took its leave speaks for those that were silent before that: it is followed by its like.
        let others_want = has_left.is_none()
            && !others.iter().any(|place| place.narrow)
            && others.iter_mut().any(|place| place.leaving.is_none() && place.host.consumer().is_some());
        let [window, events] = &self.unlike;
        let config = match self.rng.random_range(0..UNLIKE_IN) {
            0 if self.only.lets(UNLIKE_WINDOW) => window.clone(),
            1 if others_want && self.only.lets(UNLIKE_EVENTS) => events.clone(),
            _ => self.ledger.config(),
        };
        let narrow = config == *events;
        let odd = Odd { fault: doom.clone(), panic, mute };
        for (what, is) in
            [(PANICS, odd.panic.is_some()), (MUTE, mute), (UNLIKE_WINDOW, config == *window), (UNLIKE_EVENTS, narrow)]
        {
            *self.deaths.entry(what.to_owned()).or_default() += u32::from(is);
        }
        Place { host: self.ledger.odd_host(&config, &odd), doom, asleep: None, leaving: None, narrow }
    }

    /// A host that is awake and not on its way out.
    fn pick(&mut self, rng: &mut StdRng) -> Option<usize> {
        let awake = |place: &Place| place.asleep.is_none() && place.leaving.is_none();
        let awake: Vec<usize> = (0..self.places.len()).filter(|at| awake(&self.places[*at])).collect();
        if awake.is_empty() { None } else { Some(awake[rng.random_range(0..awake.len())]) }
    }

    /// SIGKILL. Each of these answers whether there was a host to do it to.
    pub(super) fn kill_one(&mut self, rng: &mut StdRng) -> bool {
        let Some(at) = self.pick(rng) else { return false };
        let place = &mut self.places[at];
        // One that died by itself in this moment is counted as what it was.
        if place.host.exit().is_none() {
            place.doom = None;
            place.host.kill();
            self.replace(at);
        }
        true
    }

    /// SIGSTOP, and SIGCONT after that time.
    pub(super) fn stop_one(&mut self, rng: &mut StdRng, time: Duration) -> bool {
        let Some(at) = self.pick(rng) else { return false };
        let place = &mut self.places[at];
        if place.host.exit().is_none() {
            place.host.signal("STOP");
            place.asleep = Some(Instant::now() + time);
        }
        true
    }

    /// SIGTERM.
    pub(super) fn drain_one(&mut self, rng: &mut StdRng) -> bool {
        let Some(at) = self.pick(rng) else { return false };
        // Who leaves is waited for only for some seconds.
        if self.places.iter().any(|place| place.narrow) {
            return false;
        }
        let place = &mut self.places[at];
        // Before it listens to signals, one ends it, which is no drain.
        if place.host.exit().is_none() && place.host.consumer().is_some() {
            place.host.signal("TERM");
            place.leaving = Some(Instant::now());
            return true;
        }
        false
    }

    /// SIGHUP: it reads its settings again.
    pub(super) fn hang_up_one(&mut self, rng: &mut StdRng) -> bool {
        let Some(at) = self.pick(rng) else { return false };
        let place = &mut self.places[at];
        if place.host.exit().is_none() && place.host.consumer().is_some() {
            place.host.signal("HUP");
            return true;
        }
        false
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Looks after the hosts for a while: wakes who has slept long enough, replaces who is gone.
    pub(super) fn tend_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.tend();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn tend(&mut self) {
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            if place.asleep.is_some_and(|until| Instant::now() >= until) {
                place.asleep = None;
                place.host.signal("CONT");
            }
            if place.host.exit().is_some() {
                self.replace(at);
            } else if place.leaving.is_some_and(|since| since.elapsed() > DRAIN_MAX) {
                self.violations.push(format!("a host does not end {DRAIN_MAX:?} after SIGTERM"));
                place.host.kill();
            }
        }
    }

    /// Writes down how a host ended, and puts a new one in its place.
    fn replace(&mut self, at: usize) {
        let next = self.hire(at);
        let mut gone = std::mem::replace(&mut self.places[at], next);
        let Some(exit) = gone.host.exit() else { return };
        let name = gone.host.consumer();
        if gone.host.died_by_fault() && gone.doom.is_some() {
            let point = gone.doom.as_deref().and_then(|doom| doom.split(':').next()).unwrap_or_default();
            *self.deaths.entry(format!("died at {point}")).or_default() += 1;
        } else if exit.success() && gone.leaving.is_none() {
            self.violations.push("a host left without being told to".to_owned());
        } else if exit.code().is_some_and(|code| code != 0) {
            // One that never came up found its backend away; one that was at work has no excuse.
            match name {
                None => *self.deaths.entry("gave up starting".to_owned()).or_default() += 1,
                Some(_) => self.violations.push(format!("a host ended by itself: {exit}")),
            }
        }
        if let Some(name) = name.filter(|_| !exit.success()) {
            self.watches.push(Watch::start(self.ledger.clone(), name));
        }
    }

    /// All hosts are woken and told to go. Answers what was wrong with them in all this time.
    pub(super) fn end(&mut self) -> Vec<String> {
        for place in &mut self.places {
            if place.asleep.take().is_some() {
                place.host.signal("CONT");
            }
            if place.host.exit().is_none() && place.host.consumer().is_some() {
                place.host.signal("TERM");
            } else {
                place.host.kill();
            }
        }
        for place in &mut self.places {
            let exit = place.host.ends_within(DRAIN_MAX);
            let expected = exit.is_some_and(|exit| exit.success()) || exit.is_some_and(|exit| exit.code().is_none());
            if !expected {
                self.violations.push(format!("the last drain ended with {exit:?}"));
            }
        }
        std::mem::take(&mut self.violations)
    }

    pub(super) fn deaths(&mut self) -> BTreeMap<String, u32> {
        std::mem::take(&mut self.deaths)
    }

    /// How long each death took to be made good, and what never was.
    pub(super) fn recoveries(&mut self) -> (Vec<Duration>, Vec<String>) {
        let (mut times, mut never) = (Vec::new(), Vec::new());
        for watch in self.watches.drain(..) {
            match watch.end() {
                Ok(time) => times.extend(time),
                Err(what) => never.push(what),
            }
        }
        (times, never)
    }
}
