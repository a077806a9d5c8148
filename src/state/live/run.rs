//! One version that is judged, from its first round until nobody wants to know any more.
#![expect(clippy::disallowed_methods, reason = "effects: waits between rounds, and reads the time of each")]

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    super::counted::{ArmPods, Wanted, round},
    Request, Shared,
};
use crate::{
    analysis::{
        ledger::{Folded, Ledger, LedgerSettings, Round},
        live::{Conclusion, Data, LiveRules, Verdict, Watch, conclude, judge},
    },
    api::signed_duration,
    decide::{LiveView, LiveWatch},
    state::PodAccess,
};

/// Between two rounds. A batch takes at most a minute, and an outage is known after two rounds.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(15);
/// How old numbers may get that say nothing new.
const RENEWED_AFTER: SignedDuration = SignedDuration::from_mins(5);

pub(super) struct Task {
    request: Request,
    judged: Judged,
    /// Weak, so that it ends with the operator that owns it.
    shared: Weak<Shared>,
}

impl Task {
    pub(super) fn new(request: &Request, shared: Weak<Shared>) -> Self {
        Self { request: request.clone(), judged: Judged::new(&request.watch, Timestamp::now()), shared }
    }

    pub(super) async fn run(mut self) {
        let mut rounds = interval(BETWEEN_ROUNDS);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let Some(shared) = self.shared.upgrade() else { return };
            let Some(request) = shared.request(&self.request) else { return };
            self.request = request;
            self.judged.follow(&self.request.watch);
            if self.judged.is_over(&self.request.watch) {
                continue;
            }
            let round = self.request.round(&shared.pods).await;
            let now = Timestamp::now();
            if self.judged.add(&round, &self.request.watch, now) {
                shared.became_worse(&self.request.uid, now);
            }
            let are_many_worse = shared.are_many_worse(now);
            if let Some(view) = self.judged.news(&self.request.watch, are_many_worse, now) {
                shared.publish(&self.request, view);
            }
        }
    }
}

impl Request {
    /// Reads all pods of the versions that are compared.
    pub(super) async fn round(&self, access: &Arc<PodAccess>) -> Round {
        let arm = |version| ArmPods {
            arm: LiveWatch::arm(version),
            alias: self.alias.clone(),
            version,
            source: self.source.clone(),
        };
        let arms: Vec<ArmPods> = self.watch.versions().map(arm).collect();
        let wanted: Vec<Wanted> = self.watch.rule.checks.iter().map(Wanted::from).collect();
        round(access, &arms, &wanted, self.watch.weights.clone()).await
    }
}

/// The evidence about a version, and what was said of it last.
pub(super) struct Judged {
    rules: LiveRules,
    ledger: Ledger,
    watch: Watch,
    step: Option<u32>,
    is_worse: bool,
    /// Many became worse when it did, so it is not believed, also when that was long ago.
    is_doubted: bool,
    last: Option<LiveView>,
}

impl Judged {
    pub(super) fn new(watch: &LiveWatch, now: Timestamp) -> Self {
        let rules = watch.rules();
        let arms = watch.versions().map(LiveWatch::arm);
        let checks = watch.rule.checks.iter().map(|check| check.name.clone()).collect();
        let warm_up = signed_duration(watch.rule.warm_up);
        let settings = LedgerSettings { warm_up, ..LedgerSettings::new(arms.collect(), checks) };
        Self {
            ledger: Ledger::new(settings, now),
            watch: Watch::new(watch.key.clone(), &rules),
            rules,
            step: watch.step,
            is_worse: false,
            is_doubted: false,
            last: None,
        }
    }

    /// Another step begins with the evidence of those before.
    pub(super) fn follow(&mut self, watch: &LiveWatch) {
        if self.step != watch.step {
            self.step = watch.step;
            self.watch.begin_step();
        }
    }

    pub(super) fn is_over(&self, watch: &LiveWatch) -> bool {
        watch.is_over(self.watch.covered()) && self.last.is_some()
    }

    /// Adds a round. Returns whether the version became worse with it.
    pub(super) fn add(&mut self, round: &Round, watch: &LiveWatch, now: Timestamp) -> bool {
        if let Folded::Batch(batch) = self.ledger.fold(round) {
            self.watch.add(&batch, &self.rules);
        }
        let believed = LiveView { are_many_worse: false, ..self.view(watch, now) };
        let is_worse = self.conclusion(&believed, watch, now).verdict == Verdict::Worse;
        is_worse && !std::mem::replace(&mut self.is_worse, is_worse)
    }

    /// Returns what is known now, if that is news: another verdict of a check or of all of them, another move,
    /// or an outage; or if the numbers that are known are old.
    pub(super) fn news(
        &mut self,
        watch: &LiveWatch,
        are_many_worse: bool,
        now: Timestamp,
    ) -> Option<LiveView> {
        self.is_doubted |= are_many_worse && self.is_worse;
        let view = self.view(watch, now);
        let is_news = self.last.as_ref().is_none_or(|last| {
            last.step != view.step
                || last.are_many_worse != view.are_many_worse
                || last.outage.map(|it| (it.since, it.gap)) != view.outage.map(|it| (it.since, it.gap))
                || now.duration_since(last.at) >= RENEWED_AFTER
                || watch.is_over(last.covered) != watch.is_over(view.covered)
                || verdicts(last) != verdicts(&view)
                || outcome(&self.conclusion(last, watch, now)) != outcome(&self.conclusion(&view, watch, now))
        });
        is_news.then(|| self.last.insert(view).clone())
    }

    fn view(&self, watch: &LiveWatch, now: Timestamp) -> LiveView {
        let data = Data::at(now, self.ledger.outage(), &self.watch, &self.rules);
        LiveView {
            key: watch.key.clone(),
            step: self.step,
            requests: self.watch.requests().to_vec(),
            covered: self.watch.covered(),
            findings: judge(&self.watch, &self.rules, data),
            // One lost round may be a coincidence.
            outage: self.ledger.outage().filter(|outage| outage.rounds > 1),
            are_many_worse: self.is_doubted,
            at: now,
        }
    }

    fn conclusion(&self, view: &LiveView, watch: &LiveWatch, now: Timestamp) -> Conclusion {
        conclude(&view.findings, &self.rules, &watch.progress(view.covered, view.are_many_worse), now)
    }
}

fn verdicts(view: &LiveView) -> Vec<(Verdict, crate::analysis::live::Reason)> {
    view.findings.iter().map(|finding| (finding.verdict, finding.reason)).collect()
}

fn outcome(conclusion: &Conclusion) -> (Verdict, crate::analysis::live::Reason, crate::analysis::live::Move) {
    (conclusion.verdict, conclusion.reason, conclusion.next)
}
