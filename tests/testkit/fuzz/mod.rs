//! The fuzzer: seeded random changes of good inputs, through the host's own functions, as fast as they go.
//!
//! It needs no nightly compiler and no second build of the host. It does not see which branches an input takes; what it
//! goes by instead is the answer: an input that gets an answer of a new kind is kept, and changed further.
//!
//! A panic is a crash. So is an answer that must not be: each target asserts what has to hold of what it gets. So is an
//! answer that costs more than inputs of that size may. The input is made as small as it goes and can be kept in `tests/testkit/fuzz/corpus/TARGET/`, where every later run begins with it.

mod bounds;
mod components;
mod cost;
pub mod effects;
mod letters;
mod mutate;
mod targets;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cost::{Bounds, Largest, Meter};
use mutate::Mutator;
use rand::SeedableRng;
use rand::rngs::StdRng;
pub use targets::{NAMES, target};

/// Inputs that are kept for their new answers.
const KEPT_MAX: usize = 4096;
/// A target is left after this many different crashes.
const CRASHES_MAX: usize = 10;
/// What is spent on making one input small.
const MINIMISE_MAX: Duration = Duration::from_secs(10);

/// Makes an input at the bounds.
type Make = Box<dyn FnMut(&mut StdRng) -> Vec<u8>>;

/// Takes an input, and answers in words. Panics if what came out is wrong.
type Run = Box<dyn FnMut(&[u8]) -> String>;

/// Something that takes bytes from outside.
pub struct Target {
    pub name: &'static str,
    /// Good inputs, to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// Makes its inputs; none: good ones are changed.
    pub make: Option<Make>,
    /// What an input may cost; none: it is the target's own matter.
    pub bounds: Option<Bounds>,
    pub run: Run,
}

/// When a target is left.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    pub time: Duration,
    /// Before it, if there were so many.
    pub executions: u64,
}

pub struct Ran {
    pub target: &'static str,
    pub executions: u64,
    pub took: Duration,
    pub kept: usize,
    /// Kinds of answers.
    pub answers: usize,
    slowest: Duration,
    largest: Largest,
    pub crashes: Vec<Crash>,
}

pub struct Crash {
    /// Where it panicked, and with which words.
    pub panic: String,
    /// Made as small as it goes.
    pub input: Vec<u8>,
}

/// Runs a target: the seeds and the corpus first, then changes of them, or what it makes by itself. `alone`: nothing else
/// takes memory in this process, so that its bounds in memory are looked at too.
pub fn fuzz(target: &mut Target, seed: u64, until: Until, alone: bool) -> Ran {
    quiet_panics();
    let begun = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut mutator = Mutator::new(seed, target.words);
    let mut ran = Ran::of(target.name);
    let mut inputs: Vec<Vec<u8>> = target.seeds.iter().cloned().chain(corpus(target.name)).collect();
    let given = inputs.len();
    let mut answers = HashSet::new();
    for turn in 0.. {
        let over = begun.elapsed() >= until.time || ran.executions >= until.executions;
        if ran.crashes.len() == CRASHES_MAX || (turn >= given && over) {
            break;
        }
        let input = match &mut target.make {
            _ if turn < given => inputs[turn].clone(),
            Some(make) => make(&mut rng),
            None => {
                let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
                mutator.change(&inputs[one], &inputs[other])
            }
        };
        let before = Instant::now();
        match attempt(target, &input, alone, &mut ran.largest) {
            Ok(answer) => {
                let changed = turn >= given && target.make.is_none();
                if answers.insert(outline(&answer)) && changed && inputs.len() < KEPT_MAX {
                    inputs.push(input);
                    ran.kept += 1;
                }
            }
            Err(panic) if ran.crashes.iter().any(|crash| outline(&crash.panic) == outline(&panic)) => {}
            Err(panic) => {
                let input = smallest(target, input, &panic, alone);
                ran.crashes.push(Crash { panic, input });
            }
        }
        ran.slowest = ran.slowest.max(before.elapsed());
        ran.executions += 1;
    }
    ran.took = begun.elapsed();
    ran.answers = answers.len();
    ran
}

/// The kind of an answer: its words, without numbers and without what it quotes.
fn outline(answer: &str) -> String {
    let unquoted: String = answer.split(['"', '`']).step_by(2).collect();
    unquoted.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(80).collect()
}

thread_local! {
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static FUZZING: Cell<bool> = const { Cell::new(false) };
}

/// Panics of a thread that fuzzes are noted instead of told; those of others are told as ever.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if FUZZING.get() {
                CAUGHT.with_borrow_mut(|caught| *caught = Some(info.to_string()));
            } else {
                told(info);
            }
        }));
    });
}

fn attempt(target: &mut Target, input: &[u8], alone: bool, largest: &mut Largest) -> Result<String, String> {
    FUZZING.set(true);
    let meter = Meter::start(alone);
    let answer = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let cost = meter.cost();
    FUZZING.set(false);
    let answer = answer.map_err(|_| CAUGHT.take().unwrap_or_else(|| "a panic without words".to_owned()))?;
    largest.add(input.len(), cost);
    match target.bounds.and_then(|bounds| bounds.broken(input.len(), cost)) {
        Some(broken) => Err(broken),
        None => Ok(answer),
    }
}

/// Leaves pieces out, large ones first, as long as it panics in the same way.
fn smallest(target: &mut Target, mut input: Vec<u8>, panic: &str, alone: bool) -> Vec<u8> {
    let (begun, mut largest) = (Instant::now(), Largest::default());
    let mut size = input.len() / 2;
    while size > 0 && begun.elapsed() < MINIMISE_MAX {
        let mut start = 0;
        while start < input.len() && begun.elapsed() < MINIMISE_MAX {
            let mut less = input.clone();
            drop(less.drain(start..(start + size).min(input.len())));
            match attempt(target, &less, alone, &mut largest) {
                Err(again) if outline(&again) == outline(panic) => input = less,
                _ => start += size,
            }
        }
        size /= 2;
    }
    input
}

/// Inputs that are kept: each crashed something once, or shows a form that chance finds rarely.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(folder(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file of the corpus")).collect()
}

fn folder(target: &str) -> PathBuf {
    crate::root().join("tests/testkit/fuzz/corpus").join(target)
}

impl Ran {
    fn of(target: &'static str) -> Self {
        let (largest, crashes) = (Largest::default(), Vec::new());
        let (took, slowest) = (Duration::ZERO, Duration::ZERO);
        Self { target, executions: 0, took, kept: 0, answers: 0, slowest, largest, crashes }
    }

    /// Writes the inputs that crashed below this folder and answers where they are.
    pub fn save(&self, folder: &Path, seed: u64) -> std::io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (number, crash) in self.crashes.iter().enumerate() {
            std::fs::create_dir_all(folder)?;
            let path = folder.join(format!("{}-{seed}-{number}", self.target));
            std::fs::write(&path, &crash.input)?;
            paths.push(path);
        }
        Ok(paths)
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (per_s, slowest) = (self.executions as f64 / self.took.as_secs_f64(), self.slowest.as_millis());
        let (crashes, kept, answers) = (self.crashes.len(), self.kept, self.answers);
        let Largest { memory_bytes, memory_per_byte, time, time_per_byte } = self.largest;
        write!(
            f,
            "{:<13} {:>10} executions {per_s:>9.0}/s {kept:>5} kept {answers:>5} kinds of answers, slowest {slowest} ms; at most \
             {:.1} MiB ({memory_per_byte:.1} a byte), {:.1} ms of processor ({} ns a byte); {crashes} crashes",
            self.target,
            self.executions,
            memory_bytes as f64 / f64::from(1 << 20),
            time.as_secs_f64() * 1000.0,
            time_per_byte.as_nanos(),
        )
    }
}
