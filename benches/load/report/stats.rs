//! From samples to figures: medians with the least and the greatest, and ratios taken within each round.

use crate::model::{Row, Run, Section};

/// What several rounds say about one thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` if nothing was measured.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// Something that a row has for each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Events a second.
    Rate,
    /// Processor time per event, in microseconds: of the client or host, of Redis, of both.
    Client,
    Redis,
    Total,
    /// Most memory resident in the client or host, in MiB.
    Memory,
    /// One of `Row::extra`.
    Extra(&'static str),
}

impl Figure {
    pub(crate) fn each(self, row: &Row) -> Vec<f64> {
        let samples = row.samples.iter();
        match self {
            Self::Rate => samples.map(|sample| sample.events_per_s).collect(),
            Self::Client => samples.map(|sample| sample.client_us).collect(),
            Self::Redis => samples.map(|sample| sample.redis_us).collect(),
            Self::Total => samples.map(|sample| sample.client_us + sample.redis_us).collect(),
            Self::Memory => samples.map(|sample| sample.client_mib).collect(),
            Self::Extra(name) => row.extra.get(name).cloned().unwrap_or_default(),
        }
    }

    pub(crate) fn of(self, row: &Row) -> Option<Spread> {
        Spread::of(self.each(row))
    }

    /// What `row` has of this, in parts of what `reference` has in the same round.
    pub(crate) fn ratio(self, row: &Row, reference: &Row) -> Option<Spread> {
        Spread::of(self.each(row).iter().zip(self.each(reference)).map(|(a, b)| a / b).collect())
    }
}

impl Run {
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }
}

impl Section {
    /// The first row of this name.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The row of this name at this place of the axis; without one, wherever it is.
    pub(crate) fn row_at(&self, name: &str, x: Option<f64>) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name && (x.is_none() || row.x == x))
    }

    /// The names of the rows, each once, in their order.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example::{row, section};

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 30.0]).expect("four values");
        assert_eq!(spread, Spread { median: 3.0, min: 1.0, max: 30.0 });
        assert_eq!(Spread::of(vec![7.0]), Some(Spread { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn ratios_are_taken_within_each_round() {
        // The machine is twice as slow in the second round; the ratio is not.
        let (raw, ours) = (row("raw", &[100.0, 50.0]), row("ours", &[60.0, 30.0]));
        assert_eq!(Figure::Rate.ratio(&ours, &raw), Some(Spread { median: 0.6, min: 0.6, max: 0.6 }));
    }

    #[test]
    fn a_reference_is_looked_for_at_the_same_place_of_the_axis() {
        let mut section = section("latency", vec![row("bare", &[1.0]), row("bare", &[2.0])]);
        section.rows[0].x = Some(100.0);
        section.rows[1].x = Some(1000.0);
        assert_eq!(section.row_at("bare", Some(1000.0)).map(|row| row.samples[0].events_per_s), Some(2.0));
        assert_eq!(section.names(), ["bare"]);
    }
}
