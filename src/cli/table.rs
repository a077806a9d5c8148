//! A table for a person at a terminal, as kubectl prints one.

/// The rows, each as wide as its widest cell; three spaces between columns, none at the end of a line.
#[must_use]
pub fn table(rows: impl IntoIterator<Item: AsRef<[String]>>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or_default();
    let wide =
        |column: usize| rows.iter().filter_map(move |row| Some(row.as_ref().get(column)?.chars().count()));
    let widths: Vec<usize> = (0..count).map(|column| wide(column).max().unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
        let rows = [row("ALIAS", "BY"), row("ünï", "-"), row("a", "somebody")];
        assert_eq!(table(rows), "ALIAS   BY\nünï     -\na       somebody\n");
    }
}
