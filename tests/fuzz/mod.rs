//! The fuzzer: seeded random changes of good inputs, through the host's own functions, as fast as they go.
//!
//! It needs no nightly compiler and no second build of the host. It does not see which branches an input takes; what it
//! goes by instead is the answer: an input that gets an answer of a new kind is kept, and changed further.
//!
//! A panic is a crash. So is an answer that must not be: each target asserts what has to hold of what it gets. The input
//! is made as small as it goes and can be kept in `tests/corpus-fuzz/TARGET/`, where every later run begins with it.

mod components;
pub mod effects;
mod mutate;
mod targets;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;
pub use targets::{NAMES, target};

/// Inputs that are kept for their new answers.
const KEPT_MAX: usize = 4096;
/// A target is left after this many different crashes.
const CRASHES_MAX: usize = 10;
/// What is spent on making one input small.
const MINIMISE_MAX: Duration = Duration::from_secs(10);

/// Takes an input, and answers in words. Panics if what came out is wrong.
pub type Run = Box<dyn FnMut(&[u8]) -> String>;

/// Something that takes bytes from strangers.
pub struct Target {
    pub name: &'static str,
    /// Good inputs, to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    pub run: Run,
}

pub struct Ran {
    pub target: &'static str,
    pub executions: u64,
    pub took: Duration,
    pub kept: usize,
    pub slowest: Duration,
    pub crashes: Vec<Crash>,
}

pub struct Crash {
    /// Where it panicked, and with which words.
    pub panic: String,
    /// Made as small as it goes.
    pub input: Vec<u8>,
}

/// Runs a target: the seeds and the corpus first, then changes of them, for this long.
pub fn fuzz(target: &mut Target, seed: u64, time: Duration) -> Ran {
    quiet_panics();
    let begun = Instant::now();
    let mut mutator = Mutator::new(seed, target.words);
    let mut ran =
        Ran { target: target.name, executions: 0, took: time, kept: 0, slowest: Duration::ZERO, crashes: Vec::new() };
    let mut inputs: Vec<Vec<u8>> = target.seeds.iter().cloned().chain(corpus(target.name)).collect();
    let given = inputs.len();
    let mut answers = HashSet::new();
    for turn in 0.. {
        if ran.crashes.len() == CRASHES_MAX || (turn >= given && begun.elapsed() >= time) {
            break;
        }
        let input = if turn < given {
            inputs[turn].clone()
        } else {
            let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
            mutator.change(&inputs[one], &inputs[other])
        };
        let before = Instant::now();
        match attempt(target, &input) {
            Ok(answer) => {
                if answers.insert(outline(&answer)) && turn >= given && inputs.len() < KEPT_MAX {
                    inputs.push(input);
                    ran.kept += 1;
                }
            }
            Err(panic) if ran.crashes.iter().any(|crash| outline(&crash.panic) == outline(&panic)) => {}
            Err(panic) => {
                let input = smallest(target, input, &panic);
                ran.crashes.push(Crash { panic, input });
            }
        }
        ran.slowest = ran.slowest.max(before.elapsed());
        ran.executions += 1;
    }
    ran.took = begun.elapsed();
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

fn attempt(target: &mut Target, input: &[u8]) -> Result<String, String> {
    FUZZING.set(true);
    let answer = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    FUZZING.set(false);
    answer.map_err(|_| CAUGHT.take().unwrap_or_else(|| "a panic without words".to_owned()))
}

/// Leaves pieces out, large ones first, as long as it panics in the same way.
fn smallest(target: &mut Target, mut input: Vec<u8>, panic: &str) -> Vec<u8> {
    let begun = Instant::now();
    let mut size = input.len() / 2;
    while size > 0 && begun.elapsed() < MINIMISE_MAX {
        let mut start = 0;
        while start < input.len() && begun.elapsed() < MINIMISE_MAX {
            let mut less = input.clone();
            drop(less.drain(start..(start + size).min(input.len())));
            match attempt(target, &less) {
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
    crate::root().join("tests/corpus-fuzz").join(target)
}

impl Ran {
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
        let (crashes, kept) = (self.crashes.len(), self.kept);
        write!(
            f,
            "{:<10} {:>10} executions {per_s:>9.0}/s {kept:>5} kept, slowest {slowest} ms, {crashes} crashes",
            self.target, self.executions
        )
    }
}
