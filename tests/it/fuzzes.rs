//! A short run of each fuzz target. `TIDEMILL_SEED` repeats one; `cargo xtask fuzz` runs them for minutes.

use std::time::Duration;

use tidemill_testkit::fuzz::{NAMES, Target, Until, fuzz, target};

const UNTIL: Until = Until { time: Duration::from_secs(2), executions: u64::MAX };

fn seed() -> u64 {
    std::env::var("TIDEMILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

#[test]
fn no_changed_input_makes_the_host_panic_or_break_its_word() {
    eprintln!("seed: {}", seed());
    let folder = tempfile::tempdir().expect("a folder");
    for name in NAMES {
        let mut target = target(name, folder.path()).expect("a target");
        let seeds = target.seeds.len() as u64;
        let ran = fuzz(&mut target, seed(), UNTIL, false);
        eprintln!("{ran}");
        let panics: Vec<_> =
            ran.crashes.iter().map(|crash| (&crash.panic, String::from_utf8_lossy(&crash.input))).collect();
        assert!(panics.is_empty(), "{name}: {panics:?}");
        assert!(ran.executions > seeds, "{name}: nothing was changed");
    }
}

/// The fuzzer itself: a fault behind three conditions is found, and its input is made small.
#[test]
fn the_fuzzer_finds_what_is_hidden_and_makes_it_small() {
    let run = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return "not JSON".to_owned() };
        let Some(kind) = value.get("kind").and_then(serde_json::Value::as_str) else { return "no kind".to_owned() };
        assert!(!kind.contains("deep"), "found");
        format!("kind of {}", if kind.is_empty() { "nothing" } else { "something" })
    };
    let seeds = vec![br#"{"a":["kind","long enough to be cut down"],"b":{"c":[1,2,3]},"kind":""}"#.to_vec()];
    let (words, run) = (&["kind", "deep"][..], Box::new(run));
    let mut target = Target { name: "planted", seeds, words, make: None, bounds: None, run };
    let ran = fuzz(&mut target, 7, Until { time: Duration::from_secs(3), executions: u64::MAX }, false);
    assert_eq!(ran.crashes.len(), 1, "{ran}");
    assert!(ran.crashes[0].panic.contains("found"), "{}", ran.crashes[0].panic);
    let small = String::from_utf8_lossy(&ran.crashes[0].input);
    assert!(small.contains("deep") && small.len() < 45, "{small}");
}
