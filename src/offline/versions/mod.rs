//! Comparison of versions, for people who choose one: read once from the registry, then compared offline.
//!
//! ```text
//! Registry ─► read ─► compare  metrics, tags and aliases of a few versions
//!                └──► best     the one that `follow.best` would choose, by the follower's own function
//! ```

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        metric::Goal,
        names::{ModelName, Version},
        promotion::PromotionRule,
    },
    registry::{
        RegisteredModelFacts, Registry, RegistryError, VersionFacts,
        metrics::{VersionMetrics, version_metrics},
    },
};

pub mod best;
pub mod compare;

/// How many reads run concurrently.
const AT_ONCE: usize = 8;

/// The metrics of a version, or why they could not be read.
pub type RunMetrics = Result<VersionMetrics, ReasonMessage>;

/// A version with its metrics.
pub type Measured = (VersionFacts, RunMetrics);

/// Reads the metrics of a version.
///
/// # Errors
/// Why they could not be read.
pub async fn metrics(registry: &dyn Registry, facts: &VersionFacts) -> RunMetrics {
    let explain = |what: &str, error: &RegistryError| {
        let message = format!("cannot read {what} of version {}: {error}", facts.version);
        ReasonMessage::new(Reason::RegistryUnreachable, message)
    };
    version_metrics(registry, facts, explain).await
}

/// Reads the metrics of these versions, and keeps their order.
pub async fn measured(registry: &dyn Registry, versions: Vec<VersionFacts>) -> Vec<Measured> {
    let read = stream::iter(versions).map(async |facts| {
        let metrics = metrics(registry, &facts).await;
        (facts, metrics)
    });
    read.buffered(AT_ONCE).collect().await
}

/// Reads versions by their numbers; `None` for one that does not exist.
///
/// # Errors
/// When the registry does not answer.
pub async fn by_number(
    registry: &dyn Registry,
    model: &ModelName,
    numbers: &[Version],
) -> Result<Vec<Option<VersionFacts>>, RegistryError> {
    let read = stream::iter(numbers.to_vec()).map(async |number| registry.version(model, number).await);
    read.buffered(AT_ONCE).try_collect().await
}

/// Returns the aliases of a version.
#[must_use]
pub fn aliases(model: &RegisteredModelFacts, version: Version) -> Vec<String> {
    let named = model.aliases.iter().filter(|(_, named)| **named == version);
    named.map(|(alias, _)| alias.to_string()).collect()
}

/// Returns whether larger or smaller is better for the metrics in rules, as far as the rules define it.
#[must_use]
pub fn goals(rules: &[PromotionRule]) -> BTreeMap<String, Goal> {
    let of_bounds = rules.iter().flat_map(|rule| &rule.metrics).filter_map(|bound| {
        let goal = match (bound.min, bound.max) {
            (Some(_), None) => Goal::Maximize,
            (None, Some(_)) => Goal::Minimize,
            _ => return None,
        };
        Some((bound.name.clone(), goal))
    });
    let improved = rules.iter().filter_map(|rule| rule.improves.as_ref());
    of_bounds.chain(improved.map(|rule| (rule.metric.clone(), rule.goal))).collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn rules_define_the_goal_of_a_metric_and_improvement_rules_take_precedence() {
        let rules: Vec<PromotionRule> = serde_yaml::from_str(
            "
- {name: a, aliases: [a], metrics: [{name: auc, min: 0.9}, {name: p99, max: 50}, {name: share, min: 0.1, \
max: 0.2}, {name: odd, min: 1}]}
- {name: b, aliases: [b], improves: {metric: odd, over: a, goal: Minimize}}
",
        )
        .unwrap();
        let reported: Vec<_> = goals(&rules).into_iter().collect();
        let name = |name: &str| name.to_owned();
        assert_eq!(
            reported,
            [(name("auc"), Goal::Maximize), (name("odd"), Goal::Minimize), (name("p99"), Goal::Minimize)]
        );
    }
}
