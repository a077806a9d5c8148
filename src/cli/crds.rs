//! `laurel crds`: the custom resource definitions as YAML.

use std::io::Write;

use crate::api;

/// Prints the custom resource definitions as YAML documents.
///
/// # Errors
/// When they cannot be written.
pub fn print_crds(mut out: impl Write) -> std::io::Result<()> {
    for crd in api::custom_resource_definitions() {
        let yaml = serde_yaml::to_string(&crd).map_err(std::io::Error::other)?;
        write!(out, "---\n{yaml}")?;
    }
    Ok(())
}
