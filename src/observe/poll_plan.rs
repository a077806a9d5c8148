//! The poll plan: what polls of a registry have to read, derived from our own objects.

use std::collections::BTreeSet;

use kube::runtime::reflector::{ObjectRef, Store};

use super::{candidates::needs, evidence::compared};
use crate::{
    api::{
        ModelAlias, ModelAliasStatus, RegisteredModel,
        condition::Reason,
        names::{AliasName, ModelName, Version},
        promotion::PromotionRule,
    },
    cluster::Guarded,
    decide::drift_versions,
    registry::polled::{ModelView, PollPlan, PolledRegistry, RegistryKey},
    resolve::{RegistryObjects, follower, index::ModelKey, rules_for},
    state::Memory,
};

/// The part of the context that a plan needs.
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    /// All `ModelAliases`.
    pub aliases: &'a Store<Guarded<ModelAlias>>,
    /// All `RegisteredModels`.
    pub models: &'a Store<Guarded<RegisteredModel>>,
    /// The objects that describe registries.
    pub registry_objects: &'a RegistryObjects,
    /// The newest statuses.
    pub memory: &'a Memory,
}

/// Returns what a poll of this registry has to read now.
#[must_use]
pub fn poll_plan(watched: &Watched<'_>, key: &RegistryKey, registry: &PolledRegistry) -> PollPlan {
    let index = &watched.registry_objects.index;
    let mut models = index.models_of(key);
    models.extend(watched.memory.ending(key).into_iter().map(|(_, name)| name));
    PollPlan { models, ..plan(watched, registry, index.users(key)) }
}

/// Returns what has to be read about these models of a registry. Those that nobody watches are left out.
#[must_use]
pub fn plan_of_models(
    watched: &Watched<'_>,
    key: &RegistryKey,
    registry: &PolledRegistry,
    names: &BTreeSet<ModelName>,
) -> PollPlan {
    let mut plan = plan(watched, registry, watched.registry_objects.index.about(key, names));
    let ending = watched.memory.ending(key).into_iter().map(|(_, name)| name);
    plan.models.extend(ending.filter(|name| names.contains(name)));
    plan
}

/// Returns what has to be read about the models of these `RegisteredModels`.
fn plan(watched: &Watched<'_>, registry: &PolledRegistry, models: BTreeSet<ModelKey>) -> PollPlan {
    let index = &watched.registry_objects.index;
    let mut poll_plan = PollPlan::default();
    for model_key in models {
        let model = ObjectRef::new(&model_key.1).within(&model_key.0);
        let Some(model) = watched.models.get(&model) else { continue };
        let Ok(model) = &model.0 else { continue };
        let Ok(name) = model.model_name() else { continue };
        poll_plan.models.insert(name.clone());
        for (namespace, alias) in index.dependents(&model_key) {
            let alias = watched.aliases.get(&ObjectRef::new(&alias).within(&namespace));
            let Some(Ok(alias)) = alias.as_ref().map(|alias| alias.0.as_ref()) else { continue };
            let versions = judged(watched, registry, alias, model, &name);
            poll_plan.judged.extend(versions.into_iter().map(|version| (name.clone(), version)));
            let status = watched.memory.latest_status(alias);
            let versions = compared_inputs(&model.spec.promotion, &alias.spec.alias, &status);
            poll_plan.drift.extend(versions.into_iter().map(|version| (name.clone(), version)));
            if let Some(follower) = follower(&alias.spec) {
                poll_plan.followed.entry(name.clone()).or_default().add(needs(&follower));
            }
        }
    }
    poll_plan
}

/// Returns the versions of an alias whose tags say whether their inputs have drifted; none unless a rule asks
/// for that, because each of them takes a request.
fn compared_inputs(
    promotion: &[PromotionRule],
    alias: &AliasName,
    status: &ModelAliasStatus,
) -> BTreeSet<Version> {
    let mut rules = promotion.iter().filter(|rule| rule.aliases.contains(alias));
    let drift = rules.find_map(|rule| rule.live.as_ref()).and_then(|live| live.drift.as_ref());
    drift.map(|_| drift_versions(status)).unwrap_or_default()
}

/// Returns the version of an alias that the rules judge, and those to compare it with: while it waits for
/// admission, and while its pods start.
fn judged(
    watched: &Watched<'_>,
    registry: &PolledRegistry,
    alias: &ModelAlias,
    model: &RegisteredModel,
    name: &ModelName,
) -> Vec<Version> {
    let status = watched.memory.latest_status(alias);
    let Some(candidate) = status.target_version.filter(|target| status.version != Some(*target)) else {
        return Vec::new();
    };
    let has_failed = status.rejected.iter().any(|rejection| {
        rejection.version == candidate && rejection.active && rejection.reason != Reason::GatesFailed
    });
    let rules = rules_for(&model.spec.promotion, &alias.spec.alias);
    if rules.is_empty() || has_failed {
        return Vec::new();
    }
    let mut versions = vec![candidate];
    if let ModelView::Present(facts) = registry.model(name) {
        versions.extend(compared(&rules).filter_map(|alias| facts.aliases.get(alias).copied()));
    }
    versions
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn tags_about_drift_cost_nothing_where_no_rule_uses_them() {
        let version = |number| Version::new(number).unwrap();
        let status = ModelAliasStatus {
            version: Some(version(4)),
            target_version: Some(version(5)),
            ..ModelAliasStatus::default()
        };
        let read = |live: &str, alias: &str| {
            let rule = format!("[{{name: live, aliases: [champion], live: {live}}}]");
            let promotion: Vec<PromotionRule> = serde_yaml::from_str(&rule).unwrap();
            compared_inputs(&promotion, &alias.parse().unwrap(), &status)
        };
        let checks = "checks: [{name: failures, failures: {}}]";
        let none = BTreeSet::new();
        assert_eq!(read(&format!("{{{checks}}}"), "champion"), none);
        let with_drift = format!("{{{checks}, drift: {{}}}}");
        assert_eq!(read(&with_drift, "challenger"), none);
        assert_eq!(read(&with_drift, "champion"), BTreeSet::from([version(4), version(5)]));
        assert_eq!(compared_inputs(&[], &"champion".parse().unwrap(), &status), none);
    }
}
