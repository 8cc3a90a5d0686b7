//! Pictures as SVG, written by hand: bars that lie, and lines over an axis. No script and no fonts of our own; they are light
//! or dark as the reader's system is, and stand on a ground of their own, so that they can be read on any page.

use std::fmt::Write as _;

use crate::report::stats::Spread;
use crate::report::words::short;

/// Everybody's width; heights follow from what is shown. In the units of the picture.
const WIDTH: f64 = 760.0;
/// What a letter of the labels takes, about.
const LETTER: f64 = 6.6;
/// From one bar to the next.
const PITCH: f64 = 30.0;
const THICK: f64 = 16.0;
/// Room for the value behind a bar.
const VALUE: f64 = 120.0;
const PLOT_HEIGHT: f64 = 260.0;

/// One series after the other takes the next colour. Light, then dark; told apart also by those who see few colours.
const COLOURS: [(&str, &str); 6] = [
    ("#2a6fdb", "#6ea8fe"),
    ("#e0701b", "#f5a25d"),
    ("#1a936f", "#4fd1a5"),
    ("#8a4fcf", "#c39bf5"),
    ("#b8324f", "#f27a94"),
    ("#6b7280", "#9aa3b0"),
];
/// Index of the colour for what is there to be compared with.
pub(crate) const GREY: usize = COLOURS.len() - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// Lying bars: a row each, made of parts that are added up.
pub(crate) struct Bars {
    pub title: String,
    /// What the numbers are, with the unit. On a logarithmic axis, which has no zero to begin a bar at, there are dots.
    pub axis: Axis,
    /// What the colours mean; none if there is one only.
    pub legend: Vec<(&'static str, usize)>,
    pub bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub label: String,
    /// The medians of the parts, each with the index of its colour.
    pub parts: Vec<(f64, usize)>,
    /// Of the sum: the whisker and the number.
    pub sum: Spread,
}

pub(crate) struct Lines {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

pub(crate) struct Axis {
    pub label: String,
    pub scale: Scale,
}

pub(crate) struct Line {
    pub label: String,
    pub colour: usize,
    pub points: Vec<(f64, Spread)>,
}

impl Bars {
    pub(crate) fn svg(&self) -> String {
        let longest = self.bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0);
        let left = 24.0 + longest as f64 * LETTER + 10.0;
        let top = if !self.legend.is_empty() { 76.0 } else { 52.0 };
        let bottom = top + PITCH * self.bars.len() as f64;
        let (least, greatest) = ends(self.bars.iter().flat_map(|bar| [bar.sum.min, bar.sum.max]));
        let span = Span::around(least, greatest, self.axis.scale, left, WIDTH - VALUE);
        let mut svg = open(&self.title, bottom + 54.0);
        if !self.legend.is_empty() {
            legend(&mut svg, 24.0, 52.0, self.legend.iter().copied());
        }
        for tick in span.ticks() {
            let x = span.at(tick);
            line(&mut svg, "grid", (x, top), (x, bottom));
            text(&mut svg, "tick", (x, bottom + 18.0), "middle", &short(tick));
        }
        line(&mut svg, "axis", (left, top), (left, bottom));
        text(&mut svg, "tick", (span.middle(), bottom + 38.0), "middle", &self.axis.label);
        for (at, bar) in self.bars.iter().enumerate() {
            bar.draw(&mut svg, &span, top + PITCH * (at as f64 + 0.5));
        }
        svg + "</svg>\n"
    }
}

impl Bar {
    fn draw(&self, svg: &mut String, span: &Span, y: f64) {
        text(svg, "label", (span.from - 10.0, y + 4.0), "end", &self.label);
        let mut end = span.from;
        let mut sum = 0.0;
        let mut dots = String::new();
        for (value, colour) in &self.parts {
            sum += value;
            let (from, to) = (end, span.at(sum));
            let _ = match span.scale {
                Scale::Linear => writeln!(
                    svg,
                    r#"<rect class="f{colour}" x="{from:.1}" y="{:.1}" width="{:.1}" height="{THICK}" rx="2"/>"#,
                    y - THICK / 2.0,
                    (to - from).max(1.0)
                ),
                Scale::Log => writeln!(dots, r#"<circle class="f{colour} dot" cx="{to:.1}" cy="{y:.1}" r="6"/>"#),
            };
            end = to;
        }
        let (min, max) = (span.at(self.sum.min), span.at(self.sum.max));
        line(svg, "whisker", (min, y), (max, y));
        for end in [min, max] {
            line(svg, "whisker", (end, y - 4.0), (end, y + 4.0));
        }
        *svg += &dots;
        text(svg, "value", (max.max(end) + 10.0, y + 4.0), "start", &short(self.sum.median));
    }
}

impl Lines {
    pub(crate) fn svg(&self) -> String {
        let (left, top) = (84.0, if self.lines.len() > 1 { 82.0 } else { 58.0 });
        let bottom = top + PLOT_HEIGHT;
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (x_min, x_max) = ends(points().map(|(x, _)| *x));
        let (y_min, y_max) = ends(points().flat_map(|(_, y)| [y.min, y.max]));
        let x = Span::new(x_min, x_max, self.x.scale, left + 14.0, WIDTH - 40.0);
        let y = Span::around(y_min, y_max, self.y.scale, bottom, top);
        let mut svg = open(&self.title, bottom + 60.0);
        if self.lines.len() > 1 {
            legend(&mut svg, 24.0, 52.0, self.lines.iter().map(|line| (line.label.as_str(), line.colour)));
        }
        for tick in y.ticks() {
            line(&mut svg, "grid", (left, y.at(tick)), (WIDTH - 24.0, y.at(tick)));
            text(&mut svg, "tick", (left - 8.0, y.at(tick) + 4.0), "end", &short(tick));
        }
        line(&mut svg, "axis", (left, bottom), (WIDTH - 24.0, bottom));
        // The axis names the places that were measured.
        let mut places: Vec<f64> = points().map(|(x, _)| *x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        for place in places {
            line(&mut svg, "axis", (x.at(place), bottom), (x.at(place), bottom + 5.0));
            text(&mut svg, "tick", (x.at(place), bottom + 20.0), "middle", &short(place));
        }
        text(&mut svg, "tick", (f64::midpoint(left, WIDTH - 24.0), bottom + 42.0), "middle", &self.x.label);
        let middle = f64::midpoint(top, bottom);
        let _ = writeln!(
            svg,
            r#"<text class="tick" text-anchor="middle" transform="translate(26 {middle:.1}) rotate(-90)">{}</text>"#,
            escaped(&self.y.label)
        );
        for (at, line) in self.lines.iter().enumerate() {
            line.draw(&mut svg, &x, &y, (at as f64 - (self.lines.len() - 1) as f64 / 2.0) * 3.0);
        }
        svg + "</svg>\n"
    }
}

impl Line {
    /// `aside` keeps the whiskers of several lines apart.
    fn draw(&self, svg: &mut String, x: &Span, y: &Span, aside: f64) {
        let colour = self.colour;
        let places: Vec<String> = self
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x.at(*at) + aside, y.at(value.median)))
            .collect();
        let _ = writeln!(svg, r#"<polyline class="s{colour}" points="{}"/>"#, places.join(" "));
        for (at, value) in &self.points {
            let (x, low, high) = (x.at(*at) + aside, y.at(value.min), y.at(value.max));
            let _ =
                writeln!(svg, r#"<line class="s{colour} thin" x1="{x:.1}" y1="{low:.1}" x2="{x:.1}" y2="{high:.1}"/>"#);
            let middle = y.at(value.median);
            let _ = writeln!(svg, r#"<circle class="f{colour} dot" cx="{x:.1}" cy="{middle:.1}" r="4.5"/>"#);
        }
    }
}

/// Round numbers of a decade, and the first of the next one.
const ROUND: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
/// A logarithmic axis shows nothing below.
const LEAST: f64 = 0.001;

/// An axis: which value lies where.
struct Span {
    min: f64,
    max: f64,
    scale: Scale,
    from: f64,
    to: f64,
}

impl Span {
    fn new(min: f64, max: f64, scale: Scale, from: f64, to: f64) -> Self {
        // One place alone, or none, still wants an axis.
        let max = if max > min { max } else { min.max(1.0) * 2.0 };
        Self { min, max, scale, from, to }
    }

    /// For values: from zero, or on a logarithmic axis from the round number below the least to that above the greatest.
    fn around(least: f64, greatest: f64, scale: Scale, from: f64, to: f64) -> Self {
        let decade = |value: f64| 10f64.powf(value.max(LEAST).log10().floor());
        let below = ROUND.iter().rev().map(|step| step * decade(least)).find(|step| *step <= least);
        let above = ROUND.iter().map(|step| step * decade(greatest)).find(|step| *step >= greatest);
        match scale {
            Scale::Linear => Self::new(0.0, greatest, scale, from, to),
            Scale::Log => Self::new(below.unwrap_or(LEAST), above.unwrap_or(greatest), scale, from, to),
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.min) / (self.max - self.min),
            Scale::Log => (value / self.min).ln() / (self.max / self.min).ln(),
        };
        self.from + (self.to - self.from) * part
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }

    /// Round numbers within the axis.
    fn ticks(&self) -> Vec<f64> {
        let within = |tick: &f64| (self.min..=self.max * 1.000_001).contains(tick);
        if self.scale == Scale::Log {
            let decades = self.min.log10().floor() as i32..=self.max.log10().ceil() as i32;
            let wide = self.max / self.min > 300.0;
            let steps: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
            return ticks.filter(within).collect();
        }
        let rough = (self.max - self.min) / 5.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = ROUND.iter().map(|step| step * decade).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        (0..=10).map(|number| self.min + f64::from(number) * step).filter(within).collect()
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(value), max.max(value)))
}

fn open(title: &str, height: f64) -> String {
    let title = escaped(title);
    let (mut light, mut dark) = (String::new(), String::new());
    for (number, (day, night)) in COLOURS.iter().enumerate() {
        let _ = write!(light, ".f{number}{{fill:{day}}}.s{number}{{stroke:{day}}}");
        let _ = write!(dark, ".f{number}{{fill:{night}}}.s{number}{{stroke:{night}}}");
    }
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">
<style>
text{{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#333b47}}
.title{{font-size:15px;font-weight:600;fill:#111827}}.tick{{fill:#5b6472}}.value{{font-weight:600;font-variant-numeric:tabular-nums}}
.ground{{fill:#fff;stroke:#e3e6ea}}.grid{{stroke:#e8eaee}}.axis{{stroke:#9aa3b0}}.whisker{{stroke:#111827;stroke-width:1.2}}
polyline{{fill:none;stroke-width:2.2;stroke-linejoin:round}}.thin{{stroke-width:1.4;opacity:.55}}.dot{{stroke:#fff;stroke-width:1.4}}
{light}
@media (prefers-color-scheme:dark){{
text{{fill:#d3d9e2}}.title{{fill:#f3f5f8}}.tick{{fill:#9aa5b4}}
.ground{{fill:#12171f;stroke:#2b3440}}.grid{{stroke:#252d38}}.axis{{stroke:#5f6b7a}}.whisker{{stroke:#f3f5f8}}.dot{{stroke:#12171f}}
{dark}
}}
</style>
<rect class="ground" x="0.5" y="0.5" width="{}" height="{}" rx="8"/>
<text class="title" x="24" y="32">{title}</text>
"#,
        WIDTH - 1.0,
        height - 1.0
    )
}

fn legend<'a>(svg: &mut String, mut x: f64, y: f64, entries: impl Iterator<Item = (&'a str, usize)>) {
    for (label, colour) in entries {
        let _ =
            writeln!(svg, r#"<rect class="f{colour}" x="{x:.1}" y="{:.1}" width="12" height="12" rx="3"/>"#, y - 6.0);
        text(svg, "label", (x + 18.0, y + 4.0), "start", label);
        x += 18.0 + label.chars().count() as f64 * LETTER + 22.0;
    }
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#);
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        let ticks = |min, max, scale| Span::new(min, max, scale, 0.0, 1.0).ticks();
        assert_eq!(ticks(0.0, 93_000.0, Scale::Linear), [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0]);
        assert_eq!(ticks(100.0, 5000.0, Scale::Log), [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]);
        assert_eq!(ticks(15.0, 90_000.0, Scale::Log), [100.0, 1000.0, 10_000.0]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_number() {
        let sum = Spread { median: 50.0, min: 40.0, max: 100.0 };
        let bar = Bar { label: "a < b".into(), parts: vec![(30.0, 0), (20.0, 1)], sum };
        let legend = vec![("host", 0), ("Redis", 1)];
        let svg = Bars {
            title: "t".into(),
            axis: Axis { label: "µs".into(), scale: Scale::Linear },
            legend,
            bars: vec![bar],
        }
        .svg();
        // The axis goes from behind the label to the room for the value, and ends at 100.
        let left = 24.0 + 5.0 * LETTER + 10.0;
        let unit = (WIDTH - VALUE - left) / 100.0;
        assert!(
            svg.contains(&format!(r#"<rect class="f0" x="{left:.1}" y="83.0" width="{:.1}""#, 30.0 * unit)),
            "{svg}"
        );
        assert!(
            svg.contains(&format!(r#"x="{:.1}" y="83.0" width="{:.1}""#, left + 30.0 * unit, 20.0 * unit)),
            "{svg}"
        );
        assert!(svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn a_logarithmic_axis_gives_each_decade_the_same_room() {
        let span = Span::around(14.0, 900.0, Scale::Log, 0.0, 200.0);
        assert_eq!((span.min, span.max), (10.0, 1000.0));
        assert!((span.at(100.0) - 100.0).abs() < 1e-9);
    }
}
