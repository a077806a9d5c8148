//! The tests that `docs/analysis-internals.md` names exist, and no requirement or property is left out.

use std::{collections::BTreeSet, fs, path::Path};

use pretty_assertions::assert_eq;
use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/analysis-internals.md")).expect("the page exists")
}

/// Returns the rows of the tables of requirements and properties: number and cells.
fn rows(page: &str) -> Vec<(String, String)> {
    let row = Regex::new(r"(?m)^\| (P?\d+) \| (.*) \|$").expect("it is a pattern");
    row.captures_iter(page).map(|row| (row[1].to_owned(), row[2].to_owned())).collect()
}

/// Collects the names of all test functions in a folder.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    let function = Regex::new(r"#\[(?:tokio::)?test\]\s*(?:#\[[^\n]*\]\s*)*(?:async )?fn (\w+)")
        .expect("it is a pattern");
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() {
            tests(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.extend(function.captures_iter(&text).map(|name| name[1].to_owned()));
        }
    }
}

#[test]
fn every_requirement_and_property_is_listed() {
    let numbers: Vec<String> = rows(&page()).into_iter().map(|(number, _)| number).collect();
    let requirements = (1..=41).map(|number| number.to_string());
    let properties = (1..=13).map(|number| format!("P{number}"));
    assert_eq!(numbers, requirements.chain(properties).collect::<Vec<_>>());
}

#[test]
fn the_named_tests_exist() {
    let mut known = BTreeSet::new();
    for folder in ["src/analysis", "src/decide/tests", "src/state/live", "tests/full"] {
        tests(&root().join(folder), &mut known);
    }
    let name = Regex::new(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`").expect("it is a pattern");
    let rows = rows(&page());
    let named: Vec<&str> = rows
        .iter()
        .flat_map(|(_, cells)| name.captures_iter(cells).filter_map(|name| name.get(1)))
        .map(|name| name.as_str())
        .collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert_eq!(missing, Vec::<&&str>::new());
    assert!(named.len() > 60, "only {} tests are named", named.len());
}
