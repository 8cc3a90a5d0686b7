//! `tidemill publish FILE|-`: JSON Lines in. One line on stderr for each refused event; the rest is published. Lines wait
//! for others only for a moment, so that what a program writes now and then is published then.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::Globals;
use super::lines;
use super::lines::Line;
use super::out;
use super::out::{errln, outln};
use super::run::stop_on_signal;
use tidemill_runtime::publisher::{PUBLISH_BATCH, PublishError, Publisher, Ready};
use tidemill_runtime::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_storage::Published;

/// The bytes of events from which on no more are gathered for one call of the backend.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long an event waits for others to go with it.
const LINGER_MAX: Duration = Duration::from_millis(150);

#[derive(clap::Args)]
pub(super) struct Args {
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

/// Why not all of the input was published.
enum Ended {
    Stopped,
    Failed(anyhow::Error),
}

pub(super) fn publish(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    globals.log("warn");
    let (config, checked) = globals.load_checked()?;
    if config.backend_url().sqlite_file() == Some(":memory:") && !args.dry_run {
        return Err(super::UsageError(
            "what is published to a database in memory is gone when this command ends\n  hint: give a file, such as --backend \
             sqlite:tidemill.db, or look only, with --dry-run"
                .into(),
        )
        .into());
    }
    let input = open(&args.file)?;
    super::block_on(async {
        let publisher = Publisher {
            backend: crate::backends::open_backend(&config).await?,
            schemas: checked.schemas.clone(),
            streams: checked.streams.clone(),
            payload_bytes_max: config.host.payload_bytes_max.as_u64() as usize,
        };
        let (trigger, shutdown) = ShutdownTrigger::new();
        stop_on_signal(Arc::new(trigger))?;
        let mut work = Work::new(&publisher, args.dry_run);
        let ended = work.all(input, shutdown).await;
        work.report(ended.err(), globals.json)
    })
}

fn open(file: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    let file_or = std::fs::File::open(file);
    let file = file_or.map_err(|error| super::UsageError(format!("cannot read {}: {error}", file.display())))?;
    Ok(Box::new(file))
}

struct Work<'a> {
    publisher: &'a Publisher,
    dry_run: bool,
    counts: Counts,
    /// Ready to be sent, with the numbers of their lines.
    batch: Vec<(u64, Ready)>,
    batch_bytes: usize,
    /// When the first of them is to be sent at the latest.
    due: Option<Instant>,
    /// The last line that was looked at.
    line: u64,
    /// Whether it was said that an event is a line.
    hinted: bool,
}

impl<'a> Work<'a> {
    fn new(publisher: &'a Publisher, dry_run: bool) -> Self {
        let (counts, batch) = (Counts::default(), Vec::with_capacity(PUBLISH_BATCH));
        Self { publisher, dry_run, counts, batch, batch_bytes: 0, due: None, line: 0, hinted: false }
    }

    /// Until the input is at its end. What was read before it fails, or before somebody stops it, is sent all the same.
    async fn all(&mut self, input: Box<dyn Read + Send>, mut shutdown: Shutdown) -> Result<(), Ended> {
        let failed = |error: std::io::Error| Ended::Failed(anyhow::Error::new(error).context("reading the input"));
        let mut lines = lines::read(input, self.publisher.payload_bytes_max).map_err(failed)?;
        let mut stopped = false;
        loop {
            let due = self.due;
            let read = tokio::select! {
                read = lines.recv() => read,
                () = shutdown.wait(), if !stopped => {
                    // What is on its way from the reader still comes; nothing more is read.
                    stopped = true;
                    lines.close();
                    continue;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.send().await?;
                    continue;
                }
            };
            match read {
                Some(Ok(lines)) => self.take(lines).await?,
                Some(Err(error)) => {
                    self.send().await?;
                    return Err(failed(error));
                }
                None => {
                    self.send().await?;
                    return if stopped { Err(Ended::Stopped) } else { Ok(()) };
                }
            }
        }
    }

    async fn take(&mut self, lines: Vec<Line>) -> Result<(), Ended> {
        for Line { number, bytes } in lines {
            self.line = number;
            let max = self.publisher.payload_bytes_max;
            if bytes.len() > max {
                // No more of it was read.
                let reason = format!("the event is larger than the {max} bytes of payload_bytes_max");
                self.refuse(number, &PublishError { event_id: None, reason }, None);
                continue;
            }
            match self.publisher.prepare(&bytes) {
                Ok(ready) => {
                    self.batch_bytes += bytes.len();
                    self.batch.push((number, ready));
                    self.due.get_or_insert_with(|| Instant::now() + LINGER_MAX);
                }
                Err(refused) => self.refuse(number, &refused, self.hint(&bytes)),
            }
            if self.batch.len() == PUBLISH_BATCH || self.batch_bytes >= BATCH_BYTES_MAX {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Ended> {
        let (numbers, ready): (Vec<u64>, Vec<Ready>) = self.batch.drain(..).unzip();
        (self.batch_bytes, self.due) = (0, None);
        let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else { return Ok(()) };
        if self.dry_run {
            self.counts.published += ready.len() as u64;
            return Ok(());
        }
        let ids: Vec<String> = ready.iter().map(|ready| ready.event.id().to_string()).collect();
        let answers = self.publisher.publish(ready).await.map_err(|error| {
            let unknown = format!("lines {first} to {last} may have been published or not");
            Ended::Failed(anyhow::Error::new(error).context(unknown))
        })?;
        for ((number, id), answer) in numbers.into_iter().zip(ids).zip(answers) {
            match answer {
                Published::Added(_) => self.counts.published += 1,
                Published::Duplicate => self.counts.duplicates += 1,
                Published::Conflict => {
                    let reason =
                        "another event with this event_id was published before (hint: every event needs its own id)"
                            .to_owned();
                    self.refuse(number, &PublishError { event_id: Some(id), reason }, None);
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: u64, refused: &PublishError, hint: Option<&str>) {
        self.counts.refused += 1;
        let hint = hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        self.hinted |= !hint.is_empty();
        errln!("line {line}: {refused}{hint}");
    }

    /// Said once: an event that goes over several lines is refused line by line.
    fn hint(&self, line: &[u8]) -> Option<&'static str> {
        let line = line.trim_ascii();
        match (self.hinted, line) {
            (true, _) => None,
            (false, [b'[', ..]) => Some("one event a line, and no array around them"),
            (false, [b'{', .., b'}']) => None,
            (false, [b'{', ..]) => Some("one event a line: this one seems to go on in the next"),
            _ => None,
        }
    }

    fn so_far(&self) -> String {
        let Counts { published, refused, duplicates } = self.counts;
        let would = if self.dry_run { "would be " } else { "" };
        format!("{published} {would}published, {duplicates} known already, {refused} refused")
    }

    fn report(&self, ended: Option<Ended>, as_json: bool) -> anyhow::Result<ExitCode> {
        let Counts { published, refused, duplicates } = self.counts;
        if as_json {
            out::json(&json!({ "published": published, "refused": refused, "duplicates": duplicates }));
        } else if !matches!(ended, Some(Ended::Failed(_))) {
            outln!("{}", self.so_far());
        }
        match ended {
            None => Ok(ExitCode::from(if refused > 0 { 2 } else { 0 })),
            Some(Ended::Stopped) => {
                errln!("stopped after line {}", self.line);
                Ok(ExitCode::from(out::INTERRUPTED))
            }
            Some(Ended::Failed(error)) => Err(error.context(format!("after {}", self.so_far()))),
        }
    }
}
