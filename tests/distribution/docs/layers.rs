//! The layers in ARCHITECTURE.md match the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pretty_assertions::assert_eq;
use regex::Regex;

/// What no file of a pure folder may name.
const EFFECTS: [&str; 9] = [
    "tokio::",
    "reqwest",
    "std::env",
    "std::fs",
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "kube::Client",
];

const PURE: [&str; 6] = ["analysis", "api", "decide", "render", "status", "audit"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the rank of each folder, from the block `layers` of the page: an import leads to a higher rank.
fn ranks(page: &str) -> BTreeMap<String, usize> {
    let block = page.split_once("```layers\n").and_then(|(_, rest)| rest.split_once("\n```"));
    let (lines, _) = block.expect("the page has the block");
    let rows = lines.lines().enumerate();
    rows.flat_map(|(rank, line)| line.split_whitespace().map(move |folder| (folder.to_owned(), rank)))
        .collect()
}

/// Returns the files of a folder, without those compiled only for tests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let only_tests = Regex::new(r"#\[cfg\([^\n]*\btest\b[^\n]*\)\]\s*(?:pub(?:\([a-z]+\))? )?mod (\w+);")
        .expect("it is a pattern");
    let mut found = Vec::new();
    let mut skipped = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let within = match path.file_name() {
                Some(name) if name == "mod.rs" => folder.to_owned(),
                _ => path.with_extension(""),
            };
            skipped.extend(only_tests.captures_iter(&text).map(|module| within.join(&module[1])));
            found.push(path);
        }
    }
    found.retain(|path| {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        is_rust
            && !skipped.iter().any(|module| path.starts_with(module) || path.with_extension("") == *module)
    });
    found
}

/// Returns the code of a file, without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file is text");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the folders that a text imports from.
fn imports(code: &str) -> BTreeSet<String> {
    let single = Regex::new(r"\bcrate::(\w+)").expect("it is a pattern");
    let mut found: BTreeSet<String> = single.captures_iter(code).map(|name| name[1].to_owned()).collect();
    for group in code.split("crate::{").skip(1) {
        let mut depth = 1;
        let mut name = String::new();
        for each in group.chars() {
            match each {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && (each.is_alphanumeric() || "_:".contains(each)) {
                name.push(each);
            } else if depth < 2 && !name.is_empty() && !each.is_whitespace() {
                found.insert(name.split(':').next().unwrap_or_default().to_owned());
                name.clear();
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn an_import_never_leads_to_a_layer_above_or_beside() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page exists");
    let ranks = ranks(&page);
    let folders = fs::read_dir(root().join("src")).expect("the folder exists");
    let folders = folders.map(|entry| entry.expect("it is readable").path()).filter(|path| path.is_dir());
    let mut wrong = Vec::new();
    let mut seen = 0;
    for folder in folders {
        let from = folder.file_name().and_then(|name| name.to_str()).expect("a name is text").to_owned();
        let rank = ranks.get(&from).unwrap_or_else(|| panic!("ARCHITECTURE.md has no layer for src/{from}"));
        for file in files(&folder) {
            for to in imports(&code(&file)) {
                seen += 1;
                if to != from && ranks.get(&to).is_none_or(|other| other <= rank) {
                    let file = file.strip_prefix(root()).unwrap_or(&file);
                    wrong.push(format!("{} imports {to}", file.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 100, "only {seen} imports were found");
}

#[test]
fn pure_folders_have_no_effects() {
    let mut wrong = Vec::new();
    for folder in PURE {
        for file in files(&root().join("src").join(folder)) {
            let code = code(&file);
            let named = EFFECTS.iter().filter(|effect| code.contains(**effect));
            wrong.extend(named.map(|effect| format!("{}: {effect}", file.display())));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn these_checks_see_an_import_in_every_form() {
    let code =
        "use crate::a::B;\nuse crate::{\n    c,\n    d::{E, f::G},\n    h::I,\n};\nlet x = crate::j::k();";
    let expected = ["a", "c", "d", "h", "j"].map(str::to_owned);
    assert_eq!(imports(code), BTreeSet::from(expected));
}
