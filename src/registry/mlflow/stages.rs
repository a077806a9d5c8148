//! Stages, the predecessor of aliases in MLflow. If configured, `Staging` and `Production` are read and set
//! as if they were aliases with these names.

use serde::Deserialize;
use serde_json::json;

use super::{http::Call, json::text_or_number};
use crate::api::names::{AliasName, ModelName, Version};

const STAGES: [&str; 2] = ["Staging", "Production"];

/// The newest version in one stage, as listed in the answer about a model.
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

/// Whether this alias is the name of a stage.
pub(super) fn is_stage(alias: &AliasName) -> bool {
    STAGES.contains(&alias.as_str())
}

/// Moves a version to a stage. Other versions in it are archived, so that the stage has one version, like an
/// alias.
pub(super) fn enter(name: &ModelName, stage: &AliasName, version: Version) -> Call {
    transition(name, version, stage.as_str(), true)
}

/// Removes a version from its stage.
pub(super) fn leave(name: &ModelName, version: Version) -> Call {
    transition(name, version, "None", false)
}

fn transition(name: &ModelName, version: Version, stage: &str, archive: bool) -> Call {
    let body =
        json!({ "name": name, "version": version, "stage": stage, "archive_existing_versions": archive });
    Call::post("model-versions/transition-stage", body)
}
