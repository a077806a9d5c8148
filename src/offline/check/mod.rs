//! Manifests, checked without a cluster: for CI, before anybody applies them.
//!
//! ```text
//! files ─► manifests ─► admission   each object, as the API server would judge it
//!                   ├─► references  what they say of each other
//!                   └─► promotions  the promotion rules, with what the registry says (only where one is given)
//! ```
//!
//! What cannot be known without the cluster is said in [`UNKNOWN`], not guessed.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

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
    api::{ClusterModelRegistry, ModelAlias, ModelRegistry, RegisteredModel, model_registry::MlflowServer},
    offline::admission::Judge,
};

/// What a check cannot know, for its report.
pub const UNKNOWN: &str = "whether the operator still remembers that a version served, by its Deployment or by status.history: here the \
                           alias, the previous alias and the tags in the registry speak for it";

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// The API server, or Laurel, would refuse it.
    Error,
    /// It may be right, and cannot be known here.
    Warning,
}

/// Something about a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The object.
    pub object: String,
    /// The field; empty for the object as a whole.
    pub path: String,
    /// What there is to say.
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

/// An object that the API server would take, and where it stands.
#[derive(Debug)]
pub struct Of<T> {
    manifest: Manifest,
    object: T,
}

/// A namespace and a name.
type Place = (String, String);

/// The objects that the API server would take.
#[derive(Debug, Default)]
pub struct Known {
    registries: BTreeMap<Place, Of<ModelRegistry>>,
    cluster_registries: BTreeMap<Place, Of<ClusterModelRegistry>>,
    models: BTreeMap<Place, Of<RegisteredModel>>,
    aliases: BTreeMap<Place, Of<ModelAlias>>,
    /// Objects that are there already, and the file of the first.
    twice: Vec<(Manifest, String)>,
}

impl Known {
    /// The rules of a model by its name in the registry.
    #[must_use]
    pub fn rules_of(&self, model: &str) -> Vec<crate::api::promotion::PromotionRule> {
        let models = self.models.values().map(|model| &model.object);
        let named = models.filter(|it| it.model_name().is_ok_and(|name| name.as_str() == model));
        named.flat_map(|model| model.spec.promotion.clone()).collect()
    }

    fn add(&mut self, judge: &Judge, manifest: &Manifest) -> Result<(), String> {
        match manifest.object["kind"].as_str() {
            Some("ModelRegistry") => {
                let registry = place(&mut self.registries, &mut self.twice, judge, manifest)?;
                registry.map_or(Ok(()), |it| connectable(&it.spec.mlflow))
            }
            Some("ClusterModelRegistry") => {
                let registry = place(&mut self.cluster_registries, &mut self.twice, judge, manifest)?;
                registry.map_or(Ok(()), |it| connectable(&it.spec.registry.mlflow))
            }
            Some("RegisteredModel") => place(&mut self.models, &mut self.twice, judge, manifest).map(drop),
            _ => place(&mut self.aliases, &mut self.twice, judge, manifest).map(drop),
        }
    }
}

/// Whether a URL that the API server takes is one that somebody can connect to.
fn connectable(server: &MlflowServer) -> Result<(), String> {
    let url = server.url().map(drop);
    url.map_err(|error| {
        format!("spec.mlflow.url: the API server takes it, but nobody can connect to it: {error}")
    })
}

/// Reads an object into its type, and puts it in its place, if that is free.
fn place<'a, T: DeserializeOwned>(
    places: &'a mut BTreeMap<Place, Of<T>>,
    twice: &mut Vec<(Manifest, String)>,
    judge: &Judge,
    manifest: &Manifest,
) -> Result<Option<&'a T>, String> {
    let object: Value = judge.stored(&manifest.object);
    let object = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let Some(name) = manifest.name() else { return Ok(None) };
    let key = (manifest.namespace().to_owned(), name.to_owned());
    if let Some(first) = places.get(&key) {
        twice.push((manifest.clone(), first.manifest.file.clone()));
        return Ok(None);
    }
    Ok(Some(&places.entry(key).or_insert(Of { manifest: manifest.clone(), object }).object))
}

/// Judges every object by itself and all of them together; the objects that are right, for what follows.
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
    findings.extend(references::findings(&known));
    findings.sort();
    (findings, known)
}
