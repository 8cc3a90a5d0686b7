//! `tidemill dead ls|show|replay`: dead letters, with the exact bytes, the reason and every attempt.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::table::Table;
use super::{Globals, Refused};
use crate::backend::Act;
use crate::backend::Backend;
use crate::fault;
use crate::model::dead_letter::{AttemptRecord, DeadLetter, ReasonClass};
use crate::model::delivery::{Body, EntryId, Source};
use crate::service::build;

/// Dead letters read in one step.
const PAGE: usize = 500;

#[derive(clap::Subcommand)]
pub enum Command {
    /// List dead letters, oldest first.
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// Show at most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one dead letter: reason, attempts, exact bytes.
    Show {
        /// As `ls` prints it, for example payment-service/order-events/1700000000000-0
        id: String,
    },
    /// Put dead letters back in front of their own handler.
    Replay {
        /// As `ls` prints them; or none with --all.
        ids: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// All that the filter lets through.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Only say how many there are.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(clap::Args, Default)]
pub struct Filter {
    /// Of this handler.
    #[arg(long)]
    handler: Option<String>,
    /// Of this class: undecodable, invalid, unknown, conflict, rejected, exhausted or poison.
    #[arg(long)]
    reason: Option<String>,
}

pub fn dead(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let config = globals.load()?;
    let sources: Vec<Source> = build::sources(&config).into_iter().map(|(source, _)| source).collect();
    super::block_on(async {
        let backend = build::open_backend(&config).await?;
        match command {
            Command::Ls { filter, limit } => ls(&*backend, &sources, &filter, limit, globals.json).await,
            Command::Show { id } => show(&*backend, &sources, &id, globals.json).await,
            Command::Replay { ids, filter, all, dry_run, yes } => {
                let found = if all { select(&*backend, &sources, &filter).await? } else { named(&sources, &ids)? };
                replay(&*backend, found, dry_run, yes, globals.json).await
            }
        }
    })
}

async fn ls(
    backend: &dyn Backend,
    sources: &[Source],
    filter: &Filter,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(["id", "reason", "attempts", "text"]);
    let (mut shown, mut left) = (0, 0);
    for source in filter.sources(sources)? {
        for letter in all_of(backend, &source).await?.into_iter().filter(|letter| filter.lets_through(letter)) {
            if shown == limit {
                left += 1;
                continue;
            }
            shown += 1;
            if as_json {
                println!("{}", to_json(&source, &letter));
            } else {
                let text: String = letter.reason.text.lines().next().unwrap_or_default().chars().take(100).collect();
                table.row([
                    full_id(&source, letter.id),
                    letter.reason.class.to_string(),
                    letter.attempts.to_string(),
                    text,
                ]);
            }
        }
    }
    if !as_json {
        print!("{table}");
    }
    if left > 0 {
        eprintln!("{left} more; --limit shows them");
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(backend: &dyn Backend, sources: &[Source], id: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let (source, entry) = parse_id(sources, id)?;
    let before = EntryId(entry.0, entry.1.wrapping_sub(1));
    let before = if entry.1 == 0 { EntryId(entry.0.saturating_sub(1), u64::MAX) } else { before };
    let found = backend.dead_letters(&source, Some(before), 1).await?;
    let Some(letter) = found.into_iter().find(|letter| letter.id == entry) else {
        return Err(Refused(format!("there is no dead letter {id}\n  hint: `tidemill dead ls` lists them")).into());
    };
    if as_json {
        println!("{}", to_json(&source, &letter));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", full_id(&source, letter.id));
    println!("  from entry {} of {}", letter.origin, source.stream);
    println!("  {}: {}", letter.reason.class, letter.reason.text);
    let since = jiff::Timestamp::from_millisecond(letter.at_ms as i64).map(|time| time.to_string()).unwrap_or_default();
    println!("  attempts {}, crashes {}, dead since {since}", letter.attempts, letter.crashes);
    for record in &letter.history {
        println!("    attempt {}, plugin {}: {}: {}", record.attempt, record.plugin, record.class, record.reason);
        record.log.iter().for_each(|line| println!("      log: {line}"));
    }
    match &letter.body {
        Body::Event(bytes) => println!("{}", String::from_utf8_lossy(bytes)),
        Body::Fields(fields) => {
            for (name, value) in fields {
                println!("{} = {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(
    backend: &dyn Backend,
    found: Vec<(Source, Vec<EntryId>)>,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let count: usize = found.iter().map(|(_, ids)| ids.len()).sum();
    eprintln!("{count} dead letters");
    if !dry_run && !yes && !confirmed()? {
        return Err(Refused("nothing was replayed".to_owned()).into());
    }
    let mut replayed = 0;
    for (source, ids) in found.iter().filter(|_| !dry_run) {
        for page in ids.chunks(PAGE) {
            fault::point("replaying");
            replayed += backend.replay(source, page, &Act::default()).await?;
            fault::point("replaying");
        }
    }
    if as_json {
        println!("{}", json!({ "found": count, "replayed": replayed }));
    } else {
        println!("{replayed} replayed");
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks on a terminal; elsewhere nobody could answer.
fn confirmed() -> anyhow::Result<bool> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        return Err(
            Refused("nobody is there to ask\n  hint: --yes goes ahead, --dry-run only counts".to_owned()).into()
        );
    }
    eprint!("replay them? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

impl Filter {
    fn sources(&self, sources: &[Source]) -> anyhow::Result<Vec<Source>> {
        if let Some(class) = self.reason.as_deref().filter(|class| ReasonClass::parse(class).is_none()) {
            let known: Vec<&str> = ReasonClass::ALL.iter().map(|class| class.as_str()).collect();
            return Err(Refused(format!("there is no reason \"{class}\"\n  hint: {}", known.join(", "))).into());
        }
        let wanted = |source: &&Source| self.handler.as_ref().is_none_or(|handler| **handler == *source.handler);
        Ok(sources.iter().filter(wanted).cloned().collect())
    }

    fn lets_through(&self, letter: &DeadLetter) -> bool {
        self.reason.as_ref().is_none_or(|class| *class == letter.reason.class.as_str())
    }
}

async fn select(
    backend: &dyn Backend,
    sources: &[Source],
    filter: &Filter,
) -> anyhow::Result<Vec<(Source, Vec<EntryId>)>> {
    let mut found = Vec::new();
    for source in filter.sources(sources)? {
        let letters = all_of(backend, &source).await?;
        let ids = letters.iter().filter(|letter| filter.lets_through(letter)).map(|letter| letter.id).collect();
        found.push((source, ids));
    }
    Ok(found)
}

fn named(sources: &[Source], ids: &[String]) -> anyhow::Result<Vec<(Source, Vec<EntryId>)>> {
    if ids.is_empty() {
        return Err(Refused("name dead letters, or --all with a filter".to_owned()).into());
    }
    ids.iter().map(|id| parse_id(sources, id).map(|(source, entry)| (source, vec![entry]))).collect()
}

/// Every dead letter of a source, page by page.
pub async fn all_of(backend: &dyn Backend, source: &Source) -> anyhow::Result<Vec<DeadLetter>> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let page = backend.dead_letters(source, letters.last().map(|letter| letter.id), PAGE).await?;
        let last = page.len() < PAGE;
        letters.extend(page);
        if last {
            return Ok(letters);
        }
    }
}

fn full_id(source: &Source, id: EntryId) -> String {
    format!("{}/{}/{id}", source.handler, source.stream)
}

fn parse_id(sources: &[Source], text: &str) -> anyhow::Result<(Source, EntryId)> {
    let wrong = || {
        Refused(format!("\"{text}\" is not a dead letter\n  hint: copy one from `tidemill dead ls`: HANDLER/STREAM/ID"))
    };
    let mut parts = text.splitn(3, '/');
    let (Some(handler), Some(stream), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong().into());
    };
    let source =
        sources.iter().find(|source| *source.handler == *handler && *source.stream == *stream).ok_or_else(wrong)?;
    Ok((source.clone(), id.parse().map_err(|_| wrong())?))
}

fn to_json(source: &Source, letter: &DeadLetter) -> Value {
    let record = |record: &AttemptRecord| {
        json!({
            "attempt": record.attempt, "at_ms": record.at_ms, "class": record.class, "reason": record.reason,
            "plugin": record.plugin, "log": record.log,
        })
    };
    let mut value = json!({
        "id": full_id(source, letter.id), "handler": &*source.handler, "stream": &*source.stream,
        "entry": letter.origin.to_string(), "reason": letter.reason.class.as_str(), "text": letter.reason.text,
        "at_ms": letter.at_ms, "attempts": letter.attempts, "crashes": letter.crashes,
        "history": letter.history.iter().map(record).collect::<Vec<_>>(),
    });
    match &letter.body {
        Body::Event(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => value["event"] = text.into(),
            // Bytes that are not text have no other exact form in JSON.
            Err(_) => value["event_hex"] = hex(bytes).into(),
        },
        Body::Fields(fields) => {
            value["fields"] =
                fields.iter().map(|(name, value)| json!([String::from_utf8_lossy(name), hex(value)])).collect();
        }
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
