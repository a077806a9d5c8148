//! Stages: what MLflow had before it had aliases. Where asked, `Staging` and `Production` are read and set as if they were
//! aliases of these names.

use serde::Deserialize;
use serde_json::json;

use super::{http::Call, wire::text_or_number};
use crate::api::names::{AliasName, ModelName, Version};

const STAGES: [&str; 2] = ["Staging", "Production"];

/// The newest version in one stage, as the answer about a model tells it.
#[derive(Debug, Deserialize)]
pub(super) struct StageAliases {
    #[serde(default)]
    current_stage: Option<String>,
    #[serde(default, deserialize_with = "text_or_number")]
    version: String,
}

impl StageAliases {
    pub(super) fn into_fact(self) -> Option<(AliasName, Version)> {
        let stage = self.current_stage.filter(|stage| STAGES.contains(&stage.as_str()))?;
        Some((stage.parse().ok()?, self.version.parse().ok()?))
    }
}

/// Whether an alias of this name is a stage.
pub(super) fn is_stage(alias: &AliasName) -> bool {
    STAGES.contains(&alias.as_str())
}

/// Puts a version into a stage. Those that were in it are archived, so that it names one version, as an alias does.
pub(super) fn enter(name: &ModelName, stage: &AliasName, version: Version) -> Call {
    transition(name, version, stage.as_str(), true)
}

/// Takes a version out of its stage.
pub(super) fn leave(name: &ModelName, version: Version) -> Call {
    transition(name, version, "None", false)
}

fn transition(name: &ModelName, version: Version, stage: &str, archive: bool) -> Call {
    let body =
        json!({ "name": name, "version": version, "stage": stage, "archive_existing_versions": archive });
    Call::post("model-versions/transition-stage", body)
}
