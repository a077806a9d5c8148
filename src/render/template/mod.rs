//! The user's partial pod template, merged over what Laurel renders.
//!
//! Merged as `kubectl` would: maps by field, the lists that Laurel renders by their Kubernetes keys, any other list as
//! a whole, and `null` takes away. The user may do as they like with it (other probes, sidecars, less security), but
//! for two things: what says which version a pod serves, and what the Service finds it by. Nothing is dropped in
//! silence: a field that Kubernetes does not know is a [`TemplateError`], as is whatever cannot be merged.

use std::fmt;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::Rendering;

mod merge;
mod path;
mod promises;
#[cfg(test)]
mod properties;
mod schema;
#[cfg(test)]
mod tests;

use path::Path;

/// Why `serving` cannot be rendered: every place that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidTemplate(pub Vec<TemplateError>);

/// One place that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Where, from the ModelAlias's spec on: `serving.template.spec.containers[0].imagee`.
    pub path: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl TemplateError {
    fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.to_string(), problem: problem.into() }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> = self.0.iter().map(TemplateError::to_string).collect();
        f.write_str(&errors.join("; "))
    }
}

/// `rendered` with the template of `serving` merged over it, where everything in `serving` fits.
///
/// Each step looks for all its faults; the next one begins only when there are none.
pub(super) fn checked(r: &Rendering, rendered: &PodTemplateSpec) -> Result<PodTemplateSpec, InvalidTemplate> {
    none(promises::variables(r.serving))?;
    let merged = match &r.serving.template {
        Some(template) => merged(r, rendered, template)?,
        None => rendered.clone(),
    };
    none(promises::kept(r.serving, rendered, &merged))?;
    Ok(merged)
}

fn merged(
    r: &Rendering,
    rendered: &PodTemplateSpec,
    template: &Value,
) -> Result<PodTemplateSpec, InvalidTemplate> {
    let template = &without_emptied_metadata(template);
    none(schema::errors(template))?;
    none(promises::overrides(r.serving, template))?;
    let mut merged = as_json(rendered);
    none(merge::merge(&mut merged, template))?;
    serde_json::from_value(merged).map_err(|error| {
        InvalidTemplate(vec![TemplateError::new(
            &Path::root(),
            format!("the merged template is no pod template: {error}"),
        )])
    })
}

/// Without `metadata.labels` and `metadata.annotations` that are null: a server-side apply leaves that behind where it took
/// away the last entry, so nobody wrote it.
fn without_emptied_metadata(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata
            .retain(|field, value| !(value.is_null() && ["labels", "annotations"].contains(&field.as_str())));
    }
    template
}

fn as_json(rendered: &PodTemplateSpec) -> Value {
    serde_json::to_value(rendered).expect("a pod template has only text for keys")
}

fn none(errors: Vec<TemplateError>) -> Result<(), InvalidTemplate> {
    if errors.is_empty() { Ok(()) } else { Err(InvalidTemplate(errors)) }
}
