//! The counters of a soak.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::support::load::quantile;

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `BlueGreen`, to a version whose pods had to be started.
    Promotion,
    /// `BlueGreen`, back to the previous version, which was warm.
    Rollback,
    /// `Canary`, to a version whose pods had to be started, in steps.
    Canary,
    /// `Rolling`, to the other version, pod by pod.
    Exchange,
}

impl Kind {
    /// Whether no client is answered by the previous version once one is answered by the next.
    pub(super) fn is_at_once(self) -> bool {
        matches!(self, Self::Promotion | Self::Rollback)
    }
}

/// Durations of a change since it was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// Until the ModelAlias was `Ready` with it.
    pub(super) ready: Duration,
    /// Until the last response of the previous version.
    pub(super) moved: Duration,
}

/// Counts and durations so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Completed changes, by kind and by requester.
    changes: BTreeMap<(Kind, &'static str), Vec<Took>>,
    /// Promotions that were reverted midway.
    pub(super) taken_back: usize,
    /// Kills of the operator by SIGKILL.
    pub(super) operator_kills: usize,
    /// Terminations of the operator by SIGTERM.
    pub(super) operator_ends: usize,
    /// Kills of MLflow.
    pub(super) mlflow_restarts: usize,
    /// Times when MLflow accepted connections but did not answer.
    pub(super) mlflow_hangs: usize,
    /// Evictions of model servers.
    pub(super) evictions: usize,
    /// Evictions that a PodDisruptionBudget did not allow.
    pub(super) protected: usize,
    /// Drains of a node.
    pub(super) drains: usize,
}

impl Figures {
    /// Counts a completed change.
    pub(super) fn count(&mut self, kind: Kind, asked_by: &'static str, took: Took) {
        self.changes.entry((kind, asked_by)).or_default().push(took);
    }

    /// Returns the number of completed changes.
    pub(super) fn changes(&self) -> usize {
        self.changes.values().map(Vec::len).sum()
    }

    fn of(&self, kind: Kind) -> usize {
        self.changes.iter().filter(|((of, _), _)| *of == kind).map(|(_, all)| all.len()).sum()
    }

    /// Formats everything, in several lines.
    pub(super) fn in_full(&self) -> String {
        let seconds = |times: Vec<Duration>| {
            let at = |share| quantile(times.clone(), share).unwrap_or_default().as_secs_f64();
            format!("median {:.2} s, at most {:.2} s", at(0.5), at(1.0))
        };
        let mut lines = vec![self.to_string()];
        for ((kind, asked_by), all) in &self.changes {
            lines.push(format!(
                "  {} x {kind:?} by {asked_by}: until the last old response {}; until Ready {}",
                all.len(),
                seconds(all.iter().map(|took| took.moved).collect()),
                seconds(all.iter().map(|took| took.ready).collect()),
            ));
        }
        lines.join("\n")
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes ({} promotions, {} warm rollbacks, {} Rolling exchanges, {} canaries), {} taken back; \
             operator killed {} and ended {} times, MLflow killed {} and hung {} times; \
             {} pods evicted and {} protected, nodes drained {} times",
            self.changes(),
            self.of(Kind::Promotion),
            self.of(Kind::Rollback),
            self.of(Kind::Exchange),
            self.of(Kind::Canary),
            self.taken_back,
            self.operator_kills,
            self.operator_ends,
            self.mlflow_restarts,
            self.mlflow_hangs,
            self.evictions,
            self.protected,
            self.drains,
        )
    }
}
