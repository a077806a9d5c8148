//! References between manifests.

use std::collections::BTreeMap;

use super::{Finding, Known};
use crate::{
    api::{
        RegistryKind,
        condition::Reason,
        names::{AliasName, ModelName},
    },
    render::{self, Referrer},
};

/// Finds references to objects outside the manifests, duplicates, and conflicts.
pub(super) fn findings(known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    duplicates(known, &mut findings);
    for (place, model) in &known.models {
        let Some(reference) = &model.object.spec.registry_ref else { continue };
        let (is_known, place) = match reference.kind {
            RegistryKind::ModelRegistry => {
                let key = (place.0.clone(), reference.name.clone());
                (known.registries.contains_key(&key), ", in the same namespace")
            }
            RegistryKind::ClusterModelRegistry => {
                let mut names = known.cluster_registries.keys().map(|(_, name)| name);
                (names.any(|name| *name == reference.name), ", and allow the namespace")
            }
        };
        if !is_known {
            let message = format!(
                "these manifests have no {} {:?}; it must exist in the cluster{place}",
                reference.kind, reference.name
            );
            findings.push(Finding::warning(&model.manifest, "spec.registryRef", message));
        }
    }
    for (place, alias) in &known.aliases {
        let name = &alias.object.spec.model_ref.name;
        if !known.models.contains_key(&(place.0.clone(), name.clone())) {
            let message = format!(
                "these manifests have no RegisteredModel {name:?}; it must exist in the cluster, in the same \
                 namespace, and its promotion rules are not checked"
            );
            findings.push(Finding::warning(&alias.manifest, "spec.modelRef", message));
        }
    }
    challengers(known, &mut findings);
    routes(known, &mut findings);
    claims(known, &mut findings);
    findings
}

/// Finds challengers that get no share, or may get none.
fn challengers(known: &Known, findings: &mut Vec<Finding>) {
    const FIELD: &str = "spec.traffic.challengers";
    for ((namespace, champion), alias) in &known.aliases {
        let listed = alias.object.spec.traffic.iter().flat_map(|traffic| &traffic.challengers);
        for name in listed.map(|challenger| &challenger.alias_ref.name) {
            let manifest = &alias.manifest;
            let challenger = known.aliases.get(&(namespace.clone(), name.clone()));
            if render::is_version_service(name, champion) {
                let message = format!(
                    "the Service of the challenger {name:?} has the name of a Service of a version of \
                     {champion:?}; rename the challenger"
                );
                findings.push(Finding::error(manifest, FIELD, message));
            } else if let Some(challenger) = challenger {
                if challenger.object.spec.serving.is_none() {
                    let message =
                        format!("the challenger {name:?} gets no requests, because it has no spec.serving");
                    findings.push(Finding::error(manifest, FIELD, message));
                }
            } else {
                let message = format!(
                    "these manifests have no ModelAlias {name:?}; it must exist in the cluster, in the same \
                     namespace, and until then its share goes to {champion:?}"
                );
                findings.push(Finding::warning(manifest, FIELD, message));
            }
        }
    }
}

/// Finds HTTPRoutes that requests cannot be shared in.
fn routes(known: &Known, findings: &mut Vec<Finding>) {
    const FIELD: &str = "spec.traffic.routeRef";
    for (key, alias) in &known.aliases {
        let Some(traffic) = &alias.object.spec.traffic else { continue };
        let Some(reference) = &traffic.route_ref else { continue };
        let (namespace, name) = key;
        let Some(route) = known.routes.get(&(namespace.clone(), reference.name.clone())) else {
            let message = format!(
                "these manifests have no HTTPRoute {:?}; it must exist in the cluster, in the same \
                 namespace, with the Service {name:?} as a backend",
                reference.name
            );
            findings.push(Finding::warning(&alias.manifest, FIELD, message));
            continue;
        };
        let is_alias = |name: &str| known.aliases.contains_key(&(namespace.clone(), name.to_owned()));
        let rules = route["spec"]["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        let backends = rules.iter().filter_map(|rule| rule["backendRefs"].as_array()).flatten();
        let named = backends.filter_map(|backend| backend["name"].as_str());
        let referrer = Referrer {
            namespace,
            name,
            rule: reference.rule.as_deref(),
            challengers: traffic.challengers.iter().map(|it| it.alias_ref.name.clone()).collect(),
            namesakes: named.filter(|name| is_alias(name)).map(str::to_owned).collect(),
        };
        if let Some(why) = render::read(rules, &referrer).unusable {
            let message = format!("the HTTPRoute {:?} {why}", reference.name);
            findings.push(Finding::error(&alias.manifest, FIELD, message));
        }
    }
}

fn duplicates(known: &Known, findings: &mut Vec<Finding>) {
    for (manifest, first) in &known.duplicates {
        let message = format!("duplicate of an object with this kind and name in {first}");
        findings.push(Finding::error(manifest, "metadata.name", message));
    }
}

/// The identity of a model, as far as known.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReferencedModel {
    /// The model with this name in this registry; without one, in the default of its namespace or of the
    /// cluster.
    Named(Option<(RegistryKind, String, String)>, ModelName),
    /// The model of the RegisteredModel with this namespace and name.
    Referred(String, String),
}

impl ReferencedModel {
    /// Whether it is certainly another model: two names, or two registries.
    pub(super) fn differs(&self, other: &Self) -> bool {
        let (Self::Named(registry, name), Self::Named(other_registry, other_name)) = (self, other) else {
            return false;
        };
        name != other_name
            || registry.as_ref().zip(other_registry.as_ref()).is_some_and(|(one, other)| one != other)
    }
}

/// Follows the `modelRef` of a ModelAlias.
pub(super) fn referenced_model(known: &Known, namespace: &str, name: &str) -> ReferencedModel {
    let place = (namespace.to_owned(), name.to_owned());
    let model = known.models.get(&place).and_then(|model| {
        let registry = model.object.spec.registry_ref.as_ref();
        let registry = registry.map(|registry| {
            let place = match registry.kind {
                RegistryKind::ModelRegistry => namespace.to_owned(),
                RegistryKind::ClusterModelRegistry => String::new(),
            };
            (registry.kind, place, registry.name.clone())
        });
        Some(ReferencedModel::Named(registry, model.object.model_name().ok()?))
    });
    model.unwrap_or(ReferencedModel::Referred(place.0, place.1))
}

/// Finds objects that claim the same alias of the same model: the newer one would report `Conflict`.
fn claims(known: &Known, findings: &mut Vec<Finding>) {
    let mut taken: BTreeMap<(ReferencedModel, AliasName), String> = BTreeMap::new();
    for ((namespace, _), alias) in &known.aliases {
        let spec = &alias.object.spec;
        let claims =
            [("spec.alias", Some(&spec.alias)), ("spec.previousAlias", spec.previous_alias.as_ref())];
        for (field, claim) in claims {
            let Some(claim) = claim else { continue };
            let model = referenced_model(known, namespace, &spec.model_ref.name);
            let title = alias.manifest.title();
            if let Some(other) =
                taken.insert((model, claim.clone()), title).filter(|other| *other != alias.manifest.title())
            {
                let message = format!(
                    "{}: {other} also claims the alias {claim} of this model; the older object in the \
                     cluster keeps it",
                    Reason::Conflict
                );
                findings.push(Finding::error(&alias.manifest, field, message));
            }
        }
    }
}
