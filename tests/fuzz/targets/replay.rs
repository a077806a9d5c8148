//! Replays the inputs that were kept, and some that are near them: those written by hand, those that lead
//! somewhere of their own, and those that once found something.

#![expect(clippy::disallowed_methods, reason = "inputs are files, and the environment gives a seed")]

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use super::{TARGETS, Target};

/// How many inputs near the kept ones are tried.
const NEAR: usize = 1500;

fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder).join(target);
    // Git keeps no empty folder.
    let mut files: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One input that fails hides no other.
fn replay(name: &str) {
    let (_, target): (_, Target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let holds = |input: &[u8]| catch_unwind(|| target(input)).is_ok();
    let folders = ["seeds", "regressions", "corpus"];
    let files: Vec<_> = folders.into_iter().flat_map(|folder| inputs(folder, name)).collect();
    let kept: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(kept.len() > 10, "the inputs of {name} are missing");
    let failed: Vec<_> =
        files.iter().zip(&kept).filter(|(_, input)| !holds(input)).map(|(file, _)| file).collect();
    assert!(failed.is_empty(), "{} of {} inputs: {failed:#?}", failed.len(), files.len());

    let mut dice = Dice::new();
    for _ in 0..NEAR {
        let input = dice.near(&kept);
        if !holds(&input) {
            let file = env::temp_dir().join(format!("laurel-{name}-{}", dice.seed));
            fs::write(&file, &input).unwrap();
            panic!(
                "PROPTEST_RNG_SEED={} found {}; once it is put right, it belongs into \
                 tests/fuzz/regressions/{name}",
                dice.seed,
                file.display()
            );
        }
    }
    println!("{name}: {} inputs, and {NEAR} near them", kept.len());
}

/// The same throws for the same seed: `PROPTEST_RNG_SEED`, as for the property tests, or another one each
/// time.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn new() -> Self {
        let given = env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self { seed, state: seed }
    }

    /// `SplitMix64`.
    fn throw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.throw() % limit.max(1) as u64).unwrap()
    }

    fn range(&mut self, of: &[u8]) -> (usize, usize) {
        let start = self.below(of.len() + 1);
        (start, (start + self.below(24)).min(of.len()))
    }

    /// One of the inputs with a few changes, or with a piece of another.
    fn near(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = kept[self.below(kept.len())].clone();
        for _ in 0..=self.below(4) {
            let (start, end) = self.range(&input);
            match self.below(4) {
                0 => drop(input.drain(start..end)),
                1 => {
                    let other = &kept[self.below(kept.len())];
                    let (from, to) = self.range(other);
                    drop(input.splice(start..end, other[from..to].iter().copied()));
                }
                2 => input.insert(start, self.throw().to_le_bytes()[0]),
                _ => {
                    if let Some(byte) = input.get_mut(start) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        input
    }
}

#[test]
fn promise_3_no_response_counts_as_absence_unless_it_is_explicit() {
    replay("mlflow_bodies");
}

#[test]
fn any_name_is_rejected_or_gives_valid_and_distinct_names() {
    replay("names");
}

#[test]
fn promise_10_no_invalid_object_leads_to_an_action() {
    replay("spec_to_decision");
}

#[test]
fn promise_10_a_template_is_rejected_or_merged_in_full() {
    replay("template_merge");
}
