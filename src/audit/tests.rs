use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{
    api::{
        condition::Reason,
        model_alias::{Cause, HistoryEntry, Outcome, Recorded},
        names::{AliasName, Version},
    },
    registry::{VersionFacts, VersionState},
};

type Tags = BTreeMap<String, String>;

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

fn entry(seconds: i64, number: u32, from: Option<u32>, outcome: Outcome) -> HistoryEntry {
    HistoryEntry {
        version: version(number),
        from: from.map(version),
        at: at(seconds),
        cause: Cause::Spec,
        outcome,
        duration: Some(std::time::Duration::from_secs(41).into()),
        requested_by: "ana@example.com".into(),
        commit: Some("4f1c2d3".into()),
        approvals: Vec::new(),
        reason: (outcome == Outcome::Rejected).then_some(Reason::SmokeTestFailed),
        message: (outcome == Outcome::Rejected).then(|| "it answered 500".into()),
        recorded: Recorded::Pending,
    }
}

fn logged(entry: &HistoryEntry) -> LogEntry {
    LogEntry::new(&alias("champion"), "risk/fraud-champion", entry)
}

/// The versions of a registry, by number.
type Registry = BTreeMap<u32, Tags>;

fn change(tags: &mut Tags, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Set(key, value) => drop(tags.insert(key, value)),
            Change::Remove(key) => drop(tags.remove(&key)),
        }
    }
}

/// Writes an entry as the operator does, at most `limit` of its changes.
fn write(registry: &mut Registry, number: u32, entry: &LogEntry, limit: usize) {
    let mut left = limit;
    let mut cut = |changes: Vec<Change>| {
        let taken: Vec<Change> = changes.into_iter().take(left).collect();
        left -= taken.len();
        taken
    };
    if let Some(from) = entry.from {
        let before = registry.entry(from.to_string().parse().unwrap()).or_default();
        let changes = cut(of_version_before(entry, before));
        change(before, changes);
    }
    let tags = registry.entry(number).or_default();
    let changes = cut(of_version(entry, tags));
    change(tags, changes);
}

fn versions(registry: &Registry) -> Vec<VersionFacts> {
    let facts = registry.iter().map(|(number, tags)| VersionFacts {
        version: version(*number),
        created_at: at(-1000),
        state: VersionState::Ready,
        model_uri: format!("models:/fraud/{number}").parse().unwrap(),
        run_id: None,
        description: String::new(),
        tags: tags.clone(),
    });
    facts.collect()
}

#[test]
fn a_promotion_a_rejection_and_a_rollback_leave_these_tags() {
    let mut registry = Registry::new();
    for (seconds, number, from, outcome) in [
        (0, 1, None, Outcome::Promoted),
        (60, 2, Some(1), Outcome::Promoted),
        (90, 3, Some(2), Outcome::Rejected),
        (120, 1, Some(2), Outcome::RolledBack),
    ] {
        write(&mut registry, number, &logged(&entry(seconds, number, from, outcome)), usize::MAX);
    }
    insta::assert_yaml_snapshot!(registry);
}

#[test]
fn a_rejected_version_that_is_promoted_later_loses_its_rejected_tags() {
    let mut registry = Registry::new();
    write(&mut registry, 2, &logged(&entry(0, 2, Some(1), Outcome::Rejected)), usize::MAX);
    let challenger =
        LogEntry { alias: alias("challenger"), ..logged(&entry(30, 2, None, Outcome::Promoted)) };
    write(&mut registry, 2, &challenger, usize::MAX);
    assert!(registry[&2].contains_key("laurel.rejected"), "a promotion for another alias does not count");
    write(&mut registry, 2, &logged(&entry(60, 2, Some(1), Outcome::Promoted)), usize::MAX);
    assert!(
        !registry[&2].contains_key("laurel.rejected") && !registry[&2].contains_key("laurel.rejected_at")
    );
    assert_eq!(Log::of(&versions(&registry)).entries.len(), 3, "the log keeps all of it");
}

#[test]
fn keys_and_values_fit_the_limits_of_mlflow() {
    let long = alias(&"a".repeat(255));
    let mut history = entry(0, 2, Some(1), Outcome::Rejected);
    history.requested_by = "b".repeat(5000);
    history.at = Timestamp::MAX;
    history.message = Some("m".repeat(500));
    let entry = LogEntry::new(&long, &format!("{}/{}", "n".repeat(63), "m".repeat(52)), &history);
    let fits = |key: &str| {
        key.len() <= 250 && key.chars().all(|each| each.is_ascii_alphanumeric() || "_-. /".contains(each))
    };
    for change in of_version(&entry, &Tags::new()) {
        let Change::Set(key, value) = change else { panic!("there is nothing to remove") };
        assert!(fits(&key) && value.chars().count() <= 5000, "{key}: {} characters", value.chars().count());
    }
}

#[test]
fn live_versions_are_found_for_a_point_in_time_and_for_a_day() {
    let mut registry = Registry::new();
    for (seconds, number, from) in [(0, 1, None), (3600, 2, Some(1)), (7200, 3, Some(2))] {
        write(&mut registry, number, &logged(&entry(seconds, number, from, Outcome::Promoted)), usize::MAX);
    }
    let log = Log::of(&versions(&registry));
    let live = |span: &str| -> Vec<String> {
        let log = log.clone().live_at(span.parse().unwrap());
        log.entries.iter().map(|line| line.version.to_string()).collect()
    };
    assert_eq!(live(&at(-1).to_string()), [""; 0]);
    assert_eq!(live(&at(0).to_string()), ["1"]);
    assert_eq!(live(&at(3600).to_string()), ["2"], "one replaces the other at that moment");
    assert_eq!(live("2027-01-15"), ["3", "2", "1"]);
    assert_eq!(live("2027-01-16"), ["3"]);
    assert_eq!(live("2027-01-14"), [""; 0]);
    for wrong in ["yesterday", "2027-13-01", "2027-01-15T10:00:00", ""] {
        assert!(wrong.parse::<Span>().is_err(), "{wrong}");
    }
}

#[test]
fn entries_of_a_later_release_are_parsed_and_invalid_ones_are_counted() {
    let line = r#"{"alias":"champion","outcome":"Celebrated","at":"2027-01-15T08:00:00Z","cause":"Dream","requestedBy":"ana",
        "modelAlias":"a/b","mood":"good"}"#;
    let tags = Tags::from([
        ("laurel.log.champion.1.Celebrated".into(), line.into()),
        ("laurel.log.champion.2.Promoted".into(), "not JSON".into()),
        ("laurel.logbook".into(), "somebody else's".into()),
    ]);
    let log = Log::of(&versions(&Registry::from([(1, tags)])));
    assert_eq!((log.entries.len(), log.unreadable), (1, 1));
    assert!(!log.entries[0].is_live());
}

proptest! {
    /// However often a write is interrupted and repeated, the log has each entry once, and the facts are
    /// those of an uninterrupted write.
    #[test]
    fn promise_7_an_interrupted_and_repeated_write_has_the_effect_of_one_write(
        story in proptest::collection::vec((1..4u32, 0..3u8, proptest::collection::vec(0..8usize, 0..4)), 1..12),
    ) {
        let (mut at_once, mut cut) = (Registry::new(), Registry::new());
        let mut serves = None;
        for (moment, (number, kind, cuts)) in (0..).zip(story.clone()) {
            let outcome = [Outcome::Promoted, Outcome::RolledBack, Outcome::Rejected][usize::from(kind)];
            if serves == Some(number) {
                continue;
            }
            let entry = logged(&entry(moment, number, serves, outcome));
            write(&mut at_once, number, &entry, usize::MAX);
            for limit in cuts.into_iter().chain([usize::MAX, usize::MAX]) {
                write(&mut cut, number, &entry, limit);
            }
            if outcome != Outcome::Rejected {
                serves = Some(number);
            }
        }
        prop_assert_eq!(&cut, &at_once);
        let log = Log::of(&versions(&cut));
        let live = log.entries.iter().find(|line| line.is_live()).map(|line| line.version);
        prop_assert_eq!(live, serves.map(version));
        let until = log.entries.iter().filter(|line| line.is_live() && line.until.is_none()).count();
        prop_assert_eq!(until, usize::from(serves.is_some()));
    }

    /// A late entry never replaces newer facts.
    #[test]
    fn a_late_entry_does_not_replace_newer_facts(late in 0..100i64) {
        let mut registry = Registry::new();
        write(&mut registry, 2, &logged(&entry(100, 2, Some(1), Outcome::Promoted)), usize::MAX);
        let before = registry[&2].clone();
        write(&mut registry, 2, &logged(&entry(late, 2, Some(3), Outcome::Promoted)), usize::MAX);
        let facts = |tags: &Tags| -> Tags {
            tags.clone().into_iter().filter(|(key, _)| !key.starts_with("laurel.log.")).collect()
        };
        prop_assert_eq!(facts(&registry[&2]), facts(&before));
        prop_assert!(at(late) + SignedDuration::from_secs(1) <= at(100));
        prop_assert_eq!(Log::of(&versions(&registry)).entries.len(), 2);
    }
}

#[test]
fn a_version_was_live_only_if_its_pods_served() {
    let tags = |entry: HistoryEntry| {
        let mut registry = Registry::new();
        write(&mut registry, 4, &logged(&entry), usize::MAX);
        registry.remove(&4).unwrap()
    };
    let champion = alias("champion");
    assert!(was_live(&champion, &tags(entry(0, 4, None, Outcome::Promoted))));
    assert!(!was_live(&alias("challenger"), &tags(entry(0, 4, None, Outcome::Promoted))));
    assert!(!was_live(&champion, &tags(entry(0, 4, None, Outcome::Rejected))));
    let without_pods = HistoryEntry { duration: None, ..entry(0, 4, None, Outcome::Promoted) };
    assert!(!was_live(&champion, &tags(without_pods)));
    let returned = HistoryEntry { duration: None, ..entry(0, 4, Some(5), Outcome::RolledBack) };
    assert!(was_live(&champion, &tags(returned)));
}

#[test]
fn what_a_container_wrote_stays_in_the_namespace() {
    let rejected = |message: &str| {
        let entry = HistoryEntry { message: Some(message.into()), ..entry(1, 5, None, Outcome::Rejected) };
        let changes = of_version(&logged(&entry), &Tags::new());
        let values = changes.into_iter().filter_map(|change| match change {
            Change::Set(_, value) => Some(value),
            Change::Remove(_) => None,
        });
        values.collect::<Vec<_>>().join("\n")
    };
    let crashed =
        rejected("version 5: the container ended with exit code 1; its last lines: password=secret");
    assert!(crashed.contains("exit code 1") && crashed.contains("risk/fraud-champion"), "{crashed}");
    assert!(!crashed.contains("secret"), "{crashed}");
    let answered = rejected(
        "version 5 failed its own input example: POST /invocations answered 500: password=secret; correct it",
    );
    assert!(answered.contains("answered 500"), "{answered}");
    assert!(!answered.contains("secret"), "{answered}");
    assert!(rejected("auc is 0.8, below 0.9").contains("auc is 0.8, below 0.9"));
}
