//! The producer's log: JSON Lines. A line before each publish says what is sent, a line after it what came of it.
//!
//! ```text
//! {"sent":7,"id":"..","key":"k3","amount":5,"mode":"ok","fail_times":0}
//! {"acknowledged":7}      or {"unknown":7}, or no line at all: nobody knows
//! ```
//! An event may be sent several times under one id.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One event of the producer, by its number.
#[derive(Debug, Clone, Default)]
pub struct Input {
    pub id: String,
    pub key: String,
    pub amount: i64,
    pub mode: String,
    pub fail_times: u64,
    /// Times that it was sent, and those of them that are surely on the stream.
    pub sent: u64,
    pub acknowledged: u64,
}

pub fn read(file: &Path) -> Result<BTreeMap<u64, Input>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut inputs = BTreeMap::<u64, Input>::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).map_err(|error| format!("{}: {error}: {line}", file.display()))?;
        if let Some(n) = line["sent"].as_u64() {
            let input = inputs.entry(n).or_default();
            input.sent += 1;
            input.id = text_of(&line["id"]);
            input.key = text_of(&line["key"]);
            input.amount = line["amount"].as_i64().unwrap_or_default();
            input.mode = text_of(&line["mode"]);
            input.fail_times = line["fail_times"].as_u64().unwrap_or_default();
        } else if let Some(n) = line["acknowledged"].as_u64() {
            inputs.entry(n).or_default().acknowledged += 1;
        }
    }
    Ok(inputs)
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
