//! The guest of the fuzzer: it asks the host for whatever its event says, step by step, right or wrong, and goes on when
//! it is refused. A step that it cannot read is left out.

use serde::de::Error;
use tidemill_sdk::bindings::tidemill::plugin::types::NewEvent;
use tidemill_sdk::bindings::tidemill::plugin::{delivery, emit, logging, state};
use tidemill_sdk::prelude::*;
use tidemill_sdk::serde_json::{self, value::RawValue};

handler!(handle);

/// The largest text that a step can blow up to.
const TEXT_BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct Script<'a> {
    #[serde(borrow)]
    steps: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Emit {
        kind: Text,
        version: u32,
        key: Option<Text>,
        #[serde(default)]
        attributes: Vec<(Text, Text)>,
        data: Text,
    },
    Set(Text, Text),
    Get(Text),
    Delete(Text),
    Log(u8, Text, Text),
    Ask(Text),
    /// Calls itself that deep, each time with a kibibyte on its stack.
    Stack(u32),
    Retry(Text, Option<u64>),
    Reject(Text),
    Panic(Text),
}

fn handle(event: &Event) -> Result<(), Failure> {
    let script: Script = event.json()?;
    let steps = script.steps.iter().filter_map(|step| serde_json::from_str(step.get()).ok());
    steps.map(take).collect()
}

fn take(step: Step) -> Result<(), Failure> {
    match step {
        Step::Emit { kind, version, key, attributes, data } => {
            let attributes = attributes.into_iter().map(|(name, value)| (name.0, value.0)).collect();
            let (kind, key, data) = (kind.0, key.map(|key| key.0), data.into_bytes());
            drop(emit::emit(&NewEvent { kind, version, key, attributes, data }));
        }
        Step::Set(name, value) => drop(state::set(&name.0, &value.into_bytes())),
        Step::Get(name) => drop(state::get(&name.0)),
        Step::Delete(name) => state::delete(&name.0),
        Step::Log(level, context, message) => logging::log(level_of(level), &context.0, &message.0),
        Step::Ask(name) => drop((delivery::attribute(&name.0), config::get(&name.0), delivery::envelope())),
        Step::Stack(depth) => drop(dive(depth)),
        Step::Retry(reason, after_ms) => {
            let failure = Failure::retry(reason.0);
            return Err(after_ms.map_or(failure.clone(), |ms| failure.after(std::time::Duration::from_millis(ms))));
        }
        Step::Reject(reason) => return Err(Failure::reject(reason.0)),
        Step::Panic(reason) => panic!("{}", reason.0),
    }
    Ok(())
}

#[inline(never)]
fn dive(depth: u32) -> u8 {
    let here = std::hint::black_box([depth as u8; 1024]);
    if depth == 0 { here[0] } else { dive(depth - 1) ^ here[depth as usize % 1024] }
}

/// `"x"`, or `["x", 1000]`: that many times.
struct Text(String);

impl Text {
    /// One byte for each character below 256, so that a script can also say what is not UTF-8.
    fn into_bytes(self) -> Vec<u8> {
        let bytes: Option<Vec<u8>> = self.0.chars().map(|c| u8::try_from(c).ok()).collect();
        bytes.unwrap_or_else(|| self.0.into_bytes())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: tidemill_sdk::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Once(String),
            Times(String, usize),
        }
        match Form::deserialize(deserializer)? {
            Form::Once(text) => Ok(Self(text)),
            Form::Times(text, times) if text.len().saturating_mul(times) <= TEXT_BYTES_MAX => {
                Ok(Self(text.repeat(times)))
            }
            Form::Times(..) => Err(D::Error::custom("too long")),
        }
    }
}

fn level_of(level: u8) -> logging::Level {
    use logging::Level::{Critical, Debug, Error, Info, Trace, Warn};
    [Trace, Debug, Info, Warn, Error, Critical][usize::from(level) % 6]
}
