//! The judgement: inputs on one side, what the store holds on the other.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::Value;

use super::{Found, Input, Report, event_id};

/// What the workload was run under.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Tries of one delivery, the first one included.
    pub attempts_max: u64,
    /// Hosts that have to die with a delivery before it may be given up for that.
    pub crashes_max: u64,
    /// Nothing may wait any more.
    pub at_rest: bool,
    /// Dead letters were replayed: how often something was put off follows from nothing.
    pub replays: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { attempts_max: 4, crashes_max: 3, at_rest: true, replays: false }
    }
}

/// One emitted event.
struct Booked {
    n: u64,
    key: String,
    amount: i64,
    count: u64,
    sum: i64,
    attempt: u64,
}

pub fn judge(inputs: &BTreeMap<u64, Input>, found: &Found, terms: Terms) -> Report {
    let mut judge =
        Judge { inputs, found, terms, booked: Vec::new(), places: HashMap::new(), report: Report::default() };
    judge.read_emitted();
    judge.place_all();
    judge.every_input_is_in_one_place();
    judge.committed_are_as_their_inputs();
    judge.dead_deserve_it();
    judge.keys_add_up();
    judge.counters_agree();
    judge.report
}

struct Judge<'a> {
    inputs: &'a BTreeMap<u64, Input>,
    found: &'a Found,
    terms: Terms,
    booked: Vec<Booked>,
    /// Event id -> where it is, once for each time that it is there.
    places: HashMap<String, Vec<&'static str>>,
    report: Report,
}

impl Judge<'_> {
    fn violation(&mut self, text: impl fmt::Display) {
        self.report.violations.push(text.to_string());
    }

    fn read_emitted(&mut self) {
        let mut ids = HashMap::new();
        for body in &self.found.emitted {
            let event: Value = serde_json::from_slice(body).unwrap_or_default();
            let data = &event["data"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let booked = Booked {
                n: data["n"].as_u64().unwrap_or(u64::MAX),
                key: text(&data["key"]),
                amount: data["amount"].as_i64().unwrap_or_default(),
                count: data["count"].as_u64().unwrap_or_default(),
                sum: data["sum"].as_i64().unwrap_or_default(),
                attempt: data["attempt"].as_u64().unwrap_or_default(),
            };
            let (id, cause) = (text(&event["event_id"]), text(&event["causation_id"]));
            if let Some(other) = ids.insert(id.clone(), booked.n) {
                self.violation(format_args!("emitted twice: event {id} of input {} and input {other}", booked.n));
            }
            match self.inputs.get(&booked.n) {
                None => self.violation(format_args!("emitted from nowhere: {}", String::from_utf8_lossy(body))),
                Some(input) if input.id != cause => {
                    self.violation(format_args!("input {}: emitted by event {cause}, sent as {}", booked.n, input.id));
                }
                Some(_) => self.places.entry(cause).or_default().push("committed"),
            }
            self.booked.push(booked);
        }
        self.report.committed = self.booked.len();
    }

    fn place_all(&mut self) {
        let found = self.found;
        for waiting in &found.waiting {
            match waiting.body.as_deref().and_then(event_id) {
                Some(id) => self.places.entry(id).or_default().push(waiting.place),
                None => self.violation(format_args!("{} {}: there is no event any more", waiting.place, waiting.entry)),
            }
            if waiting.place == "quarantined" {
                self.report.quarantined += 1;
            } else {
                self.report.waiting += 1;
            }
        }
        if self.terms.at_rest && !found.waiting.is_empty() {
            let places: Vec<_> = found.waiting.iter().map(|waiting| (waiting.place, &waiting.entry)).take(10).collect();
            self.violation(format_args!("{} still wait, such as {places:?}", found.waiting.len()));
        }
        for dead in &found.dead {
            match event_id(&dead.body) {
                Some(id) => self.places.entry(id).or_default().push("dead"),
                None => self.violation(format_args!("a dead letter without an event: {}: {}", dead.class, dead.text)),
            }
        }
        self.report.dead = found.dead.len();
        self.report.poison = found.dead.iter().filter(|dead| dead.class == "poison").count();
    }

    fn every_input_is_in_one_place(&mut self) {
        self.report.inputs = self.inputs.len();
        let (mut again, mut doubled) = (0, Vec::new());
        for (n, input) in self.inputs {
            let places = self.places.remove(&input.id).unwrap_or_default();
            let commits = places.iter().filter(|place| **place == "committed").count();
            if input.acknowledged == 0 {
                self.report.unknown += 1;
            }
            if places.is_empty() && input.acknowledged > 0 {
                self.violation(format_args!(
                    "lost: input {n} ({} {}) was acknowledged and is nowhere",
                    input.mode, input.id
                ));
            }
            let more = (places.len() as u64).saturating_sub(input.sent);
            if more > 0 || commits > 1 {
                let said =
                    format!("doubled: input {n} ({}) was sent {} times and is {places:?}", input.mode, input.sent);
                // The inbox knows what was committed. What died is in none, and dies again if a stranger brings it back.
                if commits > 1 {
                    self.violation(format_args!("{said}"));
                } else {
                    again += more;
                    doubled.push(said);
                }
            }
        }
        if again > self.found.counters.repeated {
            doubled.iter().for_each(|said| self.violation(format_args!("{said}")));
        }
        let strangers: Vec<_> = self.places.drain().take(10).collect();
        if !strangers.is_empty() {
            self.violation(format_args!("events that nobody sent: {strangers:?}"));
        }
    }

    fn committed_are_as_their_inputs(&mut self) {
        for booked in std::mem::take(&mut self.booked) {
            if let Some(input) = self.inputs.get(&booked.n) {
                let Booked { n, key, amount, attempt, .. } = &booked;
                if (key, *amount) != (&input.key, input.amount) {
                    self.violation(format_args!(
                        "input {n}: emitted {key} {amount}, sent {} {}",
                        input.key, input.amount
                    ));
                }
                match self.attempt_that_commits(input) {
                    None => self.violation(format_args!("input {n} ({}) was committed and never may", input.mode)),
                    Some(right) if right != *attempt && !self.terms.replays => self.violation(format_args!(
                        "input {n} ({}): committed at attempt {attempt}, its mode asks for {right}",
                        input.mode
                    )),
                    Some(_) => {}
                }
            }
            self.booked.push(booked);
        }
    }

    /// The attempt at which an input commits, if it ever does.
    fn attempt_that_commits(&self, input: &Input) -> Option<u64> {
        match input.mode.as_str() {
            "ok" | "slow" => Some(1),
            "fail" if input.fail_times < self.terms.attempts_max => Some(input.fail_times + 1),
            _ => None,
        }
    }

    fn dead_deserve_it(&mut self) {
        let by_id: HashMap<&str, &Input> = self.inputs.values().map(|input| (input.id.as_str(), input)).collect();
        for dead in &self.found.dead {
            let Some(input) = event_id(&dead.body).and_then(|id| by_id.get(id.as_str()).copied()) else { continue };
            let deserved = match dead.class.as_str() {
                "poison" => dead.crashes >= self.terms.crashes_max,
                "rejected" => input.mode == "reject" && dead.attempts == 1,
                "exhausted" => {
                    input.mode != "reject"
                        && self.attempt_that_commits(input).is_none()
                        && dead.attempts == self.terms.attempts_max
                }
                _ => false,
            };
            if !deserved {
                self.violation(format_args!(
                    "dead without need: {} ({}) as {} after {} attempts and {} crashes: {}",
                    input.id, input.mode, dead.class, dead.attempts, dead.crashes, dead.text
                ));
            }
        }
    }

    fn keys_add_up(&mut self) {
        let mut keys: BTreeMap<&str, Vec<&Booked>> = BTreeMap::new();
        for booked in &self.booked {
            keys.entry(&booked.key).or_default().push(booked);
        }
        let mut violations = Vec::new();
        for (key, booked) in &mut keys {
            booked.sort_by_key(|booked| booked.count);
            let mut sum = 0;
            for (at, booked) in booked.iter().enumerate() {
                sum += booked.amount;
                if (booked.count, booked.sum) != (at as u64 + 1, sum) {
                    let (n, count) = (booked.n, booked.count);
                    violations.push(format!(
                        "key {key}: input {n} is number {count} with sum {}, by replay it is number {} with {sum}",
                        booked.sum,
                        at + 1
                    ));
                    break;
                }
            }
            let state = self.found.state.get(*key).copied().unwrap_or_default();
            if state != (booked.len() as u64, sum) {
                violations.push(format!("key {key}: its state is {state:?}, by replay {:?}", (booked.len(), sum)));
            }
        }
        let idle = self.found.state.iter().filter(|(key, _)| !keys.contains_key(key.as_str()));
        violations.extend(idle.map(|(key, state)| format!("key {key}: has the state {state:?} and no commit")));
        self.report.violations.append(&mut violations);
    }

    fn counters_agree(&mut self) {
        let has = self.found.counters;
        self.report.counters = has;
        let (committed, dead) = (self.found.emitted.len() as u64, self.found.dead.len() as u64);
        let settled = has.committed + has.skipped + dead + has.dropped + has.strayed + self.found.waiting.len() as u64;
        let acknowledged: u64 = self.inputs.values().map(|input| input.acknowledged).sum();
        let sent: u64 = self.inputs.values().map(|input| input.sent).sum();
        let copies: u64 = self.inputs.values().map(|input| input.sent - 1).sum();
        let (least, most) = self.retries();
        let most = most + has.repeated * (self.terms.attempts_max - 1);
        let rules = [
            ("committed is the number of events emitted", has.committed == committed),
            (
                "published lies between what was acknowledged and what was sent",
                (acknowledged..=sent).contains(&has.published),
            ),
            ("published is the sum of what became of it", has.published + has.repeated == settled),
            ("only repetitions are skipped", has.skipped == has.duplicates && has.skipped <= copies + has.repeated),
            ("nothing is dropped, nor lost to strangers", has.dropped + has.strayed == 0),
            ("nothing is torn", has.torn == 0),
            ("retried is what the modes ask for", self.terms.replays || (least..=most).contains(&has.retried)),
        ];
        for (rule, holds) in rules {
            if !holds {
                self.violation(format_args!(
                    "counters: {rule}, but {has:?}; emitted {committed}, dead {dead}, acknowledged {acknowledged}, sent {sent}, retries {least}..={most}"
                ));
            }
        }
    }

    /// How often anything can have been put off: at least, at most.
    fn retries(&self) -> (u64, u64) {
        let mut most_by_mode = 0;
        for input in self.inputs.values() {
            let once = match input.mode.as_str() {
                "fail" => input.fail_times.min(self.terms.attempts_max - 1),
                "always-fail" | "trap" | "hang" => self.terms.attempts_max - 1,
                _ => 0,
            };
            most_by_mode += once * input.sent;
        }
        let committed = self.booked.iter().map(|booked| booked.attempt - 1).sum::<u64>();
        let dead = self.found.dead.iter().filter(|dead| dead.class == "exhausted");
        (committed + dead.map(|dead| dead.attempts - 1).sum::<u64>(), most_by_mode)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, unknown, committed, dead, poison, quarantined, waiting, counters, violations } = self;
        write!(f, "{inputs} inputs ({unknown} unknown): {committed} committed, {} duplicates, ", counters.duplicates)?;
        write!(f, "{} retries, {dead} dead ({poison} poison), {quarantined} quarantined, ", counters.retried)?;
        write!(f, "{waiting} waiting; violations: {}", violations.len())?;
        violations.iter().take(20).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}
