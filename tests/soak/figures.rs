//! What is counted.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::support::load::quantile;

/// What kind of a change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `BlueGreen`, to a version whose pods had to be started.
    Promotion,
    /// `BlueGreen`, back to the previous version, which was warm.
    Rollback,
    /// `Rolling`, to the other version, pod by pod.
    Exchange,
}

/// How long a change took since it was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// Until the ModelAlias was `Ready` with it.
    pub(super) ready: Duration,
    /// Until the last answer of the version before.
    pub(super) moved: Duration,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// The changes that were carried through, by kind and by who asked for them.
    changes: BTreeMap<(Kind, &'static str), Vec<Took>>,
    /// Promotions that were taken back while they were under way.
    pub(super) taken_back: usize,
    /// Kills of the operator without a word.
    pub(super) operator_kills: usize,
    /// Ends of the operator by SIGTERM.
    pub(super) operator_ends: usize,
    /// Kills of MLflow.
    pub(super) mlflow_restarts: usize,
    /// Times in which MLflow accepted connections and answered nothing.
    pub(super) mlflow_hangs: usize,
}

impl Figures {
    /// A change was carried through.
    pub(super) fn count(&mut self, kind: Kind, asked_by: &'static str, took: Took) {
        self.changes.entry((kind, asked_by)).or_default().push(took);
    }

    /// All that were carried through.
    pub(super) fn changes(&self) -> usize {
        self.changes.values().map(Vec::len).sum()
    }

    fn of(&self, kind: Kind) -> usize {
        self.changes.iter().filter(|((of, _), _)| *of == kind).map(|(_, all)| all.len()).sum()
    }

    /// Everything, in several lines.
    pub(super) fn in_full(&self) -> String {
        let seconds = |times: Vec<Duration>| {
            let at = |share| quantile(times.clone(), share).unwrap_or_default().as_secs_f64();
            format!("median {:.2} s, at most {:.2} s", at(0.5), at(1.0))
        };
        let mut lines = vec![self.to_string()];
        for ((kind, asked_by), all) in &self.changes {
            lines.push(format!(
                "  {} x {kind:?} by {asked_by}: until the last old answer {}; until Ready {}",
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
            "{} changes ({} promotions, {} warm rollbacks, {} Rolling exchanges), {} taken back; \
             operator killed {} and ended {} times, MLflow killed {} and hung {} times",
            self.changes(),
            self.of(Kind::Promotion),
            self.of(Kind::Rollback),
            self.of(Kind::Exchange),
            self.taken_back,
            self.operator_kills,
            self.operator_ends,
            self.mlflow_restarts,
            self.mlflow_hangs,
        )
    }
}
