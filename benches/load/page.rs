//! The page `docs/performance.md`: what was measured, on what, and what it cannot tell. All of it is made here from a run,
//! but for the notes that people write between two deduplication keys, which stay.

use std::fmt::Write as _;

use crate::model::{Run, Section};
use crate::peers::PEERS;
use crate::report::chapters::Chapter;
use crate::report::stats::Figure;
use crate::report::words::{short, spaced, spread};
use crate::report::{self, Table};

/// The longest line of prose.
const LINE: usize = 120;

/// The peer that is no library.
const NATIVE: &str = "native";

const NOTES_BEGIN: &str = "<!-- notes: kept by `cargo xtask load --write` -->";
const NOTES_END: &str = "<!-- end of the notes -->";

/// `before` is the page as it is now, for its notes.
pub(crate) fn page(run: &Run, before: &str) -> String {
    let mut page = HEAD.to_owned();
    page += &at_a_glance(run);
    page += "\n## Targets\n\n";
    page += TARGETS_TEXT;
    page += &markdown(&report::targets_table(run)).replace("| missed:", "| **missed**:");
    let _ = write!(page, "\n{NOTES_BEGIN}\n{}{NOTES_END}\n", notes(before));
    page += "\n## How it was measured\n\n";
    page += &machine(run);
    page += METHOD;
    for (chapter, section) in report::told(run) {
        page += &told(chapter, section);
    }
    page + LIMITS
}

const HEAD: &str = "\
# Performance

<!-- Written by `cargo xtask load --peers --write`. Do not edit it here: the words are in benches/load/page.rs and
benches/load/report/chapters.rs, the figures come from a run. -->

What durable event handling in WebAssembly costs on top of Redis, with every guarantee, limit and validation on. All figures
are of one run, whose samples are in [performance.json](performance.json). A figure is the median of the rounds, with the
least and the greatest: `52 300 [48 100 - 55 900]`.

**Trust the ratios and the processor time per event.** Events a second are those of one machine on one day.

";

const TARGETS_TEXT: &str = "\
Set before the work on speed began. A ratio compares rows within a round. It is met if the median is; where an aim is about the
plugin, it is also measured with instances that serve 64 events (`instance_events_max = 64`).

";

const METHOD: &str = "
- The harness starts servers of its own, with their files in a temporary folder, and everything runs on one machine over
  loopback: Redis, the host, and whoever measures share its cores.
- The host is a process of its own, `tidemill run`, as it would run anywhere. Its processor time and memory are its own; those
  of Redis are what `INFO cpu` says. A client of the harness is measured by its own process.
- The rows of a section run in turn within each round, every second round backwards. The first round is thrown away.
- The clock of a drain runs from the first events that are committed to the last one. Afterwards the harness reads in the
  store itself whether every effect is there once and nothing is left pending. A drain that fails this ends the run.
- Events are `User.Created.v1` of 400 bytes, validated against their JSON Schema, unless a section says otherwise. Plugins
  are written in Rust with the SDK. The inbox, which drops duplicates, is on.
";

const LIMITS: &str = "
## What this cannot tell

- **Your machine.** Fewer cores than programs means that a neighbour's work is in every figure. What the same row differs by
  when it is run twice is above; smaller differences mean nothing.
- **A network.** Loopback has no distance. On a real one, a drain hides it by batches in flight, and a single event pays it
  twice: once to be read, once to be settled. TLS, replicas and clusters were not measured.
- **Slow tails.** With so few cores, p99 and beyond are the scheduler's as much as ours. Compare rows; do not promise them.
- **Your plugin.** These do next to nothing, so that the host is what is seen.
- **Peers at their best.** They are set up as their documentation recommends, by people who know them less than their
  authors do, and they promise other things. If a setting is unfair, change it under `benches/peers/` and tell us.

## Check it

```sh
cargo xtask load --peers          # all of it, as a table
cargo xtask load --quick          # a look, in minutes
cargo xtask load --peers --write  # writes this page, its pictures and the samples
```
";

/// The few figures that most people came for. What this run has not measured is left out.
fn at_a_glance(run: &Run) -> String {
    let mut lines = Vec::new();
    if let Some(section) = run.section("pipeline") {
        let shapes = [
            ("stateless", "A stateless plugin, a fresh instance for each event"),
            ("stateless 64", "The same, an instance for 64 events"),
        ];
        lines.extend(shapes.iter().filter_map(|(row, words)| drained(section, row, words)));
    }
    if let Some(section) = run.section("latency") {
        lines.extend(waited(section));
    }
    if let Some(section) = run.section("peers") {
        lines.extend(beside(section));
    }
    if let Some(noise) = report::noise(run) {
        lines.push(format!("The noise: `raw` run twice in a round came to {} of itself.", spread(Some(noise))));
    }
    lines.iter().map(|line| format!("{}\n", wrapped(&format!("- {line}")).replace('\n', "\n  "))).collect()
}

fn drained(section: &Section, row: &str, words: &str) -> Option<String> {
    let row = section.row(row)?;
    let (rate, total) = (Figure::Rate.of(row)?.median, Figure::Total.of(row)?.median);
    let (host, redis) = (Figure::Client.of(row)?.median, Figure::Redis.of(row)?.median);
    let raw = Figure::Rate.ratio(row, section.row("raw")?)?.median;
    Some(format!(
        "{words}: **{}** events/s, {raw:.2} of a client that only reads and acks; {} µs of processor time an event ({} host, \
         {} Redis).",
        report::words::figure(rate),
        short(total),
        short(host),
        short(redis),
    ))
}

fn waited(section: &Section) -> Option<String> {
    let (ours, bare) = (section.row_at("tidemill", Some(1000.0))?, section.row_at("bare loop", Some(1000.0))?);
    let p50 = Figure::Extra("p50_us");
    let (ours, bare) = (p50.of(ours)?.median, p50.of(bare)?.median);
    Some(format!(
        "From published to settled at 1 000 events/s: half within **{ours:.0} µs**; a bare loop {bare:.0} µs."
    ))
}

fn beside(section: &Section) -> Option<String> {
    let ours = section.row("stateless")?;
    let peers = PEERS.iter().filter(|peer| peer.name != NATIVE).filter_map(|peer| {
        let times = Figure::Rate.ratio(ours, section.row(peer.name)?)?.median;
        Some(format!("{} {}", peer.name, short(times)))
    });
    let peers: Vec<String> = peers.collect();
    let native = section.row(NATIVE).and_then(|native| Figure::Rate.ratio(ours, native));
    let native = native
        .map(|ratio| format!(" To the same work by hand, in Rust and without a sandbox: {}.", short(ratio.median)));
    Some(format!(
        "Its rate to that of others in the same rounds, with a fresh instance for each event: {}.{}",
        peers.join(", "),
        native.unwrap_or_default()
    ))
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let rows = [
        ("when", machine.when.clone()),
        ("processor", format!("{} cores, {}", machine.cores, machine.cpu)),
        ("memory", format!("{} GiB", machine.memory_gib)),
        ("system", machine.kernel.clone()),
        ("Redis", machine.redis.clone()),
        ("Tidemill", format!("{}, {} build", machine.tidemill, machine.profile)),
    ];
    let mut table: Table = vec![vec!["".into(), "".into()]];
    table.extend(rows.map(|(name, value)| vec![name.to_owned(), value]));
    markdown(&table)
}

fn told(chapter: &Chapter, section: &Section) -> String {
    let mut page = format!("\n## {}\n\n{}\n\n", report::title(&section.name), wrapped(chapter.text));
    for picture in chapter.pictures.iter().filter(|picture| report::is_drawn(picture, section)) {
        let _ = writeln!(page, "![{}: {}](performance/{}.svg)\n", picture.title, picture.label, picture.file);
    }
    page += &markdown(&report::table(chapter, section));
    let _ = writeln!(page, "\nRounds: {}; events in each: at most {}.", section.rounds, spaced(section.events as f64));
    let settings = settings(section);
    if !settings.is_empty() {
        let _ = write!(page, "\n<details><summary>Versions and settings</summary>\n\n{settings}\n</details>\n");
    }
    page
}

/// In lines that a person can read, and compare.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.chars().count() + word.chars().count() < LINE);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A line for each row that has something to say, but the same only once along the axis.
fn settings(section: &Section) -> String {
    let mut lines: Vec<String> = Vec::new();
    for row in section.rows.iter().filter(|row| !row.settings.is_empty()) {
        let line = format!("- {}: {}\n", row.name, row.settings);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

/// What people wrote between the deduplication keys; it ends with a line of its own.
fn notes(before: &str) -> &str {
    let notes = before.split_once(NOTES_BEGIN).and_then(|(_, rest)| rest.split_once(NOTES_END));
    notes.map_or("", |(notes, _)| notes.strip_prefix('\n').unwrap_or(notes))
}

fn markdown(table: &Table) -> String {
    let line = |cells: &Vec<String>| {
        format!("| {} |\n", cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(table.first().map_or(0, Vec::len)));
    let (head, rows) = table.split_at(table.len().min(1));
    head.iter().map(line).chain([rule]).chain(rows.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example::{pipeline, run};

    #[test]
    fn the_page_says_what_was_measured() {
        let page = page(&pipeline(), "");
        let lines = [
            "- A stateless plugin, a fresh instance for each event: **15 000** events/s, 0.30 of a client that only reads and acks; 6",
            "  µs of processor time an event (4 host, 2 Redis).",
            "- The noise: `raw` run twice in a round came to 1.25 of itself.",
            "| stateless: rate to raw | ≥ 0.6 | **missed**: 0.300 | met: 0.600 |",
            "| processor | 2 cores, a processor |",
            "| stateless | 15 000 [7 500 - 30 000] | 0.300 | 0.600 | 4.00 | 2.00 | 30.0 |",
            "Rounds: 3; events in each: at most 1 000.",
        ];
        for line in lines {
            assert!(page.lines().any(|found| found == line), "{line}\nis missing in\n{page}");
        }
    }

    #[test]
    fn notes_stay_when_the_figures_change() {
        let empty = page(&run(Vec::new()), "");
        let noted = empty.replace(NOTES_END, &format!("The missed one is Redis.\n{NOTES_END}"));
        let again = page(&pipeline(), &noted);
        assert!(again.contains(&format!("{NOTES_BEGIN}\nThe missed one is Redis.\n{NOTES_END}\n")), "{again}");
        assert_eq!(page(&pipeline(), &again), again);
    }
}
