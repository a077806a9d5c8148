//! The promotion rules of the world and their evidence: an approval, and the metric of a run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{World, registry::Registry};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        metric::{Goal, Metric},
        names::Version,
        promotion::{MetricRule, PromotionRule},
    },
    decide::{
        Candidate, Candidates, Desired, Evidence, EvidenceFacts, Follower, Measured, Metrics, Observed,
        desired,
    },
};

/// The evidence in the registry. Anything not listed is approved and good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::decide::tests) struct Merits {
    /// The versions that nobody approved.
    pub(in crate::decide::tests) unapproved: BTreeSet<Version>,
    /// The metric of each version, in percent; `None` where its run has no such metric.
    pub(in crate::decide::tests) percent: BTreeMap<Version, Option<u32>>,
}

/// The minimum of the metric, in percent.
const LEAST: u32 = 90;

impl Merits {
    fn percent(&self, version: Version) -> Option<u32> {
        self.percent.get(&version).copied().unwrap_or(Some(95))
    }

    /// Whether the version meets the rules, computed independently of the decision.
    fn meets(&self, version: Version) -> bool {
        !self.unapproved.contains(&version) && self.percent(version).is_some_and(|percent| percent >= LEAST)
    }

    fn evidence(&self, version: Version, hides_runs: bool, registered_at: Timestamp) -> Evidence {
        let approved = (!self.unapproved.contains(&version)).then(|| ("validated".into(), "true".into()));
        let metric = self.percent(version).map(|percent| Metric::new(f64::from(percent) / 100.0));
        let metrics = if hides_runs {
            Metrics::Unread(ReasonMessage::new(Reason::RegistryUnreachable, "the run cannot be read"))
        } else {
            Metrics::Known(metric.map(|metric| ("auc".into(), metric)).into_iter().collect())
        };
        Evidence::Known(EvidenceFacts {
            registered_at,
            has_description: false,
            tags: approved.into_iter().collect(),
            metrics,
            measured: Measured::Run,
            of_logged_model: BTreeSet::new(),
            unread: None,
        })
    }
}

/// An approval, and a metric.
pub(super) fn rules() -> Vec<PromotionRule> {
    let metric = MetricRule { name: "auc".into(), min: Some(f64::from(LEAST) / 100.0), max: None };
    let tags = [("validated".to_owned(), serde_json::from_str("\"true\"").unwrap())];
    vec![PromotionRule { metrics: vec![metric], tags: tags.into(), ..PromotionRule::default() }]
}

/// Follows the best metric.
pub(super) fn best() -> Follower {
    Follower::Best { metric: "auc".into(), goal: Goal::Maximize, tags: BTreeMap::new() }
}

impl Registry {
    /// What a follower chooses from.
    pub(super) fn candidates(&self) -> Candidates {
        let candidate =
            |version: Version| match self.seen.merits.evidence(version, self.hides_runs, Timestamp::MAX) {
                Evidence::Known(facts) => {
                    Candidate { version, is_ready: true, tags: BTreeMap::new(), metrics: facts.metrics }
                }
                Evidence::Unread(_) => unreachable!("only its run is hidden"),
            };
        let hidden = self.seen.versions.keys().max().filter(|_| self.lists_partly);
        let listed = self.seen.versions.keys().filter(|version| Some(*version) != hidden);
        Candidates::Known(listed.copied().map(candidate).collect())
    }

    /// Returns what it should choose, computed independently. `last` is kept while that is unknown.
    pub(super) fn chosen_by(&self, follower: &Follower, last: Option<Version>) -> Option<Version> {
        let versions = self.seen.versions.keys().copied();
        match follower {
            Follower::Best { .. } if self.hides_runs && !self.seen.versions.is_empty() => last,
            Follower::Best { .. } => {
                let merits = &self.seen.merits;
                let measured = versions.filter_map(|version| Some((merits.percent(version)?, version)));
                measured.max().map(|(_, version)| version)
            }
            Follower::Latest | Follower::Semver { .. } => versions.max(),
        }
    }

    /// Whether a version visibly meets the rules; `None` while that is unknown.
    fn seen_to_meet(&self, version: Version) -> Option<bool> {
        let can_be_seen =
            self.silence().is_none() && !self.hides_runs && self.seen.versions.contains_key(&version);
        // A version that is not approved fails, whatever its run's metrics.
        let fails = self.silence().is_none() && self.seen.merits.unapproved.contains(&version);
        if fails { Some(false) } else { can_be_seen.then(|| self.seen.merits.meets(version)) }
    }
}

impl World {
    /// Adds the evidence for the rules to an observation.
    pub(super) fn gather(&self, observed: &mut Observed) {
        if observed.intent.rules.is_empty() || observed.registry.error.is_some() {
            return;
        }
        let Ok(candidate) = desired(observed) else { return };
        let registry = &self.registry;
        if registry.seen.versions.contains_key(&candidate) {
            // No version that served was registered before the world began.
            let evidence = registry.seen.merits.evidence(candidate, registry.hides_runs, Timestamp::MAX);
            observed.registry.evidence.insert(candidate, evidence);
        }
    }

    /// Before a version's first traffic: it visibly meets the rules.
    pub(super) fn promise_of_rules(&mut self, version: Version) {
        let is_free = self.intent.rules.is_empty() || self.answered.contains(&version);
        let meets = self.registry.seen_to_meet(version) == Some(true);
        self.promise(is_free || meets, |_| {
            format!("version {version}, which does not meet the rules, gets no traffic")
        });
    }

    /// Whether the rules have a reason to reject the desired version.
    pub(super) fn is_refused_by_rules(&self) -> bool {
        let refused = |version: Version| self.registry.seen_to_meet(version) == Some(false);
        !self.intent.rules.is_empty() && self.desired_version().is_some_and(refused)
    }

    /// Whether the rules cannot be evaluated, or the follower's choice is not known.
    pub(super) fn cannot_be_judged(&self) -> bool {
        let asks_runs = !self.intent.rules.is_empty() || matches!(self.intent.desired, Desired::Chosen(_));
        asks_runs && self.registry.hides_runs
    }
}
