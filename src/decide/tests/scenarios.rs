//! The stories in `scenarios/`: sequences that matter, and every counterexample that was ever found. A failure tells all
//! that happened.

use std::{fmt::Write, fs, path::Path};

use super::scenario::Scenario;

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/decide/tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut failures = String::new();
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy();
        let story: Scenario = serde_yaml::from_str(&fs::read_to_string(file).unwrap())
            .unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
        let broken = story.broken();
        if !broken.is_empty() {
            writeln!(failures, "\n{name}: {}\n{}\n{}", story.title, broken.join("\n"), story.told()).unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
    println!("{} stories", files.len());
}
