//! The documentation is complete, and names nothing that does not exist.

mod analysis;
mod experiments;
mod layers;
mod links;
mod promises;

use std::{fs, path::Path};

use laurel::api::{APPROVE_ANNOTATION, DEFAULT_ANNOTATION, RETRY_ANNOTATION, condition::Reason};
use laurel::render::labels;
use pretty_assertions::assert_eq;
use strum::IntoEnumIterator;

const FOLDER: &str = "docs";

fn reasons_page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join("reasons.md"))
        .expect("the page exists")
}

#[test]
fn every_reason_is_explained_in_the_order_of_the_list() {
    let page = reasons_page();
    let headings: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let reasons: Vec<&str> = Reason::iter().map(Into::into).collect();
    assert_eq!(headings, reasons);
}

#[test]
fn no_reason_is_a_bare_heading() {
    let page = reasons_page();
    for section in page.split("\n### ").skip(1) {
        let (heading, rest) = section.split_once('\n').expect("a heading is a line");
        let text = rest.split("\n## ").next().unwrap_or_default().trim();
        assert!(text.ends_with(['.', '`']) && text.len() > 20, "{heading}: {text:?}");
    }
}

#[test]
fn the_commands_name_what_exists() {
    let page = reasons_page();
    let known =
        [APPROVE_ANNOTATION, DEFAULT_ANNOTATION, RETRY_ANNOTATION, labels::MODEL_ALIAS, labels::VERSION];
    for name in known {
        assert!(page.contains(name), "{name}");
    }
    for word in page.split(|c: char| !(c.is_ascii_alphanumeric() || "./-".contains(c))) {
        // `kubectl annotate … name-` removes it.
        let word = word.trim_end_matches('-');
        assert!(!word.starts_with("laurel.dev/") || known.contains(&word), "{word}");
    }
}
