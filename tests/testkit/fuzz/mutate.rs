//! Changes an input at random: bytes, numbers, words that mean something, pieces of other inputs; and what is JSON also as
//! JSON, so that what comes out is often well-formed and wrong only where it matters.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Inputs are cut to this: what is longer is only slower.
const BYTES_MAX: usize = 256 << 10;
/// How deep a value is wrapped: beyond what a JSON reader follows.
const DEPTH: usize = 200;

pub(super) struct Mutator {
    rng: StdRng,
    words: &'static [&'static str],
}

type Change = fn(&mut Mutator, &mut Vec<u8>, &[u8]);

const CHANGES: [Change; 8] = [
    |mutator, bytes, _| {
        let (at, bit) = (mutator.place(bytes), mutator.rng.random_range(0..8));
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
    },
    |mutator, bytes, _| {
        let (at, new) = (mutator.place(bytes), mutator.rng.random());
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = new);
    },
    |mutator, bytes, _| {
        let word = mutator.word().to_owned();
        mutator.put(bytes, word.as_bytes());
    },
    |mutator, bytes, _| drop(bytes.drain(mutator.piece(bytes))),
    |mutator, bytes, _| {
        let piece = bytes[mutator.piece(bytes)].to_vec();
        let piece = piece.repeat(mutator.rng.random_range(1..4));
        mutator.put(bytes, &piece);
    },
    |mutator, bytes, other| {
        let piece = &other[mutator.piece(other)];
        mutator.put(bytes, piece);
    },
    // The head of one and the tail of another.
    |mutator, bytes, other| {
        bytes.truncate(mutator.place(bytes));
        bytes.extend_from_slice(&other[mutator.place(other)..]);
    },
    // A length or a count: little endian, or LEB128 as WebAssembly writes it.
    |mutator, bytes, _| {
        let number = mutator.number();
        let written = match mutator.rng.random_range(0..4) {
            0 => number.to_le_bytes()[..1].to_vec(),
            1 => number.to_le_bytes()[..4].to_vec(),
            2 => number.to_le_bytes().to_vec(),
            _ => leb128(number),
        };
        let at = mutator.place(bytes);
        let end = (at + written.len()).min(bytes.len());
        drop(bytes.splice(at..end, written));
    },
];

impl Mutator {
    pub(super) fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), words }
    }

    /// Any number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    pub(super) fn change(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..1 << self.rng.random_range(0..4) {
            let json = if self.rng.random_bool(0.5) { serde_json::from_slice(&bytes).ok() } else { None };
            match json {
                Some(mut value) => {
                    self.change_json(&mut value);
                    bytes = value.to_string().into_bytes();
                }
                None => CHANGES[self.below(CHANGES.len())](self, &mut bytes, other),
            }
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    /// Goes down to some value and puts another one there, or takes members away, or adds some.
    fn change_json(&mut self, value: &mut Value) {
        let down = self.rng.random_bool(0.8);
        match value {
            Value::Object(members) if down && !members.is_empty() => {
                let at = self.below(members.len());
                if let Some(member) = members.values_mut().nth(at) {
                    self.change_json(member);
                }
            }
            Value::Array(items) if down && !items.is_empty() => {
                let at = self.below(items.len());
                self.change_json(&mut items[at]);
            }
            Value::Object(members) if self.rng.random_bool(0.7) => {
                if self.rng.random_bool(0.5) {
                    members.insert(self.word().to_owned(), self.value());
                } else if let Some(name) = members.keys().nth(self.below(members.len())).cloned() {
                    members.remove(&name);
                }
            }
            Value::Array(items) if self.rng.random_bool(0.7) => {
                let at = self.below(items.len());
                match items.get(at).cloned() {
                    Some(item) => items.extend(vec![item; self.below(5)]),
                    None => items.push(self.value()),
                }
            }
            Value::String(text) if self.rng.random_bool(0.7) => {
                let mut bytes = std::mem::take(text).into_bytes();
                CHANGES[self.below(CHANGES.len())](self, &mut bytes, b"/~1 \xc3\xa9\xf0\x9f\xa6\x80");
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            _ => *value = self.value(),
        }
    }

    fn value(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(self.rng.random::<bool>()),
            2 => json!(self.number()),
            3 => json!((self.number() as i64).wrapping_neg()),
            4 => json!(f64::from_bits(self.rng.random())),
            5 => json!([]),
            6 => json!({}),
            7 => json!("\u{0}\u{7f}\u{202e}\u{fffd}\u{10ffff}"),
            8 => json!("x".repeat(1 << self.below(16))),
            9 => (0..DEPTH).fold(json!(0), |inner, _| json!([inner])),
            _ => json!(self.word()),
        }
    }

    /// A number at the edge of something.
    fn number(&mut self) -> u64 {
        let edge = 1u64 << self.below(64);
        edge.wrapping_add(self.rng.random_range(0..3)).wrapping_sub(1)
    }

    fn word(&mut self) -> &'static str {
        self.words.get(self.below(self.words.len())).copied().unwrap_or("")
    }

    fn place(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len())
    }

    fn piece(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.place(bytes);
        let len = 1 << self.below(12);
        start..(start + self.below(len)).min(bytes.len())
    }

    fn put(&mut self, bytes: &mut Vec<u8>, piece: &[u8]) {
        let at = self.place(bytes);
        drop(bytes.splice(at..at, piece.iter().copied()));
    }
}

fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
