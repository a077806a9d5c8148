//! The page of the promises lists exactly the tests that are named after them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pretty_assertions::assert_eq;

/// What shows one promise: file and test.
type Shown = BTreeSet<(String, String)>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The promises in the name of a test: `promises_1_4_and_5_…` speaks of three.
fn promises(test: &str) -> Vec<u8> {
    let Some(rest) = test.strip_prefix("promises_").or_else(|| test.strip_prefix("promise_")) else {
        return Vec::new();
    };
    let numbers = rest.split('_').take_while(|word| *word == "and" || word.parse::<u8>().is_ok());
    numbers.filter_map(|word| word.parse().ok()).collect()
}

fn by_promise(tests: impl Iterator<Item = (String, String)>) -> BTreeMap<u8, Shown> {
    let mut shown: BTreeMap<u8, Shown> = BTreeMap::new();
    for (file, test) in tests {
        for promise in promises(&test) {
            shown.entry(promise).or_default().insert((file.clone(), test.clone()));
        }
    }
    shown
}

fn in_the_code() -> BTreeMap<u8, Shown> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    by_promise(files.into_iter().flat_map(|path| {
        let text = fs::read_to_string(&path).expect("a source file is text");
        let file = path.strip_prefix(root()).expect("it is of this project").display().to_string();
        let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next());
        names.map(|name| (file.clone(), name.to_owned())).collect::<Vec<_>>()
    }))
}

/// The page has a section for each promise, `## 4. …`, and in it a row for each test: `| file | test |`.
fn on_the_page() -> BTreeMap<u8, Shown> {
    let page = fs::read_to_string(root().join("docs/promises.md")).expect("the page is there");
    let mut shown = BTreeMap::new();
    for section in page.split("\n## ").skip(1) {
        let Some(number) = section.split_once('.').and_then(|(number, _)| number.parse::<u8>().ok()) else {
            continue;
        };
        let rows = section.lines().filter_map(|line| {
            let mut cells = line.split('`').skip(1).step_by(2);
            Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
        });
        shown.insert(number, rows.filter(|(file, _)| file.contains('/')).collect());
    }
    shown
}

#[test]
fn every_promise_has_its_tests_and_the_page_lists_them_all() {
    let code = in_the_code();
    assert_eq!(
        code.keys().copied().collect::<Vec<_>>(),
        (1..=12).collect::<Vec<u8>>(),
        "promises without a test"
    );
    assert_eq!(on_the_page(), code, "docs/promises.md and the names of the tests differ");
}
