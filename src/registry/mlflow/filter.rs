//! Writes names into MLflow's search filter.
//!
//! MLflow reads the list of `name IN (…)` as a Python literal, and before that a SQL lexer cuts the filter into
//! pieces. Written as `\xNN`, a quote or a backslash is an ordinary character to the lexer and itself to Python.

use std::{collections::BTreeSet, fmt::Write};

use crate::api::names::ModelName;

/// Larger lists gain nothing: the time per model is what counts from here on.
const MAX_NAMES: usize = 100;
/// What the names of one filter may take in the URL. gunicorn refuses request lines above 4094 bytes; the rest is for
/// path, other parameters and a page token.
const MAX_BYTES: usize = 3500;

/// The filter that finds these models.
pub(super) fn names(names: &[&ModelName]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| quote(name.as_str())).collect();
    format!("name IN ({})", quoted.join(","))
}

/// The names in chunks whose filter fits into a URL. A name that is too long by itself is a chunk by itself.
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

/// The length of `text` in a query.
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
        let invalid: Vec<ModelName> =
            ["it's", r#"a"b\"#, "Fraud (cards) ü", "x\ny"].map(|name| name.parse().unwrap()).into();
        assert_eq!(
            names(&invalid.iter().collect::<Vec<_>>()),
            r"name IN ('it\x27s','a\x22b\x5c','Fraud (cards) ü','x\x0ay')"
        );
    }

    #[test]
    fn at_most_a_hundred_names_are_in_one_chunk() {
        let names = set((0..250).map(|i| format!("m{i:03}")));
        assert_eq!(chunks(&names).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(chunks(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn the_longest_name_is_a_chunk_by_itself() {
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
            let talk_lock = &quoted[1..quoted.len() - 1];
            prop_assert!(!talk_lock.contains(['\'', '"']));
            prop_assert_eq!(talk_lock.matches('\\').count(), talk_lock.matches("\\x").count());
        }
    }
}
