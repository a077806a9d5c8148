//! What became of the actions of a decision.

use std::time::Duration;

use crate::{api::condition::ReasonMessage, decide::Action};

/// The actions of a decision that were performed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The actions that succeeded, in order.
    pub done: Vec<Action>,
    /// The actions that were begun and continue beside the reconcile, in order. They are not reported as
    /// done.
    pub begun: Vec<Action>,
    /// How long the rest has to wait, because another client just reverted the same write.
    pub postponed: Option<Duration>,
    /// Why an action failed, if one did: the first of several. Those that need it were not tried.
    pub failure: Option<ReasonMessage>,
    /// Why the PodDisruptionBudget could not be written. That is no failure of what it would protect.
    pub unprotected: Option<ReasonMessage>,
}

impl Applied {
    /// Adds an action that failed.
    pub fn failed(&mut self, action: &Action, cause: ReasonMessage) {
        let failure = if action.is_about_budget() { &mut self.unprotected } else { &mut self.failure };
        failure.get_or_insert(cause);
    }
}
