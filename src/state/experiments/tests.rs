//! Rounds of an experiment.

use jiff::{SignedDuration, Timestamp};
use pretty_assertions::assert_eq;

use super::contest::{Counting, arms};
use crate::{
    analysis::{
        experiment::{ExperimentRules, Goal, Kind, Metric},
        ledger::{Arm, Counters, Gap, Outcomes, PodUid, Round, Scrape},
        live::Assignment,
    },
    api::names::Version,
    decide::experiment::{Contest, ContestKey},
    state::counted::{Counted, Wanted},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn contest() -> Contest {
    let version = |number| Version::new(number).unwrap();
    Contest {
        key: ContestKey {
            champion: version(4),
            alias: "one".to_owned(),
            challenger: version(4),
            models: [None, None],
        },
        since: at(0),
        weights: [90, 10],
        evidence: None,
        rules: ExperimentRules {
            false_alarm: 0.05,
            challengers: 1,
            min_samples: 1000,
            at_least: SignedDuration::from_hours(1),
            at_most: SignedDuration::from_hours(24),
            primary: Metric {
                name: "approved".to_owned(),
                kind: Kind::Share,
                goal: Goal::Maximize,
                margin: 0.0,
            },
            guardrails: vec![("failures".to_owned(), 1.0)],
            min_failures: 5,
            assignment: Assignment::default(),
        },
    }
}

fn wanted() -> Vec<Wanted> {
    let wanted = [("approved", Counted::Class("1".to_owned())), ("failures", Counted::Failures)];
    wanted.map(|(name, counted)| Wanted { name: name.to_owned(), counted }).to_vec()
}

/// What a pod of an arm has counted in all: half of it approved.
fn scrape(arm: &Arm, seconds: i64, requests: u64) -> Scrape {
    let outcomes = |bad| Outcomes { bad, total: requests };
    Scrape {
        arm: arm.clone(),
        pod: PodUid(arm.0.clone()),
        started_at: at(-1000),
        at: at(seconds),
        counters: Ok(Counters {
            requests,
            checks: [("approved".to_owned(), outcomes(requests / 2)), ("failures".to_owned(), outcomes(0))]
                .into(),
            values: std::collections::BTreeMap::new(),
        }),
    }
}

fn samples(counting: &Counting) -> [u64; 2] {
    let evidence = counting.view().evidence;
    [0, 1].map(|index| evidence.arms()[index].samples(Kind::Share))
}

#[test]
fn both_arms_are_counted_from_the_first_round_and_other_arms_are_not() {
    let (contest, wanted) = (contest(), wanted());
    let mut counting = Counting::new("champion", &contest, &wanted, at(0));
    let [champion, challenger] = arms("champion", &contest.key);
    assert_ne!(champion, challenger, "both serve a version 4");
    let other = Arm("two/9".to_owned());
    let mut news = Vec::new();
    for step in 0..20_u32 {
        let (seconds, n) = (i64::from(step) * 30, u64::from(step));
        let scrapes = vec![
            scrape(&champion, seconds, 10_000 + 90 * n),
            scrape(&challenger, seconds, 500 + 10 * n),
            scrape(&other, seconds, 10_000 * n),
        ];
        let round = Round { at: at(seconds), weights: Vec::new(), scrapes };
        news.push(counting.add(&round, at(seconds)));
    }
    let [of_champion, of_challenger] = samples(&counting);
    assert_eq!(of_champion, 9 * of_challenger);
    assert!((150..=190).contains(&of_challenger), "without the first minute: {of_challenger}");
    assert_eq!(
        news.iter().filter(|is_news| **is_news).count(),
        2,
        "the first batch, and five minutes later: {news:?}"
    );
}

#[test]
fn evidence_of_before_is_gone_on_from_and_an_outage_is_news_once() {
    let (mut contest, wanted) = (contest(), wanted());
    let mut counting = Counting::new("champion", &contest, &wanted, at(0));
    let [champion, challenger] = arms("champion", &contest.key);
    let round = |seconds: i64, is_there: bool| {
        let n = u64::try_from(seconds / 30).unwrap();
        let mut scrapes = vec![scrape(&champion, seconds, 90 * n), scrape(&challenger, seconds, 10 * n)];
        if !is_there {
            scrapes[1].counters = Err(Gap::Unreachable);
        }
        Round { at: at(seconds), weights: Vec::new(), scrapes }
    };
    for step in 0..10 {
        counting.add(&round(step * 30, true), at(step * 30));
    }
    let before = samples(&counting);
    let news: Vec<bool> =
        (10..14).map(|step| counting.add(&round(step * 30, false), at(step * 30))).collect();
    assert_eq!(news, [false, true, false, false]);
    assert_eq!(samples(&counting), before);
    assert_eq!(counting.view().outage.map(|outage| outage.gap), Some(Gap::Unreachable));

    contest.evidence = Some(counting.view().evidence);
    let mut after = Counting::new("champion", &contest, &wanted, at(600));
    assert!(counting.is_about(&contest) && samples(&after) == before);
    for step in 20..30 {
        after.add(&round(step * 30, true), at(step * 30));
    }
    assert!(samples(&after)[1] > before[1] && after.view().outage.is_none());
}
