//! Checks manifests without a cluster: for CI, before they are applied.
//!
//! ```text
//! files ─► manifests ─► admission   each object, validated like by the API server
//!                   ├─► references  the references between them
//!                   ├─► experiments what experiments need of the ModelAliases that they compare
//!                   └─► promotions  the promotion rules, with facts from a registry (if one is given)
//! ```
//!
//! [`UNKNOWN`] lists what cannot be known without the cluster; it is not guessed.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

mod experiments;
pub mod manifests;
pub mod promotions;
mod references;
#[cfg(test)]
mod tests;

pub use self::{
    manifests::{Manifest, Manifests},
    promotions::{Promotion, Verdict, evaluate},
};
use crate::{
    api::{
        ClusterModelRegistry, ModelAlias, ModelExperiment, ModelRegistry, RegisteredModel,
        model_registry::MlflowServer,
    },
    offline::admission::Judge,
};

/// What a check cannot know, for its report.
pub const UNKNOWN: &str = "whether the cluster knows that a version served before (its Deployment, \
                           status.history); only the alias, the previous alias and the tags in the registry \
                           were used";

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// The API server, or Laurel, would reject it.
    Error,
    /// It may be right, but cannot be checked here.
    Warning,
}

/// A finding about a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The object.
    pub object: String,
    /// The field; empty for the object as a whole.
    pub path: String,
    /// The message.
    pub message: String,
}

impl Finding {
    fn new(severity: Severity, manifest: &Manifest, path: &str, message: String) -> Self {
        let (file, object) = (manifest.file.clone(), manifest.title());
        Self { severity, file, object, path: path.to_owned(), message }
    }

    fn error(manifest: &Manifest, path: &str, message: String) -> Self {
        Self::new(Severity::Error, manifest, path, message)
    }

    fn warning(manifest: &Manifest, path: &str, message: String) -> Self {
        Self::new(Severity::Warning, manifest, path, message)
    }
}

/// A valid object, with its manifest.
#[derive(Debug)]
pub struct Of<T> {
    manifest: Manifest,
    object: T,
}

/// A namespace and a name.
type Key = (String, String);

/// The valid objects.
#[derive(Debug, Default)]
pub struct Known {
    registries: BTreeMap<Key, Of<ModelRegistry>>,
    cluster_registries: BTreeMap<Key, Of<ClusterModelRegistry>>,
    models: BTreeMap<Key, Of<RegisteredModel>>,
    aliases: BTreeMap<Key, Of<ModelAlias>>,
    experiments: BTreeMap<Key, Of<ModelExperiment>>,
    /// The HTTPRoutes, as they are written.
    routes: BTreeMap<Key, Value>,
    /// Duplicates, each with the file of the first object.
    duplicates: Vec<(Manifest, String)>,
}

impl Known {
    /// Returns the rules of a model by its name in the registry.
    #[must_use]
    pub fn rules_of(&self, model: &str) -> Vec<crate::api::promotion::PromotionRule> {
        let models = self.models.values().map(|model| &model.object);
        let named = models.filter(|it| it.model_name().is_ok_and(|name| name.as_str() == model));
        named.flat_map(|model| model.spec.promotion.clone()).collect()
    }

    fn add(&mut self, judge: &Judge, manifest: &Manifest) -> Result<(), String> {
        match manifest.object["kind"].as_str() {
            Some("ModelRegistry") => {
                let registry = insert(&mut self.registries, &mut self.duplicates, judge, manifest)?;
                registry.map_or(Ok(()), |it| connectable(&it.spec.mlflow))
            }
            Some("ClusterModelRegistry") => {
                let registry = insert(&mut self.cluster_registries, &mut self.duplicates, judge, manifest)?;
                registry.map_or(Ok(()), |it| connectable(&it.spec.registry.mlflow))
            }
            Some("RegisteredModel") => {
                insert(&mut self.models, &mut self.duplicates, judge, manifest).map(drop)
            }
            Some("ModelExperiment") => {
                insert(&mut self.experiments, &mut self.duplicates, judge, manifest).map(drop)
            }
            _ => insert(&mut self.aliases, &mut self.duplicates, judge, manifest).map(drop),
        }
    }
}

/// Checks that a client can connect to a URL that the API server accepts.
fn connectable(server: &MlflowServer) -> Result<(), String> {
    let url = server.url().map(drop);
    url.map_err(|error| {
        format!("spec.mlflow.url: the API server accepts it, but no client can connect to it: {error}")
    })
}

/// Parses an object into its type and inserts it, unless it is a duplicate.
fn insert<'a, T: DeserializeOwned>(
    objects: &'a mut BTreeMap<Key, Of<T>>,
    duplicates: &mut Vec<(Manifest, String)>,
    judge: &Judge,
    manifest: &Manifest,
) -> Result<Option<&'a T>, String> {
    let object: Value = judge.stored(&manifest.object);
    let object = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let Some(name) = manifest.name() else { return Ok(None) };
    let key = (manifest.namespace().to_owned(), name.to_owned());
    if let Some(first) = objects.get(&key) {
        duplicates.push((manifest.clone(), first.manifest.file.clone()));
        return Ok(None);
    }
    Ok(Some(&objects.entry(key).or_insert(Of { manifest: manifest.clone(), object }).object))
}

/// Validates every object by itself and all of them together. Returns the findings and the valid objects.
#[must_use]
pub fn check(manifests: &Manifests) -> (Vec<Finding>, Known) {
    let judge = Judge::default();
    let (mut findings, mut known) = (Vec::new(), Known::default());
    for manifest in &manifests.ours {
        let violations = judge.judge(&manifest.object);
        if violations.is_empty()
            && let Err(problem) = known.add(&judge, manifest)
        {
            findings.push(Finding::error(manifest, "", problem));
        }
        findings.extend(
            violations
                .into_iter()
                .map(|violation| Finding::error(manifest, &violation.path, violation.problem)),
        );
    }
    for manifest in &manifests.routes {
        let name = manifest.name().unwrap_or_default().to_owned();
        known.routes.insert((manifest.namespace().to_owned(), name), manifest.object.clone());
    }
    findings.extend(references::findings(&known));
    findings.extend(experiments::findings(&known));
    findings.sort();
    (findings, known)
}
