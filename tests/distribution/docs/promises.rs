//! The promises page lists exactly the tests that are named after promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pretty_assertions::assert_eq;

/// The tests of one promise: file and test.
type Shown = BTreeSet<(String, String)>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the promises in the name of a test: `promises_1_4_and_5_…` has three.
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

/// A function named after a promise.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    name: &'a str,
    /// Why it proves nothing, if so.
    defect: Option<&'static str>,
}

/// Returns the functions in a source file that are named after promises.
fn named_after_promises(text: &str) -> Vec<Named<'_>> {
    let mut attributes: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if let Some(name) = function(line) {
            if line.ends_with("();") {
                attributes.extend(attributes_by_macro(text));
            }
            if !promises(name).is_empty() {
                found.push(Named { name, defect: defect(&attributes) });
            }
            attributes.clear();
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    found
}

/// Returns the attributes that a macro of this file adds to each function given by name only: `stories! { fn
/// name(); }`.
fn attributes_by_macro(text: &str) -> impl Iterator<Item = &str> {
    let before = text.split_once("fn $name()").map(|(before, _)| before).unwrap_or_default();
    before
        .lines()
        .rev()
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| line.starts_with("#["))
}

/// Returns the name of the function that begins on a line.
fn function(line: &str) -> Option<&str> {
    let rest = line.split_once("fn ").filter(|(before, _)| {
        before.split_whitespace().all(|word| word == "async" || word == "const" || word.starts_with("pub"))
    });
    rest?.1.split(['(', '<']).next()
}

fn defect(attributes: &[&str]) -> Option<&'static str> {
    let any = |matches: fn(&str) -> bool| attributes.iter().any(|attribute| matches(attribute));
    if !any(|attribute| attribute == "#[test]" || attribute.starts_with("#[tokio::test")) {
        Some("is not a test")
    } else if any(|attribute| attribute.contains("ignore")) {
        Some("is ignored")
    } else if any(|attribute| attribute.starts_with("#[cfg")) {
        Some("is not compiled everywhere")
    } else {
        None
    }
}

/// Whether another file declares this one as a module; otherwise it is never compiled.
fn is_compiled(file: &Path) -> bool {
    let (module, folder) = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("main" | "lib") => return true,
        Some("mod") => (file.parent(), file.parent().and_then(Path::parent)),
        _ => (Some(file), file.parent()),
    };
    let name = module.and_then(Path::file_stem).and_then(|stem| stem.to_str()).expect("a module has a name");
    let folder = folder.expect("a module lies in a folder");
    let beside =
        fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is readable").path());
    let above = folder.with_extension("rs");
    let declares = |text: String| text.lines().any(|line| line.trim().ends_with(&format!("mod {name};")));
    beside.chain([above]).any(|path| path != file && fs::read_to_string(path).is_ok_and(declares))
}

fn in_the_code() -> BTreeMap<u8, Shown> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    by_promise(files.into_iter().flat_map(|path| {
        let text = fs::read_to_string(&path).expect("a source file is text");
        let file = path.strip_prefix(root()).expect("it is of this project").display().to_string();
        let named = named_after_promises(&text);
        assert!(named.is_empty() || is_compiled(&path), "no `mod` declares {file}, so it is never compiled");
        let shown = named.into_iter().map(|Named { name, defect }| {
            assert!(defect.is_none(), "{file}: {name} {}", defect.unwrap_or_default());
            (file.clone(), name.to_owned())
        });
        shown.collect::<Vec<_>>()
    }))
}

/// Parses the page: a section for each promise, `## 4. …`, with a row for each test: `| file | test |`.
fn on_the_page() -> BTreeMap<u8, Shown> {
    let page = fs::read_to_string(root().join("docs/promises.md")).expect("the page exists");
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
        (1..=12).chain([14]).collect::<Vec<u8>>(),
        "promises without a test"
    );
    assert_eq!(on_the_page(), code, "docs/promises.md and the names of the tests differ");
}

#[test]
fn a_promise_is_shown_only_by_a_test_that_runs() {
    // Without the prefix itself, which would turn them into promise tests of this file.
    let text = "
        #[test]
        fn @_1_plain() {}
        /// Described.
        #[tokio::test(start_paused = true)]
        // Why it is so.
        async fn @s_1_and_2_async() {}
        #[test]
        #[ignore = \"slow\"]
        fn @_1_ignored() {}
        #[test]
        #[cfg_attr(debug_assertions, ignore)]
        fn @_1_ignored_at_times() {}
        #[cfg(feature = \"more\")]
        #[test]
        fn @_1_left_out() {}
        #[test]
        fn other() {}
        fn @_1_helper() {}
        fn @_1_declared();
        let text = \"fn @_1_quoted() {}\";
    "
    .replace('@', "promise");
    let expected = [
        ("promise_1_plain", None),
        ("promises_1_and_2_async", None),
        ("promise_1_ignored", Some("is ignored")),
        ("promise_1_ignored_at_times", Some("is ignored")),
        ("promise_1_left_out", Some("is not compiled everywhere")),
        ("promise_1_helper", Some("is not a test")),
        ("promise_1_declared", Some("is not a test")),
    ];
    assert_eq!(named_after_promises(&text), expected.map(|(name, defect)| Named { name, defect }));
}

#[test]
fn a_macro_makes_tests_of_the_names_that_it_is_given() {
    let text = |attributes: &str| {
        let macro_ = format!("$(\n{attributes}\nfn $name() {{\n}}\n)*\n");
        macro_ + "stories! {\nfn @_1_story();\n}".replace('@', "promise").as_str()
    };
    let defect = |attributes: &str| named_after_promises(&text(attributes))[0].defect;
    assert_eq!(defect("#[test]"), None);
    assert_eq!(defect("#[test]\n#[ignore]"), Some("is ignored"));
    assert_eq!(defect(""), Some("is not a test"));
}
