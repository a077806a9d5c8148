//! Links between pages lead to a file and, where they name one, to a heading in it; paths in the engineers'
//! pages exist.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pretty_assertions::assert_eq;

/// The pages beside those in `docs/`.
const AT_THE_ROOT: &str = ".";

/// The pages that name files of the source code.
const FOR_ENGINEERS: [&str; 5] =
    ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/releasing.md", "hack/README.md", "tests/README.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(root().join(page)).expect("a page is text")
}

/// Every page: the README and its neighbours, and all in these folders.
fn pages() -> Vec<PathBuf> {
    fn collect(folder: &Path, below: bool, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(root().join(folder)).expect("the folder is there") {
            let path = folder.join(entry.expect("it can be read").file_name());
            if root().join(&path).is_dir() {
                if below {
                    collect(&path, below, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(Path::new(AT_THE_ROOT), false, &mut found);
    for folder in ["docs", "tests", "hack"] {
        collect(Path::new(folder), true, &mut found);
    }
    found
}

/// The text outside of code blocks.
fn prose(page: &str) -> String {
    let mut is_code = false;
    let lines = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !is_code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|each| each.is_alphanumeric() || " -_".contains(*each));
            let anchor: String = kept.map(|each| if each == ' ' { '-' } else { each }).collect();
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
        })
        .collect()
}

/// Why a link on `page` leads nowhere.
fn broken(page: &Path, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let linked = if file.is_empty() { page.to_owned() } else { page.parent()?.join(file) };
    if !root().join(&linked).exists() {
        return Some(format!("{}: {target}: no such file", page.display()));
    }
    let is_missing = !anchor.is_empty() && !anchors(&read(&linked)).iter().any(|known| known == anchor);
    is_missing.then(|| format!("{}: {target}: no such heading", page.display()))
}

/// The targets of all links in a text: `[text](target)`.
fn targets(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = prose(&read(&page));
        let links = targets(&text);
        seen += links.len();
        wrong.extend(links.iter().filter_map(|target| broken(&page, target)));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 50, "only {seen} links were found");
}

#[test]
fn a_broken_link_is_found() {
    let page = Path::new("docs/reasons.md");
    assert_eq!(broken(page, "webhooks.md#set-up-mlflow"), None);
    assert_eq!(broken(page, "push.md"), Some("docs/reasons.md: push.md: no such file".to_owned()));
    let heading = "docs/reasons.md: webhooks.md#nowhere: no such heading".to_owned();
    assert_eq!(broken(page, "webhooks.md#nowhere"), Some(heading));
    assert_eq!(anchors("# A `b` c's\n```\n# d\n```\n## e, f\n## e, f"), ["a-b-cs", "e-f", "e-f-1"]);
}

/// Whether the index of the page's folder links it. An index itself is in the one above.
fn is_indexed(page: &Path) -> bool {
    let folder = page.parent().expect("a page is in a folder");
    let above = folder.parent().expect("docs is below the root");
    let (index, target) = match page.file_name() {
        Some(name) if name == "README.md" => (above, page.strip_prefix(above)),
        _ => (folder, page.strip_prefix(folder)),
    };
    let target = target.expect("it is below").to_str().expect("a page's name is text");
    targets(&read(&index.join("README.md"))).contains(&target)
}

#[test]
fn every_page_is_in_an_index() {
    let missing: Vec<PathBuf> =
        pages().into_iter().filter(|page| page.starts_with("docs") && !is_indexed(page)).collect();
    assert_eq!(missing, Vec::<PathBuf>::new());
}

#[test]
fn commands_name_test_targets_that_exist() {
    let mut seen = 0;
    for page in pages() {
        for rest in read(&page).split("--test ").skip(1) {
            let name: String =
                rest.chars().take_while(|each| each.is_alphanumeric() || *each == '_').collect();
            let main = root().join("tests").join(&name).join("main.rs");
            assert!(main.is_file(), "{}: --test {name}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} commands were found");
}

/// The changes that a page asks its reader to make: each with the file and the lines that are there before
/// it.
fn changes(page: &str) -> Vec<(String, String)> {
    let blocks = page.split("```diff\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks
        .map(|block| {
            let (header, lines) = block.split_once('\n').expect("a change has lines");
            let file = header.strip_prefix("--- a/").expect("a change names its file").to_owned();
            let before = lines.lines().filter_map(|line| line.strip_prefix([' ', '-']));
            (file, before.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn the_first_change_can_be_made() {
    let changes = changes(&read(Path::new("CONTRIBUTING.md")));
    assert_eq!(changes.len(), 2, "a test and a change");
    for (file, before) in changes {
        assert!(!before.is_empty() && read(Path::new(&file)).contains(&before), "{file} has no:\n{before}");
    }
}

#[test]
fn paths_that_engineers_are_sent_to_exist() {
    let mut seen = 0;
    for page in FOR_ENGINEERS {
        let text = read(Path::new(page));
        for word in prose(&text).split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "docs/", "config/", "charts/", "crds/"]
                .iter()
                .any(|top| word.starts_with(top));
            let is_example = word.contains([' ', '*', '<', '…']) || word.contains("NAME");
            if is_path && !is_example {
                assert!(root().join(word).exists(), "{page}: {word}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} paths were found");
}
