//! Adds the evidence for promotion rules to an observation.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{Sources, awaited::Awaited};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, Version},
        promotion::PromotionRule,
    },
    decide::{
        Evidence, EvidenceFacts, Lifecycle, Measured, Metrics, Observed, desired, drift_versions, is_exempt,
    },
    registry::{
        RegisteredModelFacts,
        limiter::Priority,
        metrics::MetricSources,
        polled::{ModelView, VersionEvidence},
    },
    resolve::{Model, Subject},
    state::{ReadKey, Waiter},
};

/// Adds the evidence that the alias's rules use. For a version that served before nothing is read: a rollback
/// waits for nothing.
pub(super) fn gather(sources: &Sources<'_>, observed: &mut Observed, subject: &Subject<'_>, model: &Model) {
    let rules = &observed.intent.rules;
    let is_active = observed.intent.lifecycle == Lifecycle::Active && observed.intent.blocker.is_none();
    if !rules.iter().any(PromotionRule::is_gate) || !is_active || observed.registry.error.is_some() {
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
    let mut awaited = Awaited::new(observed.now);
    let read = |version| {
        let read = evidence_of(sources, subject, model, &facts, version).unwrap_or_else(|begun| {
            awaited.add(begun);
            Err(being_read(version))
        });
        (version, relevant(read, version, rules))
    };
    let evidence = judged.into_iter().map(read).collect();
    let reading_since = awaited.since();
    observed.registry.similar_aliases = similar_aliases;
    observed.registry.aliases = aliases;
    observed.registry.reading_since = observed.registry.reading_since.max(reading_since);
    observed.registry.evidence = evidence;
}

/// Adds the tags that say whether inputs have drifted, as polls have read them.
pub(super) fn gather_drift(observed: &mut Observed, model: &Model) {
    if observed.drift_rule().is_none() || observed.registry.error.is_some() {
        return;
    }
    let versions = drift_versions(&observed.status).into_iter();
    let read = |version| Some((version, model.registry.drift_tags(&model.name, version)?));
    observed.registry.drift = versions.filter_map(read).collect();
}

/// Returns the evidence about a version. What is not known is read beside the reconcile, and wakes it.
///
/// # Errors
/// When that read was begun.
fn evidence_of(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    facts: &RegisteredModelFacts,
    version: Version,
) -> Result<Result<Option<VersionEvidence>, ReasonMessage>, Instant> {
    let (registry, name) = (model.registry.clone(), model.name.clone());
    let key = ReadKey::version(&registry, facts, version, Priority::Decision);
    let remembered = registry.remembered_evidence(&name, version).map(Ok);
    let read = async move { registry.evidence(&name, version).await };
    sources.evidence_reads.last(key, &Waiter::Alias(subject.key.clone()), remembered, read)
}

fn being_read(version: Version) -> ReasonMessage {
    let message = format!("version {version} and its metrics are being read from the registry");
    ReasonMessage::new(Reason::RegistryNotRead, message)
}

/// An alias of the model that differs from this one only in letter case: MLflow takes the two for different
/// ones.
pub(super) fn similar(alias: &AliasName, facts: &RegisteredModelFacts) -> Option<String> {
    let is_similar =
        |other: &&AliasName| *other != alias && other.as_str().eq_ignore_ascii_case(alias.as_str());
    facts.aliases.keys().find(is_similar).map(ToString::to_string)
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn an_alias_is_similar_if_only_its_letter_case_differs() {
        let facts = |aliases: &[&str]| RegisteredModelFacts {
            name: "fraud".parse().unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            description: String::new(),
            tags: BTreeMap::new(),
            aliases: aliases.iter().map(|alias| (alias.parse().unwrap(), Version::new(1).unwrap())).collect(),
        };
        let champion: AliasName = "champion".parse().unwrap();
        assert_eq!(similar(&champion, &facts(&["Champion", "other"])).as_deref(), Some("Champion"));
        assert_eq!(similar(&champion, &facts(&["champion", "champions"])), None);
    }
}
