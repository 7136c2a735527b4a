//! Columns of text, aligned by kubectl's rule: three spaces after the widest cell, six characters
//! at least. Lines never wrap and are never cut.

use crate::text::clean;

const GAP: usize = 3;
const LEAST: usize = 6;

/// A table whose lines come one by one; widths only grow, so that rows of a watch stay aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Makes the columns wide enough for a row.
    pub(crate) fn fit<T: AsRef<str>>(&mut self, row: &[T]) {
        self.widths.resize(self.widths.len().max(row.len()), LEAST);
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(clean(cell.as_ref()).chars().count() + GAP);
        }
    }

    /// A row as a line, without spaces at its end.
    pub(crate) fn line<T: AsRef<str>>(&self, row: &[T]) -> String {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&self.widths) {
            let cell = clean(cell.as_ref());
            line += &cell;
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// All lines of a table with its header.
pub(crate) fn lines(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut table = Table::default();
    table.fit(header);
    rows.iter().for_each(|row| table.fit(row));
    std::iter::once(table.line(header)).chain(rows.iter().map(|row| table.line(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &[&str], rows: &[&[&str]], lines_wanted: &[&str]) {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect();
        assert_eq!(lines(header, &rows), lines_wanted);
    }

    #[test]
    fn columns_are_aligned_by_their_widest_cell() {
        check(
            &["NAME", "TYPE", "AGE"],
            &[&["web", "ClusterIP", "5s"], &["a-long-name", "NodePort", "2d"]],
            &[
                "NAME          TYPE        AGE",
                "web           ClusterIP   5s",
                "a-long-name   NodePort    2d",
            ],
        );
        check(&["A", "B"], &[&["x", ""]], &["A     B", "x"]);
        check(&["A", "B"], &[&["é", "y"]], &["A     B", "é     y"]);
    }

    #[test]
    fn a_cell_can_not_leave_its_row() {
        check(
            &["NAME", "X"],
            &[&["a\nb\u{1b}[2J", "y"]],
            &["NAME            X", "a\\nb\\u{1b}[2J   y"],
        );
    }
}
