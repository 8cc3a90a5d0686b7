//! `tidemill state HANDLER`: what a handler remembers, key by key, a page at a time.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::out;
use super::out::outln;
use super::{Globals, UsageError};
use tidemill_core::model::delivery::{KeyState, Subscription};
use tidemill_runtime::loading;

/// Keys read in one step.
const PAGE: usize = 500;

#[derive(clap::Args)]
pub(super) struct Args {
    handler: String,

    /// Only this key.
    #[arg(long)]
    key: Option<String>,
}

pub(super) fn state(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let subscriptions: Vec<Subscription> = loading::subscriptions(&config)
        .into_iter()
        .map(|(subscription, _)| subscription)
        .filter(|subscription| *subscription.handler == *args.handler)
        .collect();
    if subscriptions.is_empty() {
        let known: Vec<&str> = config.handlers.keys().map(String::as_str).collect();
        return Err(
            UsageError(format!("there is no handler \"{}\"\n  hint: {}", args.handler, known.join(", "))).into()
        );
    }
    super::block_on(async {
        let backend = crate::backends::open_backend_to_read(&config).await?;
        for subscription in &subscriptions {
            let mut after: Option<String> = None;
            loop {
                let page = backend.states(subscription, after.as_deref(), PAGE).await?;
                for (key, state) in page.iter().filter(|(key, _)| args.key.as_ref().is_none_or(|wanted| wanted == key))
                {
                    print(subscription, key, state, globals.json);
                }
                match page.last() {
                    Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                    _ => break,
                }
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print(subscription: &Subscription, key: &str, state: &KeyState, as_json: bool) {
    let values: serde_json::Map<String, Value> =
        state.values.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect();
    if as_json {
        let (handler, stream) = (&*subscription.handler, &*subscription.stream);
        out::json(
            &json!({ "handler": handler, "stream": stream, "key": key, "version": state.version, "values": values }),
        );
    } else {
        outln!("{key} (version {}, {})", state.version, subscription.stream);
        for (name, value) in values {
            outln!("  {name} = {value}");
        }
    }
}

/// JSON as JSON, other text as text, other bytes by their length.
fn value(bytes: &[u8]) -> Value {
    let text = || std::str::from_utf8(bytes).map(Value::from).unwrap_or_else(|_| json!({ "bytes": bytes.len() }));
    serde_json::from_slice(bytes).unwrap_or_else(|_| text())
}
