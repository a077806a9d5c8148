//! One experiment that is counted, from its first round until nobody wants to know any more.
#![expect(clippy::disallowed_methods, reason = "effects: waits between rounds, and reads the time of each")]

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    super::{
        PodAccess,
        counted::{ArmPods, round},
    },
    Request, Shared,
    contest::{Counting, arm},
};
use crate::analysis::ledger::Round;

/// Between two rounds. A batch takes at most a minute, and an outage is known after two rounds.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(15);

pub(super) struct Task {
    uid: String,
    contests: Vec<Counting>,
    /// Weak, so that it ends with the operator that owns it.
    shared: Weak<Shared>,
}

impl Task {
    pub(super) fn new(request: &Request, shared: Weak<Shared>) -> Self {
        Self { uid: request.uid.clone(), contests: Vec::new(), shared }
    }

    pub(super) async fn run(mut self) {
        let mut rounds = interval(BETWEEN_ROUNDS);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let Some(shared) = self.shared.upgrade() else { return };
            let Some(request) = shared.request(&self.uid) else { return };
            self.follow(&request, Timestamp::now());
            let round = request.round(&shared.pods).await;
            let now = Timestamp::now();
            let news: Vec<bool> = self.contests.iter_mut().map(|contest| contest.add(&round, now)).collect();
            if news.contains(&true) {
                shared.publish(&request, self.contests.iter().map(Counting::view).collect());
            }
        }
    }

    /// Counts what is wanted now. What was counted of the same versions is kept.
    fn follow(&mut self, request: &Request, now: Timestamp) {
        let mut before = std::mem::take(&mut self.contests);
        for (contest, _) in &request.contests {
            let known = before.iter().position(|counting| counting.is_about(contest));
            let counting = match known {
                Some(index) => {
                    let mut counting = before.swap_remove(index);
                    counting.follow(contest);
                    counting
                }
                None => Counting::new(&request.champion.0.1, contest, &request.wanted, now),
            };
            self.contests.push(counting);
        }
    }
}

impl Request {
    /// Reads all pods of the versions that are compared: those of the champion once.
    pub(super) async fn round(&self, access: &Arc<PodAccess>) -> Round {
        let ((namespace, champion), source) = &self.champion;
        let pods = |alias: &str, version, source: &_| ArmPods {
            arm: arm(alias, version),
            alias: (namespace.clone(), alias.to_owned()),
            version,
            source: Clone::clone(source),
        };
        let version = self.contests.first().map(|(contest, _)| contest.key.champion);
        let of_champion = version.map(|version| pods(champion, version, source));
        let challengers =
            self.contests.iter().map(|(it, source)| pods(&it.key.alias, it.key.challenger, source));
        let arms: Vec<ArmPods> = of_champion.into_iter().chain(challengers).collect();
        round(access, &arms, &self.wanted, Vec::new()).await
    }
}
