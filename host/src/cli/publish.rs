//! `tidemill publish FILE|-`: JSON Lines in. One line on stderr for each refused event; the rest is published.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::Globals;
use crate::backend::Published;
use crate::service::build;
use crate::service::publisher::{PUBLISH_BATCH, Publisher, Ready, Refused};

#[derive(clap::Args)]
pub struct Args {
    /// A file of JSON Lines, or - for standard input.
    file: PathBuf,

    /// Validate and say what would be refused; publish nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Default)]
struct Counts {
    published: u64,
    refused: u64,
    duplicates: u64,
}

pub fn publish(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let (config, checked) = globals.load_checked()?;
    let input: Box<dyn Read> = match args.file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(
            std::fs::File::open(&args.file)
                .map_err(|error| super::Refused(format!("cannot read {}: {error}", args.file.display())))?,
        ),
    };
    let counts = super::block_on(async {
        let publisher = Publisher {
            backend: build::open_backend(&config).await?,
            schemas: checked.schemas.clone(),
            streams: checked.streams.clone(),
            payload_bytes_max: config.host.payload_bytes_max.as_u64() as usize,
        };
        all_lines(&publisher, BufReader::new(input), args.dry_run).await
    })?;
    let (published, refused, duplicates) = (counts.published, counts.refused, counts.duplicates);
    if globals.json {
        println!("{}", json!({ "published": published, "refused": refused, "duplicates": duplicates }));
    } else {
        let would = if args.dry_run { "would be " } else { "" };
        println!("{published} {would}published, {duplicates} known already, {refused} refused");
    }
    Ok(ExitCode::from(if refused > 0 { 2 } else { 0 }))
}

async fn all_lines(publisher: &Publisher, mut input: impl BufRead, dry_run: bool) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let mut batch: Vec<(usize, Ready)> = Vec::with_capacity(PUBLISH_BATCH);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // One byte over the bound is enough to refuse a line, however long it goes on.
        let max = publisher.payload_bytes_max as u64 + 1;
        let read = (&mut input).take(max).read_until(b'\n', &mut line).context("reading the input")?;
        if read == 0 {
            break;
        }
        if read as u64 == max && !line.ends_with(b"\n") {
            skip_line(&mut input)?;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match publisher.prepare(line.trim_ascii()) {
            Ok(ready) => batch.push((number, ready)),
            Err(refused) => refuse(&mut counts, number, &refused),
        }
        if batch.len() == PUBLISH_BATCH {
            send(publisher, &mut batch, &mut counts, dry_run).await?;
        }
    }
    send(publisher, &mut batch, &mut counts, dry_run).await?;
    Ok(counts)
}

async fn send(
    publisher: &Publisher,
    batch: &mut Vec<(usize, Ready)>,
    counts: &mut Counts,
    dry_run: bool,
) -> anyhow::Result<()> {
    let (numbers, ready): (Vec<usize>, Vec<Ready>) = batch.drain(..).unzip();
    if dry_run {
        counts.published += ready.len() as u64;
        return Ok(());
    }
    let ids: Vec<String> = ready.iter().map(|ready| ready.event.id().to_string()).collect();
    for ((number, id), answer) in numbers.into_iter().zip(ids).zip(publisher.publish(ready).await?) {
        match answer {
            Published::Added(_) => counts.published += 1,
            Published::Duplicate => counts.duplicates += 1,
            Published::Conflict => {
                let reason =
                    "another event with this event_id was published before (hint: every event needs its own id)"
                        .to_owned();
                refuse(counts, number, &Refused { event_id: Some(id), reason });
            }
        }
    }
    Ok(())
}

fn refuse(counts: &mut Counts, line: usize, refused: &Refused) {
    counts.refused += 1;
    eprintln!("line {line}: {refused}");
}

fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |at| at + 1);
        input.consume(count);
        if end.is_some() {
            return Ok(());
        }
    }
}
