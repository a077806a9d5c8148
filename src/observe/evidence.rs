//! Adds the evidence for promotion rules to an observation.

use std::collections::{BTreeMap, BTreeSet};

use super::Sources;
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, Version},
        promotion::PromotionRule,
    },
    decide::{Evidence, EvidenceFacts, Lifecycle, Metrics, Observed, desired, is_exempt},
    registry::polled::{ModelView, VersionEvidence},
    resolve::{Model, Subject},
    state::ReadKey,
};

/// Adds the evidence that the alias's rules use. For a version that served before nothing is read: a rollback
/// waits for nothing.
pub(super) fn gather(sources: &Sources<'_>, observed: &mut Observed, subject: &Subject<'_>, model: &Model) {
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
    let judged = compared(rules).filter_map(|alias| facts.aliases.get(alias).copied());
    let judged: BTreeSet<Version> = judged.chain([candidate]).collect();
    let read = |version| (version, relevant(evidence_of(sources, subject, model, version), version, rules));
    let evidence = judged.into_iter().map(read).collect();
    observed.registry.aliases = aliases;
    observed.registry.evidence = evidence;
}

/// Returns the evidence about a version, as far as it is known. What is not known is read beside the reconcile, and
/// wakes it.
fn evidence_of(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    version: Version,
) -> Result<Option<VersionEvidence>, ReasonMessage> {
    if let Some(known) = model.registry.remembered_evidence(&model.name, version) {
        return Ok(known);
    }
    let (registry, name) = (model.registry.clone(), model.name.clone());
    let key = ReadKey::new(&registry, &name, version);
    let read = async move { registry.evidence(&name, version).await };
    sources.evidence_reads.last(key, &subject.key, read).unwrap_or_else(|| {
        let message = format!("version {version} and its metrics are being read from the registry");
        Err(ReasonMessage::new(Reason::RegistryNotRead, message))
    })
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
    Evidence::Known(EvidenceFacts {
        registered_at: facts.created_at,
        has_description: !facts.description.trim().is_empty(),
        tags: facts.tags.into_iter().filter(|(key, _)| tags.contains(key)).collect(),
        metrics: match metrics {
            Err(cause) => Metrics::Unread(cause),
            Ok(metrics) => {
                Metrics::Known(metrics.into_iter().filter(|(name, _)| names.contains(name)).collect())
            }
        },
    })
}
