//! Builds MLflow's search filter for model names.
//!
//! A SQL lexer splits the filter into tokens, and MLflow then parses the list of `name IN (…)` as a Python
//! literal. Escaped as `\xNN`, a quote or a backslash is an ordinary character to the lexer and is unescaped
//! by Python.

use std::{collections::BTreeSet, fmt::Write};

use crate::api::names::ModelName;

/// Longer lists gain nothing: the time per model dominates.
const MAX_NAMES: usize = 100;
/// Maximum length of the encoded names in the URL. gunicorn rejects request lines above 4094 bytes; the rest
/// is for the path, other parameters and a page token.
const MAX_BYTES: usize = 3500;

/// Returns the filter that matches these models.
pub(super) fn names(names: &[&ModelName]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| quote(name.as_str())).collect();
    format!("name IN ({})", quoted.join(","))
}

/// Returns the filter that matches this model. Every server since 2.9 understands it, unlike a list with one
/// name.
///
/// MLflow has no way to write a quote inside quotes, nor a backslash before one. For a name that needs it,
/// the filter has a wildcard there, and may match other models too.
pub(super) fn name(name: &ModelName) -> String {
    let text = name.as_str();
    let is_plain = !text.contains(|c: char| c == '\\' || c.is_control());
    match ['\'', '"'].into_iter().find(|quote| !text.contains(*quote)) {
        Some(quote) if is_plain => format!("name = {quote}{text}{quote}"),
        _ => {
            let pattern = text.replace(|c: char| c == '\\' || c == '"' || c.is_control(), "_");
            format!("name LIKE \"{pattern}\"")
        }
    }
}

/// Splits names into chunks whose filter fits into a URL. A name that is too long by itself gets its own
/// chunk.
pub(super) fn chunks(names: &BTreeSet<ModelName>) -> Vec<Vec<&ModelName>> {
    let mut chunks: Vec<Vec<&ModelName>> = Vec::new();
    let mut room = 0;
    for name in names {
        let size = encoded_len(&quote(name.as_str())) + "%2C".len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < MAX_NAMES && size <= room => chunk.push(name),
            _ => {
                chunks.push(vec![name]);
                room = MAX_BYTES;
            }
        }
        room = room.saturating_sub(size);
    }
    chunks
}

fn quote(name: &str) -> String {
    let mut quoted = String::from("'");
    for c in name.chars() {
        match c {
            '\'' | '"' | '\\' | '\0'..='\x1f' | '\x7f' => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// Returns the encoded length of `text` in a query.
fn encoded_len(text: &str) -> usize {
    url::form_urlencoded::byte_serialize(text.as_bytes()).map(str::len).sum()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn set(names: impl IntoIterator<Item = String>) -> BTreeSet<ModelName> {
        names.into_iter().filter_map(|name| name.parse().ok()).collect()
    }

    #[test]
    fn names_are_quoted_for_the_lexer_and_for_python() {
        let unusual: Vec<ModelName> =
            ["it's", r#"a"b\"#, "Fraud (cards) ü", "x\ny"].map(|name| name.parse().unwrap()).into();
        assert_eq!(
            names(&unusual.iter().collect::<Vec<_>>()),
            r"name IN ('it\x27s','a\x22b\x5c','Fraud (cards) ü','x\x0ay')"
        );
    }

    #[test]
    fn one_name_is_compared_and_what_cannot_be_quoted_is_a_wildcard() {
        let filter = |text: &str| name(&text.parse().unwrap());
        assert_eq!(filter("Fraud (cards) ü"), "name = 'Fraud (cards) ü'");
        assert_eq!(filter("it's"), r#"name = "it's""#);
        assert_eq!(filter(r#"it's "new""#), r#"name LIKE "it's _new_""#);
        assert_eq!(filter(r"a\b"), r#"name LIKE "a_b""#);
        assert_eq!(filter("x\ny"), r#"name LIKE "x_y""#);
    }

    #[test]
    fn a_chunk_has_at_most_a_hundred_names() {
        let names = set((0..250).map(|i| format!("m{i:03}")));
        assert_eq!(chunks(&names).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(chunks(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn the_longest_name_is_not_lost() {
        let names = set(["😀".repeat(256), "b".to_owned(), "c".to_owned()]);
        let sizes: Vec<_> = chunks(&names).iter().map(Vec::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 3);
    }

    proptest! {
        #[test]
        fn chunks_hold_every_name_once_and_fit_into_a_url(texts in prop::collection::vec("\\PC{1,120}", 0..150)) {
            let all = set(texts);
            let chunks = chunks(&all);
            let flat: Vec<_> = chunks.iter().flatten().copied().collect();
            prop_assert_eq!(flat, all.iter().collect::<Vec<_>>());
            for chunk in chunks {
                prop_assert!(encoded_len(&names(&chunk)) <= MAX_BYTES + 20 || chunk.len() == 1);
            }
        }

        #[test]
        fn a_quoted_name_has_no_quote_inside(name in "\\PC*['\"\\\\]\\PC*") {
            let quoted = quote(&name);
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert!(!inner.contains(['\'', '"']));
            prop_assert_eq!(inner.matches('\\').count(), inner.matches("\\x").count());
        }
    }
}
