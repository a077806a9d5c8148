//! Live traffic: what it shows of each version, and what the operator has counted of it.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::World;
use crate::{
    analysis::{
        Pair,
        ledger::{Gap, Outage},
        live::{Finding, Reason, Verdict},
    },
    api::{
        condition::Reason as Rejected,
        live::{LiveRule, OnRegression, WhenUndecided},
        names::Version,
        promotion::PromotionRule,
    },
    decide::{LiveView, LiveWatch},
};

/// What live traffic shows of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::decide::tests) enum Shows {
    /// Nothing that would prove anything.
    #[default]
    Nothing,
    /// That it is fine.
    Fine,
    /// That it is worse.
    Worse,
    /// Its pods cannot be read.
    NoData,
    /// Requests are not shared as planned.
    OtherShares,
}

/// What the operator counts; it loses it when it is killed.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    watch: Option<LiveWatch>,
    view: Option<LiveView>,
}

impl Counted {
    pub(super) fn view(&self) -> Option<LiveView> {
        self.view.clone()
    }

    /// Counts what is wanted, as the operator itself does.
    pub(super) fn follow(&mut self, wanted: Option<LiveWatch>) {
        let key = |watch: &Option<LiveWatch>| watch.as_ref().map(|watch| watch.key.clone());
        if key(&self.watch) != key(&wanted) {
            self.view = None;
        }
        self.watch = wanted;
    }

    fn count(
        &mut self,
        shows: &BTreeMap<Version, Shows>,
        are_many_worse: bool,
        step: SignedDuration,
        now: jiff::Timestamp,
    ) {
        let Some(watch) = self.watch.as_ref() else { return };
        let shows = shows.get(&watch.version).copied().unwrap_or_default();
        let before = self.view.take();
        let in_step = before.as_ref().filter(|view| view.step == watch.step);
        let covered = in_step.map_or(SignedDuration::ZERO, |view| view.covered);
        let has_data = shows != Shows::NoData;
        let outage = (!has_data).then(|| {
            let known = before.as_ref().and_then(|view| view.outage);
            known.unwrap_or(Outage { since: now, rounds: 2, gap: Gap::Unreachable })
        });
        self.view = Some(LiveView {
            key: watch.key.clone(),
            step: watch.step,
            requests: vec![100; if watch.against.is_some() { 2 } else { 1 }],
            covered: if has_data { covered + step } else { covered },
            findings: watch.rule.checks.iter().map(|check| finding(&check.name, shows)).collect(),
            outage,
            are_many_worse,
            at: now,
        });
    }
}

fn finding(check: &str, shows: Shows) -> Finding {
    let (verdict, reason) = match shows {
        Shows::Nothing => (Verdict::Undecided, Reason::NotEnoughTraffic),
        Shows::Fine => (Verdict::NoWorse, Reason::NoWorse),
        Shows::Worse => (Verdict::Worse, Reason::Regressed),
        Shows::NoData => (Verdict::Unknown, Reason::MetricsUnreachable),
        Shows::OtherShares => (Verdict::Untrusted, Reason::SplitMismatch),
    };
    Finding {
        check: check.to_owned(),
        verdict,
        reason,
        counted: Pair::default(),
        evidence: 1.0,
        needed: 4.6,
        evidence_no_worse: 1.0,
        needed_no_worse: 4.6,
        message: format!("{check}: as the story says"),
    }
}

impl World {
    /// The RegisteredModel has this live rule from now on.
    pub(in crate::decide::tests) fn judge_by(&mut self, rule: &str) {
        let live: LiveRule = serde_yaml::from_str(rule).unwrap();
        let rule = PromotionRule { name: "live".into(), live: Some(live), ..PromotionRule::default() };
        self.intent.rules = vec![rule];
    }

    /// From now on, live traffic shows this of a version.
    pub(in crate::decide::tests) fn shows(&mut self, version: Version, shows: Shows) {
        self.shows.insert(version, shows);
    }

    fn live_rule(&self) -> Option<&LiveRule> {
        self.intent.rules.iter().find_map(|rule| rule.live.as_ref())
    }

    /// Whether live traffic is a reason to reject the version.
    pub(super) fn is_shown_by_traffic(&self, version: Version, reason: Rejected) -> bool {
        let Some(rule) = self.live_rule() else { return false };
        let shows = self.shows.get(&version).copied().unwrap_or_default();
        match reason {
            Rejected::Regressed => shows == Shows::Worse && !self.many_are_worse,
            Rejected::Undecided => shows == Shows::Nothing && rule.when_undecided == WhenUndecided::Reject,
            _ => false,
        }
    }

    /// Before the route is written: a version gets more than its step only with proof that it is no worse.
    pub(super) fn promise_of_live_rules(&mut self, version: Version) {
        let Some(rule) = self.live_rule() else { return };
        let shows = self.shows.get(&version).copied().unwrap_or_default();
        let may_go_on = match shows {
            Shows::Fine => true,
            Shows::Worse => rule.on_regression == OnRegression::Report,
            Shows::Nothing => rule.when_undecided == WhenUndecided::Promote,
            Shows::NoData | Shows::OtherShares => false,
        };
        self.promise(may_go_on, |_| format!("version {version} goes on without proof: {shows:?}"));
    }

    /// One moment of counting.
    pub(super) fn count_live_traffic(&mut self) {
        let Self { operator, shows, many_are_worse, pace, now, .. } = self;
        operator.counted.count(shows, *many_are_worse, pace.step, *now);
    }
}
