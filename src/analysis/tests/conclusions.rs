//! What findings mean for traffic.

use jiff::SignedDuration;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use strum::IntoEnumIterator;

use super::support::{pair, seconds};
use crate::analysis::live::{
    Check, Conclusion, Finding, LiveRules, Move, OnRegression, Phase, Progress, Reason, Verdict,
    WhenUndecided, conclude,
};

fn finding(check: &str, verdict: Verdict) -> Finding {
    let reason = match verdict {
        Verdict::Unknown => Reason::MetricsUnreachable,
        Verdict::Undecided => Reason::Watching,
        Verdict::Untrusted => Reason::SplitMismatch,
        Verdict::Worse => Reason::Regressed,
        Verdict::NoWorse => Reason::NoWorse,
        Verdict::Suspect => Reason::ManyRegressed,
        Verdict::NotJudged => Reason::NoBaseline,
    };
    Finding {
        check: check.to_owned(),
        verdict,
        reason,
        counted: pair((40, 48_211), (31, 2_544)),
        evidence: 9.24,
        needed: 5.3,
        evidence_no_worse: -3.0,
        needed_no_worse: 4.6,
        message: format!("{check} is {verdict}"),
    }
}

fn rules(actions: [Option<OnRegression>; 2]) -> LiveRules {
    let check = |name: &str, on_regression| Check { on_regression, ..Check::new(name) };
    LiveRules::new(vec![check("failures", actions[0]), check("slow", actions[1])])
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// A step of at least 5 and at most 60 minutes, some minutes after it began; data were there all the time.
fn step(after: i64) -> Progress {
    let phase = Phase::Step { at_least: minutes(5), at_most: Some(minutes(60)) };
    Progress { phase, began_at: seconds(0), covered: minutes(after), are_many_worse: false }
}

fn watching(after: i64) -> Progress {
    Progress { phase: Phase::Watch { lasts: minutes(60) }, ..step(after) }
}

fn concluded(rules: &LiveRules, verdicts: [Verdict; 2], progress: &Progress) -> Conclusion {
    let findings = [finding("failures", verdicts[0]), finding("slow", verdicts[1])];
    let now = seconds(0) + progress.covered;
    conclude(&findings, rules, progress, now)
}

fn outcome(verdicts: [Verdict; 2], progress: &Progress) -> (Verdict, Reason, Move) {
    let Conclusion { verdict, reason, next, .. } = concluded(&rules([None; 2]), verdicts, progress);
    (verdict, reason, next)
}

#[test]
fn a_step_goes_on_only_when_every_check_says_no_worse() {
    use Verdict::{NoWorse, NotJudged, Undecided, Unknown, Untrusted};
    assert_eq!(outcome([NoWorse; 2], &step(4)), (NoWorse, Reason::NoWorse, Move::Stay));
    assert_eq!(outcome([NoWorse; 2], &step(5)), (NoWorse, Reason::NoWorse, Move::Advance));
    for other in [Undecided, Unknown, Untrusted, NotJudged] {
        assert_eq!(outcome([NoWorse, other], &step(30)).2, Move::Stay, "{other}");
    }
    assert_eq!(conclude(&[], &rules([None; 2]), &step(30), seconds(1800)).next, Move::Stay);
}

#[test]
fn one_check_that_is_worse_sends_traffic_back_at_once() {
    for other in Verdict::iter() {
        let seen = outcome([other, Verdict::Worse], &step(0));
        assert_eq!(seen, (Verdict::Worse, Reason::Regressed, Move::Back), "{other}");
    }
    assert_eq!(outcome([Verdict::NoWorse, Verdict::Worse], &watching(59)).2, Move::Back);
}

#[test]
fn the_four_ends_of_a_step() {
    let at_end = |when_undecided, verdict| {
        let rules = LiveRules { when_undecided, ..rules([None; 2]) };
        let Conclusion { reason, next, .. } = concluded(&rules, [Verdict::NoWorse, verdict], &step(60));
        (reason, next)
    };
    let undecided = Verdict::Undecided;
    assert_eq!(at_end(WhenUndecided::Hold, undecided), (Reason::Undecided, Move::Stay));
    assert_eq!(at_end(WhenUndecided::Promote, undecided), (Reason::Undecided, Move::Advance));
    assert_eq!(at_end(WhenUndecided::Reject, undecided), (Reason::Undecided, Move::Back));
    assert_eq!(at_end(WhenUndecided::Reject, Verdict::NoWorse), (Reason::NoWorse, Move::Advance));
    for when in [WhenUndecided::Hold, WhenUndecided::Promote, WhenUndecided::Reject] {
        // Where nothing is known, the time decides nothing.
        assert_eq!(at_end(when, Verdict::Unknown), (Reason::MetricsUnreachable, Move::Stay));
        assert_eq!(at_end(when, Verdict::Untrusted), (Reason::SplitMismatch, Move::Stay));
    }
}

#[test]
fn time_without_data_counts_for_nothing() {
    let hour = seconds(3600);
    let findings = [finding("failures", Verdict::NoWorse)];
    let blind = Progress { covered: minutes(4), ..step(0) };
    assert_eq!(conclude(&findings, &rules([None; 2]), &blind, hour).next, Move::Stay);
    let blind = Progress { covered: minutes(59), ..watching(0) };
    assert_eq!(conclude(&findings, &rules([None; 2]), &blind, hour).next, Move::Stay);
}

#[test]
fn a_watch_ends_when_its_time_is_over() {
    for verdict in [Verdict::NoWorse, Verdict::Undecided, Verdict::NotJudged] {
        assert_eq!(outcome([verdict; 2], &watching(59)).2, Move::Stay);
        assert_eq!(outcome([verdict; 2], &watching(60)).2, Move::Finish);
    }
    assert_eq!(outcome([Verdict::Unknown; 2], &watching(60)).2, Move::Stay);
}

#[test]
fn many_at_once_are_not_believed() {
    let many = Progress { are_many_worse: true, ..step(1) };
    let seen = outcome([Verdict::NoWorse, Verdict::Worse], &many);
    assert_eq!(seen, (Verdict::Suspect, Reason::ManyRegressed, Move::Stay));
}

#[test]
fn each_check_may_have_an_action_of_its_own() {
    use OnRegression::{Hold, Report, RollBack};
    let next =
        |actions: [OnRegression; 2], verdicts| concluded(&rules(actions.map(Some)), verdicts, &step(30)).next;
    let second_is_worse = [Verdict::NoWorse, Verdict::Worse];
    assert_eq!(next([RollBack, Hold], second_is_worse), Move::Stay);
    assert_eq!(next([RollBack, Report], second_is_worse), Move::Advance);
    assert_eq!(next([Hold, RollBack], second_is_worse), Move::Back);
    assert_eq!(next([Report, RollBack], [Verdict::Worse, Verdict::Undecided]), Move::Stay);
}

#[test]
fn messages_and_tags_have_the_numbers() {
    let worse = concluded(&rules([None; 2]), [Verdict::NoWorse, Verdict::Worse], &step(1));
    assert_eq!(worse.message, "slow is Worse. failures is NoWorse");
    assert_eq!(worse.tag, "Regressed: slow 31 of 2544 against 40 of 48211, evidence 9.2 of 5.3");
    let many = Progress { are_many_worse: true, ..step(1) };
    assert_eq!(concluded(&rules([None; 2]), [Verdict::Worse; 2], &many).tag, "ManyRegressed");
}

/// What a check may find; only all of them together are suspect.
fn verdicts() -> impl Strategy<Value = Verdict> {
    prop::sample::select(Verdict::iter().filter(|it| *it != Verdict::Suspect).collect::<Vec<_>>())
}

fn actions() -> impl Strategy<Value = OnRegression> {
    prop::sample::select(vec![OnRegression::RollBack, OnRegression::Hold, OnRegression::Report])
}

fn progress() -> impl Strategy<Value = Progress> {
    (any::<bool>(), 0_i64..120, any::<bool>()).prop_map(|(is_step, after, are_many_worse)| {
        let progress = if is_step { step(after) } else { watching(after) };
        Progress { are_many_worse, ..progress }
    })
}

fn ends() -> impl Strategy<Value = WhenUndecided> {
    prop::sample::select(vec![WhenUndecided::Hold, WhenUndecided::Promote, WhenUndecided::Reject])
}

proptest! {
    #[test]
    fn traffic_moves_only_with_proof(
        found in prop::collection::vec(verdicts(), 2), progress in progress(), when_undecided in ends(),
    ) {
        let rules = LiveRules { when_undecided, ..rules([None; 2]) };
        let Conclusion { verdict, next, .. } = concluded(&rules, [found[0], found[1]], &progress);
        match verdict {
            Verdict::Worse => prop_assert_eq!(next, Move::Back),
            Verdict::Unknown | Verdict::Untrusted | Verdict::Suspect => prop_assert_eq!(next, Move::Stay),
            Verdict::NoWorse => prop_assert_ne!(next, Move::Back),
            Verdict::Undecided | Verdict::NotJudged => {
                let is_over = progress.covered >= minutes(60);
                prop_assert!(next == Move::Stay || is_over, "{:?}", next);
            }
        }
        let is_proven = found.contains(&Verdict::Worse) && !progress.are_many_worse;
        prop_assert_eq!(verdict == Verdict::Worse, is_proven);
    }

    /// A dry run finds and does the same, but for going back.
    #[test]
    fn a_dry_run_differs_in_one_action(
        found in prop::collection::vec(verdicts(), 2), progress in progress(), when_undecided in ends(),
    ) {
        let real = LiveRules { when_undecided, ..rules([None; 2]) };
        let dry = LiveRules { on_regression: OnRegression::Report, ..real.clone() };
        let verdicts = [found[0], found[1]];
        let (real, dry) = (concluded(&real, verdicts, &progress), concluded(&dry, verdicts, &progress));
        if found.contains(&Verdict::Worse) {
            // It may still be rejected because another check found nothing in time.
            prop_assert!(dry.next != Move::Back || dry.reason == Reason::Undecided);
        } else {
            prop_assert_eq!(real, dry);
        }
    }

    #[test]
    fn time_alone_moves_nothing_back(
        found in verdicts(), actions in prop::array::uniform2(actions()),
    ) {
        let rules = rules(actions.map(Some));
        let moves: Vec<Move> =
            (0..120).map(|after| concluded(&rules, [found; 2], &step(after)).next).collect();
        prop_assert!(moves.iter().all(|next| *next != Move::Back) || found == Verdict::Worse, "{moves:?}");
    }
}
