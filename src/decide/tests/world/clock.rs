//! Time, and an operator that works only when something it watches has changed or at its wake-up time. So a
//! wait without a wake-up never ends here either.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Reconcile, World};
use crate::decide::{ASK_AGAIN, Decision, Observed};

/// More reconciles than this at one moment are a loop.
const RECONCILES_MAX: usize = 40;
/// More rounds than this, with the world left alone, are a loop as well.
const ROUNDS_MAX: usize = 300;
/// Longer than any deadline, warm window or contention.
const LONG: SignedDuration = SignedDuration::from_mins(20);

impl World {
    /// One moment passes, in the cluster and in the registry.
    pub(in crate::decide::tests) fn moment(&mut self) {
        if self.pace.lag > 0 {
            self.past.push_back((self.now, self.cluster.clone()));
        }
        if self.past.len() > self.pace.lag {
            self.past.pop_front();
        }
        self.now += self.pace.step;
        self.cluster.note_ready_pods(self.now, self.pace);
        self.cluster.controllers(self.now, self.pace);
        self.cluster.update_endpoints(self.now, self.pace);
        self.registry.land(self.now);
        self.registry.poll();
        self.try_smoke_test();
        self.count_live_traffic();
        self.promise_of_the_moment();
    }

    /// Time passes without the operator.
    pub(in crate::decide::tests) fn advance(&mut self, span: SignedDuration) {
        let until = self.now + span;
        while self.now < until {
            self.moment();
        }
    }

    /// Much time passes at once, in a world at rest.
    pub(in crate::decide::tests) fn jump(&mut self, span: SignedDuration) {
        self.now += span;
        self.advance(self.pace.start + self.pace.end);
    }

    /// The reasons in the conditions.
    fn reported(&self) -> String {
        let reported =
            self.status.conditions.iter().map(|known| format!("{}: {}", known.type_, known.reason));
        reported.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn sight(&self) -> Observed {
        Observed { now: self.began, ..self.observe() }
    }

    /// One reconcile whose observation is remembered.
    pub(in crate::decide::tests) fn watched_reconcile(&mut self, how: &Reconcile) -> Decision {
        let sight = self.sight();
        let decision = self.reconcile_once(how);
        if how.crash_after.is_none() {
            self.operator.saw = Some(Arc::new(sight));
        }
        decision
    }

    /// Whether the operator has a reason to reconcile.
    pub(in crate::decide::tests) fn is_due(&self) -> bool {
        let is_woken = self.operator.wake.is_some_and(|at| at <= self.now);
        !self.is_gone && (is_woken || !self.operator.saw.as_ref().is_some_and(|saw| self.looks_like(saw)))
    }

    /// Reconciles as long as there is a reason to.
    fn work(&mut self) {
        for _ in 0..RECONCILES_MAX {
            if !self.is_due() {
                return;
            }
            let decision = self.watched_reconcile(&Reconcile::default());
            let lies_ahead = decision.wake.is_none_or(|at| at > self.now);
            self.promise(lies_ahead, |_| "a wake-up lies in the future".into());
        }
        self.promise(false, |world| {
            format!("{RECONCILES_MAX} reconciles at one moment: {}", world.reported())
        });
    }

    /// The operator runs until then.
    pub(in crate::decide::tests) fn live_until(&mut self, until: Timestamp) {
        while self.now < until {
            if self.operator.is_up {
                self.work();
            }
            self.moment();
        }
        if self.operator.is_up {
            self.work();
        }
    }

    /// The operator runs for this many seconds.
    pub(in crate::decide::tests) fn live(&mut self, seconds: i64) {
        self.live_until(self.now + SignedDuration::from_secs(seconds));
    }

    /// With the world left alone, the operator works until nothing is left to do.
    pub(in crate::decide::tests) fn settle(&mut self) {
        self.settle_unless(|_| false);
    }

    /// The same, but stops at a world whose future is known. Returns whether it settled.
    pub(in crate::decide::tests) fn settle_unless(
        &mut self,
        mut is_known: impl FnMut(&Self) -> bool,
    ) -> bool {
        self.operator.is_up = true;
        self.registry.lags = false;
        self.registry.lists_partly = false;
        let mut asked_in_vain = 0;
        for _ in 0..ROUNDS_MAX {
            if asked_in_vain == 0 && is_known(self) {
                return false;
            }
            let before = self.sight();
            self.work();
            // What Kubernetes and the registry do by themselves takes no longer than this.
            self.live_while_quiet(self.pace.start + self.pace.end);
            if self.is_gone {
                return true;
            }
            let is_quiet = self.looks_like(&before);
            match self.operator.wake {
                _ if !is_quiet => {}
                None => return true,
                // Retries forever count as quiet, once everything else has run out.
                Some(at) if at <= self.now + ASK_AGAIN => {
                    if asked_in_vain == 3 {
                        return true;
                    }
                    asked_in_vain += 1;
                    self.jump(LONG);
                }
                Some(at) => self.advance(at.duration_since(self.now)),
            }
        }
        self.promise(false, |world| format!("at rest after {ROUNDS_MAX} rounds, but: {}", world.reported()));
        true
    }

    /// Time passes until something watched changes, at most this long.
    fn live_while_quiet(&mut self, span: SignedDuration) {
        let before = self.sight();
        let until = self.now + span;
        while self.now < until && self.looks_like(&before) {
            self.moment();
        }
    }
}
