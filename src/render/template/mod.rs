//! The user's partial pod template.
use std::fmt;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::Rendering;

/// Why `serving` cannot be rendered: every place that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidTemplate(pub Vec<Fault>);

/// One place that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, from the ModelAlias's spec on: `serving.template.spec.containers[0].imagee`.
    pub path: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> =
            self.0.iter().map(|fault| format!("{}: {}", fault.path, fault.problem)).collect();
        f.write_str(&faults.join("; "))
    }
}

/// `rendered` with the template of `serving` merged over it.
pub(super) fn checked(_: &Rendering, rendered: PodTemplateSpec) -> Result<PodTemplateSpec, InvalidTemplate> {
    Ok(rendered)
}
