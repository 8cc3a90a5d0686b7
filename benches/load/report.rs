//! What a run looks like: a table for the terminal, and the page with its pictures.

pub(crate) mod chapters;
pub(crate) mod stats;
pub(crate) mod targets;
pub(crate) mod words;

#[cfg(test)]
pub(crate) mod example;

use std::path::Path;

use anyhow::Context;

use crate::model::{Row, Run, Section};
use crate::peers::PEERS;
use crate::sections;
use crate::{page, plot};
use chapters::{CHAPTERS, Chapter, Column, Form, Picture, To};
use stats::{Figure, Spread};
use targets::TARGETS;

pub(crate) const PAGE: &str = "docs/performance.md";
pub(crate) const DATA: &str = "docs/performance.json";
/// Where the pictures lie.
pub(crate) const PICTURES: &str = "docs/performance";

/// Everything as text, for a person at a terminal.
pub(crate) fn print(run: &Run) {
    for (chapter, section) in told(run) {
        let (title, rounds) = (title(&section.name), section.rounds);
        println!("{title}: rounds: {rounds}; events in each: at most {}; median [min - max]\n", section.events);
        print_table(&table(chapter, section));
    }
    if let Some(noise) = noise(run) {
        println!("the same thing twice, the second to the first: {}\n", words::spread(Some(noise)));
    }
    let mut targets = targets_table(run);
    targets.retain(|cells| cells[2..] != ["-", "-"]);
    if targets.len() > 1 {
        print_table(&targets);
    }
}

/// The page, its pictures and the run itself, under the root of the project.
pub(crate) fn write(run: &Run, root: &Path) -> anyhow::Result<()> {
    let save =
        |path: &str, text: &str| std::fs::write(root.join(path), text).with_context(|| format!("writing {path}"));
    let folder = root.join(PICTURES);
    if folder.is_dir() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {PICTURES}"))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {PICTURES}"))?;
    for (chapter, section) in told(run) {
        for picture in chapter.pictures.iter().filter(|picture| is_drawn(picture, section)) {
            save(&format!("{PICTURES}/{}.svg", picture.file), &draw(picture, section))?;
        }
    }
    // The page of before may hold notes; there may be none.
    let before = std::fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    save(PAGE, &page::page(run, &before))?;
    save(DATA, &(serde_json::to_string_pretty(run)? + "\n"))
}

/// The sections of the run that have a chapter, in the order of the chapters.
pub(crate) fn told(run: &Run) -> impl Iterator<Item = (&'static Chapter, &Section)> {
    CHAPTERS.iter().filter_map(|chapter| Some((chapter, run.section(chapter.section)?)))
}

fn question(section: &str) -> Option<&'static sections::Question> {
    sections::ALL.iter().find(|question| question.name == section)
}

pub(crate) fn title(section: &str) -> &str {
    question(section).map_or(section, |question| question.title)
}

/// The A/A control: how much the same thing differs from itself in this run.
pub(crate) fn noise(run: &Run) -> Option<Spread> {
    let section = run.section("pipeline")?;
    Figure::Rate.ratio(section.row("raw again")?, section.row("raw")?)
}

/// A row of headings, then the rows.
pub(crate) type Table = Vec<Vec<String>>;

pub(crate) fn table(chapter: &Chapter, section: &Section) -> Table {
    let axis = question(&section.name).and_then(|question| question.axis);
    // Columns of figures that this run has not taken are left out.
    let columns: Vec<&Column> = chapter
        .columns
        .iter()
        .filter(|column| section.rows.iter().any(|row| cell(column, row, section).is_some()))
        .collect();
    let mut headings = vec!["row".to_owned()];
    headings.extend(axis.map(str::to_owned));
    headings.extend(columns.iter().map(|column| column.heading.to_owned()));
    let mut table = vec![headings];
    for row in &section.rows {
        let mut cells = vec![row.name.clone()];
        cells.extend(axis.map(|_| row.x.map_or_else(|| "-".to_owned(), words::spaced)));
        cells.extend(columns.iter().map(|column| words::spread(cell(column, row, section))));
        table.push(cells);
    }
    table
}

fn cell(column: &Column, row: &Row, section: &Section) -> Option<Spread> {
    match column.to {
        To::Itself => column.figure.of(row),
        To::Row(name) => column.figure.ratio(row, section.row_at(name, row.x)?),
        To::First => column.figure.ratio(row, section.row(&row.name)?),
    }
}

/// What was measured, held against what was aimed at; also with instances that serve 64 events.
pub(crate) fn targets_table(run: &Run) -> Table {
    let headings = ["target", "aim", "a fresh instance for each event", "an instance for 64 events"];
    let mut table: Table = vec![headings.map(str::to_owned).to_vec()];
    for target in TARGETS {
        let judged = |measured: Option<Spread>| {
            let word = measured.map(|measured| if target.bound.is_met(measured) { "met" } else { "missed" });
            word.map_or_else(|| "-".to_owned(), |word| format!("{word}: {}", words::spread(measured)))
        };
        let (fresh, reused) = (target.measured(run), target.measured_reused(run));
        table.push(vec![target.name.to_owned(), target.bound.words(target.unit), judged(fresh), judged(reused)]);
    }
    table
}

fn print_table(table: &Table) {
    let columns = table.first().map_or(0, Vec::len);
    let wide = |column: usize| table.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    for cells in table {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    }
    println!();
}

/// Whether a row is Tidemill, or there to be compared with.
pub(crate) fn is_ours(name: &str) -> bool {
    !["raw", "bare"].iter().any(|yardstick| name.starts_with(yardstick)) && !PEERS.iter().any(|peer| peer.name == name)
}

/// Whether this run has taken what is to be seen.
pub(crate) fn is_drawn(picture: &Picture, section: &Section) -> bool {
    let figure = match picture.form {
        Form::Bars(figure, _) | Form::Lines(figure, ..) => figure,
        Form::Cpu => Figure::Total,
    };
    section.rows.iter().any(|row| figure.of(row).is_some())
}

fn draw(picture: &Picture, section: &Section) -> String {
    match picture.form {
        Form::Bars(figure, scale) => bars(picture, section, figure, scale).svg(),
        Form::Cpu => cpu(picture, section).svg(),
        Form::Lines(figure, x, y) => lines(picture, section, figure, [x, y]).svg(),
    }
}

fn bars(picture: &Picture, section: &Section, figure: Figure, scale: plot::Scale) -> plot::Bars {
    let bar = |row: &Row| {
        let (sum, colour) = (figure.of(row)?, if is_ours(&row.name) { 0 } else { plot::GREY });
        Some(plot::Bar { label: row.name.clone(), parts: vec![(sum.median, colour)], sum })
    };
    let mut bars: Vec<plot::Bar> = section.rows.iter().filter_map(bar).collect();
    if scale == plot::Scale::Log {
        // So far apart that their order is what one looks for.
        bars.sort_by(|a, b| b.sum.median.total_cmp(&a.sum.median));
    }
    let alone = section.rows.iter().all(|row| is_ours(&row.name));
    plot::Bars {
        title: picture.title.to_owned(),
        axis: plot::Axis { label: picture.label.to_owned(), scale },
        legend: if alone { Vec::new() } else { vec![("Tidemill", 0), ("to compare with", plot::GREY)] },
        bars,
    }
}

fn cpu(picture: &Picture, section: &Section) -> plot::Bars {
    let bar = |row: &Row| {
        let parts = [Figure::Client, Figure::Redis].into_iter().zip(0..);
        let parts = parts.map(|(figure, colour)| Some((figure.of(row)?.median, colour)));
        Some(plot::Bar { label: row.name.clone(), parts: parts.collect::<Option<_>>()?, sum: Figure::Total.of(row)? })
    };
    plot::Bars {
        title: picture.title.to_owned(),
        axis: plot::Axis { label: picture.label.to_owned(), scale: plot::Scale::Linear },
        legend: vec![("client or host", 0), ("Redis", 1)],
        bars: section.rows.iter().filter_map(bar).collect(),
    }
}

fn lines(picture: &Picture, section: &Section, figure: Figure, scales: [plot::Scale; 2]) -> plot::Lines {
    let [x, y] = scales;
    let points = |name: &str| {
        let rows = section.rows.iter().filter(|row| row.name == name);
        rows.filter_map(|row| Some((row.x?, figure.of(row)?))).collect::<Vec<_>>()
    };
    let mut ours = 0..plot::GREY;
    let mut yardsticks = [plot::GREY, plot::GREY - 1].into_iter().cycle();
    let mut colour = |name: &str| if is_ours(name) { ours.next() } else { yardsticks.next() };
    let line = |name: &str| plot::Line {
        label: name.to_owned(),
        colour: colour(name).unwrap_or(plot::GREY),
        points: points(name),
    };
    let axis = question(&section.name).and_then(|question| question.axis).unwrap_or_default();
    plot::Lines {
        title: picture.title.to_owned(),
        x: plot::Axis { label: axis.to_owned(), scale: x },
        y: plot::Axis { label: picture.label.to_owned(), scale: y },
        lines: section.names().into_iter().map(line).filter(|line| !line.points.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use example::{pipeline, row, run, section};

    #[test]
    fn a_table_has_figures_and_their_ratios() {
        let run = pipeline();
        let (chapter, section) = told(&run).next().expect("a chapter");
        let table = table(chapter, section);
        assert_eq!(table[0][..4], ["row", "events/s", "to raw", "to bare"]);
        assert_eq!(table[3][0], "stateless");
        assert_eq!(table[3][1], "15 000 [7 500 - 30 000]");
        assert_eq!(table[3][2], "0.300");
        assert_eq!(table[3][3], "0.600");
        assert_eq!(table[3][4..], ["4.00", "2.00", "30.0"]);
    }

    #[test]
    fn the_noise_is_what_the_same_row_differs_by() {
        assert_eq!(noise(&pipeline()), Some(Spread { median: 1.25, min: 1.25, max: 1.25 }));
    }

    #[test]
    fn a_target_is_met_or_missed_and_what_was_not_measured_is_neither() {
        let table = targets_table(&pipeline());
        let of = |name: &str| table.iter().find(|cells| cells[0] == name).expect("a row of that name")[1..].to_vec();
        assert_eq!(of("stateless: rate to raw"), ["≥ 0.6", "missed: 0.300", "met: 0.600"]);
        assert_eq!(of("stateless: CPU of host and Redis"), ["≤ 10 µs an event", "met: 6.00", "met: 6.00"]);
        assert_eq!(of("emit: rate to raw"), ["≥ 0.25", "met: 0.250", "-"]);
        assert_eq!(of("keyed: rate to raw"), ["≥ 0.2", "-", "-"]);
    }

    #[test]
    fn a_peer_is_measured_at_its_best_of_each_round() {
        let rows =
            vec![row("stateless", &[100.0, 100.0]), row("bullmq-50", &[10.0, 5.0]), row("bullmq-200", &[5.0, 20.0])];
        let table = targets_table(&run(vec![section("peers", rows)]));
        let found = table.iter().find(|cells| cells[0] == "stateless: rate to BullMQ at its best").expect("the row");
        assert_eq!(found[2], "met: 7.50 [5.00 - 10.0]");
    }

    #[test]
    fn every_section_has_a_chapter_and_every_chapter_a_section() {
        let asked: Vec<&str> = sections::ALL.iter().map(|question| question.name).collect();
        let told: Vec<&str> = CHAPTERS.iter().map(|chapter| chapter.section).collect();
        assert!(asked.iter().all(|name| told.contains(name)), "add to CHAPTERS what is missing of {asked:?}");
        assert!(told.iter().all(|name| asked.contains(name)), "no section asks what is told in one of {told:?}");
        let mut files: Vec<&str> = CHAPTERS.iter().flat_map(|chapter| chapter.pictures).map(|it| it.file).collect();
        files.sort_unstable();
        assert!(files.windows(2).all(|pair| pair[0] != pair[1]), "two pictures in one file: {files:?}");
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("docs")).expect("a folder");
        write(&pipeline(), folder.path()).expect("written");
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).expect("a file");
        let again: Run = serde_json::from_str(&read(DATA)).expect("a run");
        assert_eq!(targets_table(&again), targets_table(&pipeline()));
        assert!(read("docs/performance/pipeline.svg").starts_with("<svg "));
        assert!(read(PAGE).contains("(performance/pipeline.svg)"));
    }
}
