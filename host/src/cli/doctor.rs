//! `tidemill doctor`: whether everything that Tidemill rests on is as it has to be, and what to do where it is not.
//! Exit codes: 0 good or warnings only, 1 if anything is bad.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Globals;
use super::out::{self, outln};
use crate::backend::{self, Backend, Error, Finding, Level, findings};
use crate::config::{Config, check};
use crate::model::delivery::Source;
use crate::service::books::told;
use crate::service::{build, heart};

#[derive(clap::Args)]
pub struct Args {
    /// Also read the whole SQLite file and look for damage; takes its time on a large one.
    #[arg(long)]
    deep: bool,
}

pub fn doctor(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("error");
    let config = globals.load()?;
    let mut found = configured(&config);
    found.extend(super::block_on(async { Ok(examined(args, &config).await?) })?);
    if globals.json {
        out::json(&to_json(&found));
    } else {
        print(&found);
    }
    let bad = found.iter().any(|finding| finding.level == Level::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What needs only the file.
fn configured(config: &Config) -> Vec<Finding> {
    let of = |found: check::Finding| {
        let text = format!("{}: {}", found.key, found.what);
        if found.warning {
            findings::warning("configuration", text, found.hint)
        } else {
            findings::bad("configuration", text, found.hint)
        }
    };
    match build::check(config) {
        Ok(checked) if checked.warnings.is_empty() => {
            let (streams, handlers) = (config.streams.len(), config.handlers.len());
            vec![findings::good("configuration", format!("{handlers} handlers, {streams} streams"))]
        }
        Ok(checked) => checked.warnings.into_iter().map(of).collect(),
        Err(build::Error::Config(wrong)) => wrong.into_iter().map(of).collect(),
        Err(other) => vec![refused("configuration", &other.to_string())],
    }
}

async fn examined(args: &Args, config: &Config) -> Result<Vec<Finding>, Error> {
    let sources: Vec<Source> = build::sources(config).into_iter().map(|(source, _)| source).collect();
    let mut found = match build::open_backend_to_read(config).await {
        Ok(backend) => match backend.examine(&sources, &build::targets(config)).await {
            Ok(mut found) => {
                found.extend(kept(&*backend, &sources).await);
                found
            }
            Err(error) => vec![away(&error, config)],
        },
        // What refuses a host to start is the first thing to mend; more cannot be seen before.
        Err(error) => vec![away(&error, config)],
    };
    if args.deep {
        found.extend(backend::examine_deeply(&config.broker_url()).await?);
    }
    Ok(found)
}

/// What living hosts keep because the backend refuses to settle it.
async fn kept(backend: &dyn Backend, sources: &[Source]) -> Vec<Finding> {
    let hosts = match heart::hosts(backend, sources).await {
        Ok(hosts) => hosts,
        Err(error) => return vec![refused("refused", &error.to_string())],
    };
    let handlers: BTreeSet<&Arc<str>> = sources.iter().map(|source| &source.handler).collect();
    let finding = |handler: &Arc<str>| {
        let told = told(&hosts, handler);
        let (text, hint) =
            told.refusal.split_once("\n  hint: ").unwrap_or((&told.refusal, "look at the log of the host"));
        let text =
            format!("{handler}: hosts keep {} deliveries that the backend refuses to settle: {text}", told.refused);
        (told.refused > 0).then(|| findings::bad("refused", text, hint))
    };
    handlers.into_iter().filter_map(finding).collect()
}

/// A backend that cannot be asked.
fn away(error: &Error, config: &Config) -> Finding {
    match error {
        Error::Unavailable { .. } if config.broker_url().sqlite_file().is_some() => findings::bad(
            "backend",
            error.to_string(),
            "is the disk full or broken, and does another program hold the file for long (lsof FILE)?",
        ),
        _ => refused("backend", &error.to_string()),
    }
}

fn refused(check: &'static str, text: &str) -> Finding {
    let (text, hint) = text.split_once("\n  hint: ").unwrap_or((text, "is it running, and is the address right?"));
    findings::bad(check, text, hint)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Good => "ok",
        Level::Warning => "warning",
        Level::Bad => "bad",
    }
}

/// A line for each finding, what to do under it, and the sum at the end.
fn print(found: &[Finding]) {
    let width = found.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for Finding { level, check, text: what, hint } in found {
        out::lines(&format_args!("{:<7}  {check:<width$}  {what}", word(*level)));
        if !hint.is_empty() {
            out::lines(&format_args!("{:7}  {:width$}  hint: {hint}", "", ""));
        }
    }
    let count = |level| found.iter().filter(|finding| finding.level == level).count();
    outln!("{} bad, {} warnings, {} ok", count(Level::Bad), count(Level::Warning), count(Level::Good));
}

fn to_json(found: &[Finding]) -> Value {
    let row = |Finding { level, check, text, hint }: &Finding| json!({ "level": word(*level), "check": check, "text": text, "hint": hint });
    let worst = found.iter().map(|finding| finding.level).max().unwrap_or(Level::Good);
    json!({ "level": word(worst), "findings": found.iter().map(row).collect::<Vec<_>>() })
}
