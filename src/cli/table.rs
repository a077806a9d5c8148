//! A table for a terminal, like kubectl's, that fits its width.

/// The width if the terminal's is unknown, for instance in a pipe.
const DEFAULT_WIDTH: usize = 120;

/// The width to which columns are shrunk at most.
const MIN_COLUMN: usize = 11;

const GAP: &str = "  ";
const INDENT: &str = "    ";

/// A row, with text that is printed below it over the whole width.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) detail: Option<String>,
}

impl From<Vec<String>> for Row {
    fn from(cells: Vec<String>) -> Self {
        Self { cells, detail: None }
    }
}

/// Returns the width of the terminal: as set in `COLUMNS`, or as the terminal reports it.
pub(super) fn terminal_width() -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let reported = || {
        let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
        Some(usize::from(width.0))
    };
    set.or_else(reported).filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH)
}

/// Formats rows as aligned columns that fit into `width`, if possible: long cells continue on the next line.
pub(super) fn table(rows: &[Row], width: usize) -> String {
    let widths = column_widths(rows, width);
    let mut text = String::new();
    for Row { cells, detail } in rows {
        let cells: Vec<Vec<String>> =
            cells.iter().zip(&widths).map(|(cell, width)| wrap(cell, *width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or_default();
        for line in 0..height {
            let parts = cells.iter().zip(&widths).map(|(cell, width)| {
                let part = cell.get(line).map_or("", String::as_str);
                format!("{part:width$}")
            });
            text.push_str(parts.collect::<Vec<_>>().join(GAP).trim_end());
            text.push('\n');
        }
        for line in detail.iter().flat_map(|detail| wrap(detail, width.saturating_sub(INDENT.len()))) {
            text.push_str(INDENT);
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// Returns the width of each column: that of its widest cell, or less if the total is too wide. The widest
/// columns shrink first, as far as they can be wrapped at spaces, and only then further.
fn column_widths(rows: &[Row], width: usize) -> Vec<usize> {
    let count = rows.iter().map(|row| row.cells.len()).max().unwrap_or_default();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.cells.get(column));
    let widest = |column: usize| cells(column).map(|cell| cell.chars().count()).max().unwrap_or_default();
    let longest_word = |column: usize| {
        let words = cells(column).flat_map(|cell| cell.split_whitespace());
        words.map(|word| word.chars().count()).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = (0..count).map(widest).collect();
    let available = width.saturating_sub(GAP.len() * count.saturating_sub(1));
    shrink(&mut widths, &(0..count).map(longest_word).collect::<Vec<_>>(), available);
    shrink(&mut widths, &vec![MIN_COLUMN; count], available);
    widths
}

/// Shrinks the widest columns, but none below its minimum, until their sum is available.
fn shrink(widths: &mut [usize], minima: &[usize], available: usize) {
    while widths.iter().sum::<usize>() > available {
        let shrinkable = widths.iter_mut().zip(minima).filter(|(width, minimum)| **width > **minimum);
        let Some((widest, _)) = shrinkable.max_by_key(|(width, _)| **width) else { return };
        *widest -= 1;
    }
}

/// Splits text into lines of at most `width` characters: at spaces, and inside a word that is too long by
/// itself.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let characters: Vec<char> = word.chars().collect();
        for (index, part) in characters.chunks(width).enumerate() {
            let last = lines.last_mut().filter(|line| {
                let used = line.chars().count();
                index == 0 && (used == 0 || used + 1 + part.len() <= width)
            });
            match last {
                Some(line) => {
                    if !line.is_empty() {
                        line.push(' ');
                    }
                    line.extend(part);
                }
                None => lines.push(part.iter().collect()),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn row(cells: &[&str]) -> Row {
        cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>().into()
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [row(&["ALIAS", "BY"]), row(&["ünï", "-"]), row(&["a", "somebody"])];
        assert_eq!(table(&rows, 80), "ALIAS  BY\nünï    -\na      somebody\n");
    }

    #[test]
    fn long_cells_continue_on_the_next_line_and_details_use_the_whole_width() {
        let mut long = row(&["champion", "ana@example.com, commit 4f1c2d3"]);
        long.detail = Some("the pods of version 3 are not ready".to_owned());
        let expected = "\
ALIAS     BY
champion  ana@example.com,
          commit 4f1c2d3
    the pods of version 3
    are not ready
";
        assert_eq!(table(&[row(&["ALIAS", "BY"]), long], 27), expected);
    }

    proptest! {
        #[test]
        fn every_line_fits_and_no_character_is_lost(
            cells in prop::collection::vec("[a-zü]{0,30}( [a-zü]{0,30}){0,3}", 1..6), width in 80..200usize,
        ) {
            let row = Row { detail: Some(cells.join(" ")), cells };
            let text = table(std::slice::from_ref(&row), width);
            prop_assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
            prop_assert_eq!(letters(&text), 2 * letters(row.detail.as_deref().unwrap_or_default()));
        }
    }
}
