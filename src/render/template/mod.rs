//! The user's partial pod template, merged over what Laurel renders.
//!
//! Merged as `kubectl` would: maps by field, the lists that Laurel renders by their Kubernetes keys, any
//! other list as a whole; `null` removes, as does a path in `templateOmit`. The user may change anything
//! (other probes, sidecars, less security) except two things: the variables that name the version of a pod,
//! and the labels by which the Service selects it. Anything that cannot be merged is a [`TemplateError`].
//! Fields that this release does not know are passed on: the cluster may be newer, and the API server rejects
//! what it does not know either.

use std::fmt;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::Rendering;

mod merge;
mod omit;
mod path;
mod promises;
#[cfg(test)]
mod properties;
mod schema;
#[cfg(test)]
mod tests;

use path::Path;

/// Why `serving` cannot be rendered: every invalid field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidTemplate(pub Vec<TemplateError>);

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Its path in the ModelAlias's spec: `serving.template.spec.containers[0].imagee`.
    pub path: String,
    /// The problem and the next step.
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

/// Removes what `serving` omits from `rendered` and merges its template over it, if everything in `serving`
/// is valid. Returns the result as a type, and as JSON with unknown fields.
///
/// Each step collects all its errors; the next one runs only if there are none.
pub(super) fn checked(
    r: &Rendering,
    rendered: &PodTemplateSpec,
) -> Result<(PodTemplateSpec, Value), InvalidTemplate> {
    none(promises::variables(r.serving))?;
    let mut merged = as_json(rendered);
    none(omit::omit(&mut merged, &r.serving.template_omit))?;
    let omitted = lost(r, rendered, &merged)?;
    if let Some(template) = &r.serving.template {
        merge_over(r, &mut merged, template)?;
    }
    let known = known(&merged)?;
    none(blamed(promises::kept(r.serving, rendered, &known), &omitted))?;
    let mut template = as_json(&known);
    add_unknown(&mut template, &merged);
    Ok((known, template))
}

/// Reports paths in `templateOmit` that Laurel's guarantees depend on.
fn lost(
    r: &Rendering,
    rendered: &PodTemplateSpec,
    omitted: &Value,
) -> Result<Vec<TemplateError>, InvalidTemplate> {
    if r.serving.template_omit.is_empty() {
        return Ok(Vec::new());
    }
    Ok(promises::kept(r.serving, rendered, &known(omitted)?))
}

fn merge_over(r: &Rendering, rendered: &mut Value, template: &Value) -> Result<(), InvalidTemplate> {
    let template = &without_empty_parts(template);
    none(schema::errors(template))?;
    none(promises::overrides(r.serving, template))?;
    none(merge::merge(rendered, template))
}

/// Returns the part of a template that this release knows.
fn known(template: &Value) -> Result<PodTemplateSpec, InvalidTemplate> {
    serde_json::from_value(template.clone()).map_err(|error| {
        InvalidTemplate(vec![TemplateError::new(
            &Path::root(),
            format!("the merged template is not a pod template: {error}"),
        )])
    })
}

/// Adds the fields of `merged` that `known` lacks.
fn add_unknown(known: &mut Value, merged: &Value) {
    match (known, merged) {
        (Value::Object(known), Value::Object(merged)) => {
            for (field, merged) in merged.iter().filter(|(_, value)| !value.is_null()) {
                match known.get_mut(field) {
                    Some(known) => add_unknown(known, merged),
                    None => drop(known.insert(field.clone(), merged.clone())),
                }
            }
        }
        (Value::Array(known), Value::Array(merged)) => {
            for (known, merged) in known.iter_mut().zip(merged) {
                add_unknown(known, merged);
            }
        }
        _ => {}
    }
}

/// Returns `errors` with the path `templateOmit` on those that it causes.
fn blamed(errors: Vec<TemplateError>, omitted: &[TemplateError]) -> Vec<TemplateError> {
    let place = |error: TemplateError| {
        if omitted.contains(&error) {
            TemplateError { path: "serving.templateOmit".to_owned(), ..error }
        } else {
            error
        }
    };
    errors.into_iter().map(place).collect()
}

/// Drops fields without meaning: a top-level key without a value, and `metadata.labels` and
/// `metadata.annotations` that are null, which a server-side apply leaves behind when it removes the last
/// entry.
fn without_empty_parts(template: &Value) -> Value {
    let mut template = template.clone();
    let is_empty =
        |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if let Some(fields) = template.as_object_mut() {
        fields.retain(|_, value| !is_empty(value));
    }
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
