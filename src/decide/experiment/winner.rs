//! The champion's alias after a victory. It is decided once: later changes are those of people.

use super::{ExperimentAction, ExperimentObserved};
use crate::api::{condition::ReasonMessage, model_experiment::OnWinner};

/// What to do about the champion's alias.
pub(super) enum AliasPlan {
    /// It does not matter, or was decided before.
    Nothing,
    /// The champion serves the version that won.
    IsThere,
    /// It cannot be decided yet.
    Wait(ReasonMessage),
    /// It is not set, and will not be.
    Skip(String),
    /// It is to be set.
    Set(ExperimentAction),
}

impl AliasPlan {
    pub(super) fn action(&self) -> Option<ExperimentAction> {
        if let Self::Set(action) = self { Some(action.clone()) } else { None }
    }

    /// Why it is not set, and will not be.
    pub(super) fn skipped(&self) -> Option<String> {
        if let Self::Skip(why) = self { Some(why.clone()) } else { None }
    }
}

impl ExperimentObserved {
    /// What to do about the champion's alias.
    pub(super) fn alias_plan(&self) -> AliasPlan {
        let winner = self.status.arms.iter().find(|arm| Some(&arm.alias) == self.status.winner.as_ref());
        let is_decided = self.status.alias_set || self.status.alias_skipped.is_some();
        let is_asked = self.is_over() && !is_decided && self.spec.on_winner == OnWinner::SetAlias;
        let Some((winner, version)) =
            winner.and_then(|winner| Some((winner, winner.version?))).filter(|_| is_asked)
        else {
            return AliasPlan::Nothing;
        };
        let champion = match &self.champion {
            Ok(champion) => champion,
            Err(cause) => return AliasPlan::Wait(cause.clone()),
        };
        let name = &self.spec.champion_ref.name;
        if self.of_other_models.contains(&winner.alias) {
            return AliasPlan::Skip(format!(
                "{} serves another registered model than the ModelAlias {name}",
                winner.alias
            ));
        }
        // After a crash between the write and its mark in the status, it may have been followed already.
        if champion.version == version {
            return AliasPlan::IsThere;
        }
        if !champion.follows_registry {
            return AliasPlan::Skip(format!(
                "the ModelAlias {name} does not follow its alias in the registry (spec.follow.registry)"
            ));
        }
        if Some(champion.version) != winner.against {
            return AliasPlan::Skip(format!(
                "the ModelAlias {name} serves version {} by now, which was not compared",
                champion.version
            ));
        }
        AliasPlan::Set(ExperimentAction::SetAlias { from: champion.version, version })
    }
}
