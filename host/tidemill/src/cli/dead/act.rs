//! `tidemill dead replay` and `dead drop`: count first, ask, then go through the letters a page at a time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use super::select::{PAGE, Selection, Walk};
use crate::cli::UsageError;
use crate::cli::out;
use crate::cli::out::{errln, outln};
use crate::cli::table::thousands;
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_process::fault;
use tidemill_storage::{Backend, Operator};

/// How a command that changes something is told to go ahead.
#[derive(clap::Args)]
pub(crate) struct Consent {
    /// Only say how many there are.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum DeadLetterOp {
    /// At so many letters a second; 0: as fast as it goes.
    Replay {
        rate: u32,
    },
    Drop,
}

impl DeadLetterOp {
    fn verb(self) -> &'static str {
        match self {
            Self::Replay { .. } => "replay",
            Self::Drop => "drop",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Replay { .. } => "replayed",
            Self::Drop => "dropped",
        }
    }

    fn rate(self) -> u32 {
        match self {
            Self::Replay { rate } => rate,
            Self::Drop => 0,
        }
    }
}

pub(crate) async fn act(
    backend: &dyn Backend,
    selection: &Selection,
    deed: DeadLetterOp,
    consent: &Consent,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if selection.words.is_empty() {
        return Err(UsageError("name dead letters or a filter\n  hint: --all means all of them".to_owned()).into());
    }
    let (found, walk) = selection.walk().count(backend).await?;
    errln!("{} dead letters{}", thousands(found), pace(deed, found));
    let mut done = 0;
    if found > 0 && !consent.dry_run {
        consent.ask(deed.verb())?;
        let act = super::act_of(selection.words.clone());
        done = go_through(backend, walk, deed, found, &act).await?;
    }
    if as_json {
        out::json(&json!({ "found": found, deed.done(): done }));
    } else {
        outln!("{} {}", thousands(done), deed.done());
    }
    Ok(ExitCode::SUCCESS)
}

/// How long it is going to take, if that is long.
fn pace(deed: DeadLetterOp, found: u64) -> String {
    match deed.rate() {
        0 => String::new(),
        rate if found <= u64::from(rate) => String::new(),
        rate => {
            let takes = humantime::format_duration(Duration::from_secs(found / u64::from(rate)));
            format!("; {} a second, so it takes {takes} (--rate 0: as fast as it goes)", thousands(rate.into()))
        }
    }
}

async fn go_through(
    backend: &dyn Backend,
    mut walk: Walk<'_>,
    deed: DeadLetterOp,
    found: u64,
    act: &Operator,
) -> anyhow::Result<u64> {
    let bar = progress(found);
    let mut pacer = Pacer::new(deed.rate());
    let mut done = 0;
    while let Some((subscription, letters)) = walk.next(backend).await? {
        let ids: Vec<EntryId> = letters.iter().map(|letter| letter.id).collect();
        for some in ids.chunks(pacer.chunk) {
            let so_far = || format!("after {} of {}; run it again for the rest", thousands(done), thousands(found));
            done += step(backend, deed, subscription, some, act).await.with_context(so_far)? as u64;
            bar.set_position(done);
            pacer.wait(some.len()).await;
        }
    }
    bar.finish_and_clear();
    Ok(done)
}

async fn step(
    backend: &dyn Backend,
    deed: DeadLetterOp,
    subscription: &Subscription,
    ids: &[EntryId],
    act: &Operator,
) -> anyhow::Result<usize> {
    Ok(match deed {
        DeadLetterOp::Replay { .. } => {
            fault::point("replaying");
            backend.replay(subscription, ids, act).await?
        }
        DeadLetterOp::Drop => backend.drop_dead(subscription, ids, act).await?,
    })
}

/// Holds steps back so that no more letters are replayed in a second than were asked for.
struct Pacer {
    rate: u32,
    chunk: usize,
    next: Instant,
}

impl Pacer {
    fn new(rate: u32) -> Self {
        let chunk = if rate == 0 { PAGE } else { PAGE.min(rate as usize) };
        Self { rate, chunk, next: Instant::now() }
    }

    async fn wait(&mut self, count: usize) {
        if self.rate > 0 {
            self.next = self.next.max(Instant::now()) + Duration::from_secs(1) * count as u32 / self.rate;
            tokio::time::sleep_until(self.next).await;
        }
    }
}

/// On a terminal only, and only for so many that one would wait for them.
fn progress(found: u64) -> ProgressBar {
    if found <= PAGE as u64 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len}, {eta} left");
    ProgressBar::new(found).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Consent {
    /// Asks on a terminal; elsewhere nobody could answer.
    pub(crate) fn ask(&self, verb: &str) -> anyhow::Result<()> {
        use std::io::IsTerminal;
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            let text = "nobody is there to ask\n  hint: --yes goes ahead, --dry-run only looks";
            return Err(UsageError(text.to_owned()).into());
        }
        out::ask(&format!("{verb}? [y/N] "));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("reading the answer")?;
        if answer.trim().eq_ignore_ascii_case("y") {
            Ok(())
        } else {
            Err(UsageError("nothing was done".to_owned()).into())
        }
    }
}
