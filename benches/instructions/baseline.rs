//! The baseline: a file with the instructions of each step, and what else they depend on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};
use tidemill_benches::steps::STEPS;

/// A step may have this much more than its baseline. Less than that comes and goes: with the order of functions in the
/// program, with the keys of hash tables.
const MORE_MAX: f64 = 0.05;

#[derive(Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub rustc: String,
    pub valgrind: String,
    pub profile: String,
    /// For one event.
    pub instructions: BTreeMap<String, u64>,
}

fn file() -> PathBuf {
    tidemill_testkit::root().join("benches/instructions.json")
}

fn version(program: &str, hint: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| anyhow!("cannot run {program}: {error}\n  hint: {hint}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Baseline {
    /// What is about to be counted, here and now.
    pub(crate) fn empty() -> anyhow::Result<Self> {
        Ok(Self {
            rustc: version("rustc", "install Rust with rustup")?,
            valgrind: version("valgrind", "apt-get install valgrind, or the like of it")?,
            profile: format!("{}, opt-level {}", env!("PROFILE"), env!("OPT_LEVEL")),
            instructions: BTreeMap::new(),
        })
    }

    pub(crate) fn load() -> anyhow::Result<Self> {
        let file = file();
        let text = std::fs::read(&file).map_err(|error| {
            anyhow!("cannot read {}: {error}\n  hint: `cargo xtask instructions --save` writes it", file.display())
        })?;
        serde_json::from_slice(&text).with_context(|| file.display().to_string())
    }

    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))
    }

    /// One row for each step that was counted, in the order of the pipeline.
    pub(crate) fn table(&self, baseline: Option<&Self>) {
        println!("{:<24} {:>12} {:>12} {:>7}", "instructions an event", "baseline", "now", "ratio");
        for step in STEPS {
            let Some(now) = self.instructions.get(step.name) else { continue };
            let before = baseline.and_then(|baseline| baseline.instructions.get(step.name));
            let ratio = before.map_or_else(|| "-".to_owned(), |before| format!("{:.3}", ratio(*before, *now)));
            let before = before.map_or_else(|| "-".to_owned(), u64::to_string);
            println!("{:<24} {before:>12} {now:>12} {ratio:>7}", step.name);
        }
    }

    /// Whether no step has more than it may.
    pub(crate) fn compare(&self, baseline: &Self, all: bool) -> anyhow::Result<bool> {
        let (here, there) = (&self.profile, &baseline.profile);
        ensure!(
            here == there,
            "counted in the profile `{here}`, the baseline in `{there}`\n  hint: unset CARGO_PROFILE_DEV_OPT_LEVEL"
        );
        for (here, there) in [(&self.rustc, &baseline.rustc), (&self.valgrind, &baseline.valgrind)] {
            if here != there {
                eprintln!("note: this is {here}, the baseline comes from {there}: compare with `--save` on your base");
            }
        }
        let mut good = true;
        for (name, now) in &self.instructions {
            match baseline.instructions.get(name) {
                None => {
                    eprintln!("{name} has no baseline\n  hint: `cargo xtask instructions --save` writes one");
                    good = false;
                }
                Some(before) if ratio(*before, *now) > 1.0 + MORE_MAX => {
                    let more = 100.0 * (ratio(*before, *now) - 1.0);
                    eprintln!(
                        "{name} takes {more:.0} % more than its baseline\n  hint: `callgrind_annotate \
                         target/debug/callgrind/{name}.out` says where; `--save` if it is worth it"
                    );
                    good = false;
                }
                Some(_) => {}
            }
        }
        for gone in baseline.instructions.keys().filter(|name| all && !self.instructions.contains_key(*name)) {
            eprintln!("the baseline has {gone}, which is no step any more\n  hint: write it anew with `--save`");
            good = false;
        }
        Ok(good)
    }
}

fn ratio(before: u64, now: u64) -> f64 {
    now as f64 / before.max(1) as f64
}
