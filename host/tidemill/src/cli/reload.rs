//! `tidemill reload`, `tidemill plugin reload|rollback`: asks the running host, over `[http] listen`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use ureq::http::StatusCode;

use super::out;
use super::out::outln;
use super::{Globals, UsageError};
use tidemill_runtime::token::Token;

/// Compiling may take long, and so may draining.
const ANSWER_MAX: Duration = Duration::from_secs(600);
const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The handler, as in [handlers.HANDLER].
    handler: String,
}

pub(super) fn plugin(args: &Args, what: &str, globals: &Globals) -> anyhow::Result<ExitCode> {
    let answer = ask(&format!("/api/plugins/{}/{what}", escape(&args.handler)), globals)?;
    if globals.json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let (handler, digest, generation) = (text("handler"), text("digest"), &answer["generation"]);
    if answer["changed"] == true {
        outln!("{handler}: version {digest} serves now (generation {generation})");
    } else {
        outln!("{handler}: its file holds version {digest}, which serves already (generation {generation})");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn settings(globals: &Globals) -> anyhow::Result<ExitCode> {
    let answer = ask("/api/reload", globals)?;
    if globals.json {
        out::json(&answer);
    } else {
        outln!("configuration reloaded (generation {})", answer["generation"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the host for a change. What it refuses is refused input: exit code 2.
fn ask(path: &str, globals: &Globals) -> anyhow::Result<Value> {
    let config = globals.load()?;
    let Some(http) = &config.http else {
        let hint = "write `[http]` and `listen = \"127.0.0.1:7070\"` into the configuration, and restart the host";
        return Err(UsageError(format!("the host cannot be asked: [http] is not configured\n  hint: {hint}")).into());
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .timeout_connect(Some(CONNECT_MAX))
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .build()
        .into();
    let token = Token::read(&config.token_file());
    let mut request = agent.post(format!("http://{}{path}", http.listen));
    if let Ok(token) = &token {
        request = request.header("Authorization", format!("Bearer {}", token.expose()));
    }
    let mut answer = match request.send_empty() {
        Ok(answer) => answer,
        Err(error) => bail!(
            "no host answers at {}: {error}\n  hint: is `tidemill run` up with this configuration? SIGHUP reloads without [http]",
            http.listen
        ),
    };
    if answer.status() == StatusCode::UNAUTHORIZED {
        // Why there is none to send says more than the host can know.
        token.map_err(|error| UsageError(error.to_string()))?;
    }
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if answer.status().is_success() {
        return Ok(value);
    }
    let what = value["error"].as_str().unwrap_or(&text).to_owned();
    match value["hint"].as_str().filter(|hint| !hint.is_empty()) {
        Some(hint) => Err(UsageError(format!("{what}\n  hint: {hint}")).into()),
        None => Err(UsageError(what).into()),
    }
}

/// As a part of a path: everything but letters, digits and `-_.~` as `%XX`.
fn escape(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    name.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
