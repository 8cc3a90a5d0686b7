//! Tables for people: columns as wide as they need to be, numbers to the right, cells of plain text.

use tidemill_core::model::plain_text::PlainText;

pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![head.into_iter().map(str::to_owned).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| PlainText::from(cell).into()).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let numeric =
            |column: usize| self.rows.iter().skip(1).filter_map(|row| row.get(column)).all(|cell| is_number(cell));
        let right: Vec<bool> = (0..columns).map(numeric).collect();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let (width, right) = (widths[column], right[column]);
                    if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

/// 20000 -> "20 000": thousands apart, so that large counts can be read.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(["handler", "dead"]);
        table.row(["a".to_owned(), "5".to_owned()]);
        table.row(["longer-name".to_owned(), "1234".to_owned()]);
        assert_eq!(table.to_string(), "handler      dead\na               5\nlonger-name  1234\n");
        assert_eq!(
            (thousands(7), thousands(20_000), thousands(1_234_567)),
            ("7".into(), "20 000".into(), "1 234 567".into())
        );
    }
}
