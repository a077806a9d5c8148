//! Adds the evidence for promotion rules to an observation.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::model_alias::similar;
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, Version},
        promotion::PromotionRule,
    },
    decide::{Evidence, EvidenceFacts, Lifecycle, Measured, Metrics, Observed, desired, is_exempt},
    registry::{
        metrics::MetricSources,
        polled::{ModelView, VersionEvidence},
    },
    resolve::Model,
};

/// Adds the evidence that the alias's rules use. For a version that served before nothing is read: a rollback
/// waits for nothing.
pub(super) async fn gather(observed: &mut Observed, model: &Model) {
    let rules = &observed.intent.rules;
    let is_active = observed.intent.lifecycle == Lifecycle::Active && observed.intent.blocker.is_none();
    if rules.is_empty() || !is_active || observed.registry.error.is_some() {
        return;
    }
    let Ok(candidate) = desired(observed) else { return };
    if is_exempt(observed, candidate) && !observed.retry_is_asked() {
        return;
    }
    let ModelView::Present(facts) = model.registry.model(&model.name) else { return };
    let named = |alias: &AliasName| Some((alias.to_string(), *facts.aliases.get(alias)?));
    let aliases: BTreeMap<String, Version> = aliases(rules).filter_map(named).collect();
    let missing = self::aliases(rules).filter(|alias| !facts.aliases.contains_key(*alias));
    let similar_aliases =
        missing.filter_map(|alias| Some((alias.to_string(), similar(alias, &facts)?))).collect();
    let judged = compared(rules).filter_map(|alias| facts.aliases.get(alias).copied());
    let judged: BTreeSet<Version> = judged.chain([candidate]).collect();
    let read = judged.into_iter().map(async |version| {
        let evidence = model.registry.evidence(&model.name, version).await;
        (version, relevant(evidence, version, rules))
    });
    let evidence = join_all(read).await.into_iter().collect();
    observed.registry.similar_aliases = similar_aliases;
    observed.registry.aliases = aliases;
    observed.registry.evidence = evidence;
}

/// Returns the aliases whose versions `improves` compares with.
pub(super) fn compared(rules: &[PromotionRule]) -> impl Iterator<Item = &AliasName> {
    rules.iter().filter_map(|rule| Some(&rule.improves.as_ref()?.over))
}

/// Returns the aliases that rules refer to.
fn aliases(rules: &[PromotionRule]) -> impl Iterator<Item = &AliasName> {
    compared(rules).chain(rules.iter().filter_map(|rule| rule.required_alias.as_ref()))
}

/// Reduces the evidence to what the rules use.
fn relevant(
    read: Result<Option<VersionEvidence>, ReasonMessage>,
    version: Version,
    rules: &[PromotionRule],
) -> Evidence {
    let VersionEvidence { facts, metrics } = match read {
        Err(cause) => return Evidence::Unread(cause),
        Ok(None) => {
            let message = format!("version {version} does not exist in the registry");
            return Evidence::Unread(ReasonMessage::new(Reason::VersionNotFound, message));
        }
        Ok(Some(read)) => read,
    };
    let tags: BTreeSet<&String> = rules.iter().flat_map(|rule| rule.tags.keys()).collect();
    let bounded = rules.iter().flat_map(|rule| &rule.metrics).map(|metric| &metric.name);
    let improved = rules.iter().filter_map(|rule| Some(&rule.improves.as_ref()?.metric));
    let names: BTreeSet<&String> = bounded.chain(improved).collect();
    let (sources, known) = (facts.metric_sources(), metrics.clone().unwrap_or_default());
    Evidence::Known(EvidenceFacts {
        registered_at: facts.created_at,
        has_description: !facts.description.trim().is_empty(),
        tags: facts.tags.into_iter().filter(|(key, _)| tags.contains(key)).collect(),
        measured: measured(&sources),
        of_logged_model: known.of_logged_model.iter().filter(|name| names.contains(name)).cloned().collect(),
        unread: known.unread.clone(),
        metrics: match metrics {
            Err(cause) => Metrics::Unread(cause),
            Ok(metrics) => {
                Metrics::Known(metrics.values.into_iter().filter(|(name, _)| names.contains(name)).collect())
            }
        },
    })
}

/// What has the metrics of a version.
#[must_use]
pub fn measured(sources: &MetricSources) -> Measured {
    match (&sources.run_id, &sources.logged_model) {
        (Some(_), None) => Measured::Run,
        (None, Some(_)) => Measured::LoggedModel,
        (Some(_), Some(_)) => Measured::Both,
        (None, None) => Measured::Nothing,
    }
}
