//! The choice of each follower, with complete and with incomplete data.

use pretty_assertions::assert_eq;

use super::*;
use crate::api::metric::Metric;

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn candidate(number: u32, metrics: &[(&str, f64)], tags: &[(&str, &str)]) -> Candidate {
    let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), Metric::new(*value)));
    Candidate {
        version: version(number),
        is_ready: true,
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        metrics: Metrics::Known(metrics.collect()),
    }
}

fn choice(follower: &Follower, candidates: &[Candidate]) -> Result<Version, (Reason, String)> {
    match choose(follower, &Candidates::Known(candidates.to_vec())) {
        Choice::Version(version) => Ok(version),
        Choice::Unknown(cause) | Choice::Nobody(cause) => Err((cause.reason, cause.message)),
    }
}

fn auc(goal: Goal, tags: &[(&str, &str)]) -> Follower {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Follower::Best { metric: "auc".into(), goal, tags }
}

fn semver(range: &str) -> Follower {
    Follower::Semver { tag: "semver".into(), range: range.into() }
}

#[test]
fn latest_chooses_the_newest_ready_version() {
    let pending = Candidate { is_ready: false, ..candidate(12, &[], &[]) };
    let all = [candidate(9, &[], &[]), candidate(11, &[], &[]), candidate(10, &[], &[]), pending.clone()];
    assert_eq!(choice(&Follower::Latest, &all), Ok(version(11)));
    let (reason, message) = choice(&Follower::Latest, &[pending]).unwrap_err();
    assert_eq!(reason, Reason::NoCandidate);
    assert!(message.contains("READY"), "{message}");
}

#[test]
fn best_chooses_the_best_value_and_ties_go_to_the_newest() {
    let all = [
        candidate(1, &[("auc", 0.9)], &[]),
        candidate(2, &[("auc", 0.95)], &[]),
        candidate(3, &[("auc", 0.95)], &[]),
        candidate(4, &[("auc", f64::NAN)], &[]),
        candidate(5, &[("loss", 9.0)], &[]),
    ];
    assert_eq!(choice(&auc(Goal::Maximize, &[]), &all), Ok(version(3)));
    assert_eq!(choice(&auc(Goal::Minimize, &[]), &all), Ok(version(1)));
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(choice(&auc(Goal::Maximize, &[]), &reversed), Ok(version(3)));
    let (reason, message) = choice(&auc(Goal::Maximize, &[]), &all[3..]).unwrap_err();
    assert_eq!(reason, Reason::NoCandidate);
    assert!(message.contains("of 2 READY versions") && message.contains("(1 with NaN)"), "{message}");
}

#[test]
fn best_considers_only_versions_with_all_tags() {
    let all = [
        candidate(1, &[("auc", 0.9)], &[("region", "eu"), ("validated", "true")]),
        candidate(2, &[("auc", 0.99)], &[("region", "us"), ("validated", "true")]),
        candidate(3, &[("auc", 0.98)], &[("region", "eu")]),
    ];
    let tags = [("region", "eu"), ("validated", "true")];
    assert_eq!(choice(&auc(Goal::Maximize, &tags), &all), Ok(version(1)));
}

#[test]
fn the_best_is_unknown_while_a_run_cannot_be_read() {
    let cause = ReasonMessage::new(Reason::RegistryForbidden, "403");
    let unread = |tags| Candidate { metrics: Metrics::Unread(cause.clone()), ..candidate(2, &[], tags) };
    let good = candidate(1, &[("auc", 0.9)], &[("region", "eu")]);
    let all = [good.clone(), unread(&[])];
    assert_eq!(choice(&auc(Goal::Maximize, &[]), &all), Err((Reason::RegistryForbidden, "403".into())));
    // An unreadable version that cannot be chosen anyway does not matter.
    assert_eq!(choice(&auc(Goal::Maximize, &[("region", "eu")]), &all), Ok(version(1)));
    assert_eq!(choice(&Follower::Latest, &all), Ok(version(2)));
    for candidates in [Candidates::NotRead, Candidates::Unread(cause.clone())] {
        assert!(matches!(choose(&Follower::Latest, &candidates), Choice::Unknown(_)), "{candidates:?}");
    }
}

#[test]
fn semver_chooses_the_highest_version_in_the_range_and_ignores_invalid_tags() {
    let tagged = |number, semver| candidate(number, &[], &[("semver", semver)]);
    let all = [
        tagged(1, "2.0.9"),
        tagged(2, "v2.10.0"),
        tagged(3, "2.9.3"),
        tagged(4, "3.0.0"),
        tagged(5, "2.11.0-rc.1"),
        tagged(6, "newest"),
        candidate(7, &[], &[]),
        tagged(8, "2.9.3"),
    ];
    for (range, chosen) in [
        (">=2.1 <3", 2),
        (">=2.1, <3", 2),
        (">= 2.1 , < 2.10", 8),
        ("~2.0", 1),
        ("^2", 2),
        ("*", 4),
        ("=2.9.3", 8),
    ] {
        assert_eq!(choice(&semver(range), &all), Ok(version(chosen)), "{range}");
    }
    let (reason, message) = choice(&semver(">=4"), &all).unwrap_err();
    assert_eq!(reason, Reason::NoCandidate);
    assert!(message.contains("7 have the tag \"semver\", 6 of them with a semantic version"), "{message}");
    for range in ["two", "2.1 || 3", "1.0 - 2.0", ">", ""] {
        let (reason, message) = choice(&semver(range), &all).unwrap_err();
        assert_eq!(reason, Reason::InvalidRange, "{range}");
        assert!(message.contains("spec.follow.semver.range"), "{message}");
    }
}
