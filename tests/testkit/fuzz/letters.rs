//! Records of attempts at their bounds: as many as retries allow, with reasons and log lines of every size. What is kept of
//! them is bounded, written and read the same, and ends with the newest.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::plain_text::PlainText;
use tidemill_storage::wire;
use tidemill_storage::wire::{ATTEMPTS_KEPT, HISTORY_BYTES_MAX};

use super::Target;
use super::cost::Bounds;
use crate::chance::{size, text};

/// Retries that can be configured (`RETRIES_MAX`), reasons and lines in bytes.
const ATTEMPTS_MAX: usize = 1_000;
const REASON_BYTES: usize = 8 << 10;
const LINE_BYTES: usize = 2 << 10;
const LINES: usize = 10;

const BOUNDS: Bounds = Bounds {
    memory_per_byte: 0,
    memory_anyway_bytes: 64 << 20,
    time_per_byte: Duration::ZERO,
    time_anyway: Duration::from_secs(2),
};

/// Its inputs are seeds: each makes one delivery's attempts.
pub(super) fn letters() -> Target {
    let run = |input: &[u8]| {
        let mut seed = [0; 8];
        seed.iter_mut().zip(input).for_each(|(to, from)| *to = *from);
        history(&mut StdRng::seed_from_u64(u64::from_le_bytes(seed)))
    };
    let make = |rng: &mut StdRng| rng.random::<[u8; 8]>().to_vec();
    let seeds = vec![vec![0; 8]];
    Target { name: "letters", seeds, words: &[], make: Some(Box::new(make)), bounds: Some(BOUNDS), run: Box::new(run) }
}

/// Attempt after attempt as a host writes them: what was kept is read, one more is added.
fn history(rng: &mut StdRng) -> String {
    let attempts = if rng.random_range(0..50) == 0 { size(rng, ATTEMPTS_MAX) } else { size(rng, 50) }.max(1);
    let (reason_bytes, line_bytes) = (size(rng, REASON_BYTES), size(rng, LINE_BYTES));
    let mut written = String::new();
    for attempt in 1..=attempts as u32 {
        let mut kept = wire::read_history(written.as_bytes());
        kept.push(AttemptRecord {
            attempt,
            at_ms: rng.random(),
            class: "failed".to_owned(),
            reason: PlainText::from(text(rng, reason_bytes)).as_str().to_owned(),
            plugin: "0123456789ab".to_owned(),
            log: (0..size(rng, LINES)).map(|_| text(rng, line_bytes)).collect(),
        });
        written = wire::write_history(&kept);
        assert!(written.len() <= HISTORY_BYTES_MAX, "records of {} bytes after attempt {attempt}", written.len());
    }
    let kept = wire::read_history(written.as_bytes());
    assert!(kept.len() <= 2 * ATTEMPTS_KEPT, "{} records", kept.len());
    assert_eq!(wire::write_history(&kept), written, "what is read is what was written");
    assert_eq!(kept.last().map(|record| record.attempt), Some(attempts as u32), "the newest is there");
    assert_eq!(kept.first().map(|record| record.attempt), Some(1), "so is the first");
    format!("{} records of {} bytes", kept.len().ilog2(), written.len().ilog2())
}
