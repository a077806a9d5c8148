//! What is kept of a PodDisruptionBudget: whose pods it protects, and what of it is Laurel's.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use super::{Cache, OwnMetadata, Owner, Projected, metadata::digest, revision};
use crate::{
    api::model_alias::AliasKey,
    decide::Traffic,
    render::{self, Selection, ServiceRendering},
};

/// What is kept of a PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetView {
    /// Its UID.
    pub uid: Option<String>,
    /// Its revision.
    pub resource_version: u64,
    /// Who controls it.
    pub owner: Owner,
    metadata: OwnMetadata,
    /// The digest of its spec.
    spec: u64,
}

impl BudgetView {
    /// Whose pods it protects, if it is as it is rendered for them; otherwise [`Traffic::Nowhere`].
    pub(super) fn protects(&self, r: &ServiceRendering, traffic: Traffic) -> Traffic {
        let Some(selection) = Selection::of(traffic) else { return Traffic::Nowhere };
        let due = render::disruption_budget(r, selection);
        let is_as_rendered = self.metadata.has(&due.metadata) && spec_digest(&due) == self.spec;
        if is_as_rendered { traffic } else { Traffic::Nowhere }
    }
}

fn spec_digest(budget: &PodDisruptionBudget) -> u64 {
    // Its maps are sorted, so equal ones have equal texts.
    digest(&serde_json::to_string(&budget.spec).unwrap_or_default())
}

impl Projected for PodDisruptionBudget {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        if self.name_any() != alias.1 {
            return;
        }
        let view = BudgetView {
            uid: self.metadata.uid.clone(),
            resource_version: revision(&self.metadata),
            owner: Owner::of(&self.metadata, alias, &alias.1),
            metadata: OwnMetadata::of(&self.metadata),
            spec: spec_digest(self),
        };
        cache.edit(alias, |objects| {
            if objects.budget.as_ref().is_none_or(|known| known.resource_version <= view.resource_version) {
                objects.budget = Some(view);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        if name == alias.1 {
            cache.edit(alias, |objects| objects.budget = None);
        }
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        let aliases = cache.lock();
        let known = aliases.iter().filter(|(_, objects)| objects.budget.is_some());
        known.map(|(key, _)| (key.clone(), key.1.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::{super::tests::claim, *};
    use crate::render::{
        fixture::{Fixture, version},
        labels,
    };

    /// Whose pods are protected by a budget for version 4 that somebody changed, while the Service selects
    /// `selected`.
    fn protects(selected: Selection, change: impl FnOnce(&mut PodDisruptionBudget)) -> Option<Traffic> {
        let fixture = Fixture::serving("");
        let rendering = fixture.rendering().service();
        let key = (rendering.namespace.to_owned(), rendering.name.to_owned());
        let cache = Cache::default();
        render::service(&rendering, selected).insert(&cache, &key);
        let mut budget = render::disruption_budget(&rendering, Selection::One(version(4)));
        change(&mut budget);
        budget.insert(&cache, &key);
        cache.view(&key, &claim("6d1b"), Some(&rendering), |_| None).budget
    }

    #[test]
    fn a_budget_protects_what_the_service_selects() {
        let four = Selection::One(version(4));
        assert_eq!(protects(four, |_| {}), Some(Traffic::One(version(4))));
        assert_eq!(protects(Selection::One(version(5)), |_| {}), Some(Traffic::Nowhere));
        assert_eq!(protects(Selection::Shared, |_| {}), Some(Traffic::Nowhere));
    }

    #[test]
    fn a_budget_that_somebody_changed_does_not_count() {
        let four = Selection::One(version(4));
        let spec = |it: &mut PodDisruptionBudget, max| {
            it.spec.as_mut().unwrap().max_unavailable = Some(IntOrString::Int(max));
        };
        assert_eq!(protects(four, |it| spec(it, 0)), Some(Traffic::Nowhere));
        assert_eq!(protects(four, |it| drop(it.labels_mut().remove(labels::MODEL))), Some(Traffic::Nowhere));
        assert_eq!(protects(four, |it| it.metadata.owner_references = None), Some(Traffic::Nowhere));
        let theirs = |it: &mut PodDisruptionBudget| {
            it.metadata.owner_references = None;
            it.labels_mut().remove(labels::MANAGED_BY);
        };
        assert_eq!(protects(four, theirs), None, "it belongs to somebody else");
    }
}
