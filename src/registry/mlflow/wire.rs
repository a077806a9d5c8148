//! MLflow's JSON, and its conversion to the domain's facts.
//!
//! Parsing is lenient: unknown fields are ignored, an absent list is empty, a number may be a string. The
//! fields that identify an object (name, number, creation time) are required.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    json::{InvalidPayload, millis, optional_millis, text_or_number, timestamp},
    stages::StageAliases,
};
use crate::{
    api::{
        model_registry::Stages,
        names::{AliasName, ModelName, ModelUri, Version},
    },
    registry::{RegisteredModelFacts, VersionFacts, VersionState},
};

/// MLflow keeps prompts among the models and marks them with this tag.
const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

/// The answer to a change: an object whose content is not needed.
#[derive(Debug, Deserialize)]
pub(super) struct Acknowledged {}

#[derive(Debug, Deserialize)]
pub(super) struct ModelAnswer {
    pub(super) registered_model: WireModel,
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionAnswer {
    pub(super) model_version: ModelVersion,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelPage {
    pub(super) registered_models: Option<Vec<WireModel>>,
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionPage {
    pub(super) model_versions: Option<Vec<ModelVersion>>,
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireModel {
    name: String,
    #[serde(deserialize_with = "millis")]
    creation_timestamp: i64,
    #[serde(default, deserialize_with = "optional_millis")]
    last_updated_timestamp: Option<i64>,
    description: Option<String>,
    tags: Option<Vec<Tag>>,
    aliases: Option<Vec<Alias>>,
    /// The newest version of each stage, and the newest one without a stage.
    latest_versions: Option<Vec<StageAliases>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelVersion {
    name: String,
    #[serde(deserialize_with = "text_or_number")]
    version: String,
    #[serde(deserialize_with = "millis")]
    creation_timestamp: i64,
    description: Option<String>,
    source: Option<String>,
    run_id: Option<String>,
    status: Option<String>,
    tags: Option<Vec<Tag>>,
}

#[derive(Debug, Deserialize)]
struct Tag {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Alias {
    #[serde(default)]
    alias: String,
    #[serde(default, deserialize_with = "text_or_number")]
    version: String,
}

impl WireModel {
    /// Returns the facts, if the answer is about the requested model.
    pub(super) fn expect_model(
        self,
        name: &ModelName,
        stages: Stages,
    ) -> Result<RegisteredModelFacts, InvalidPayload> {
        if self.name != name.as_str() {
            return Err(InvalidPayload::Response(format!(
                "requested model {:?}, but it returned {:?}",
                name.as_str(),
                self.name
            )));
        }
        self.into_facts(stages)
    }

    /// Returns the facts of any model.
    pub(super) fn into_facts(self, stages: Stages) -> Result<RegisteredModelFacts, InvalidPayload> {
        let name: ModelName =
            self.name.parse().map_err(|error| InvalidPayload::Response(format!("{error}")))?;
        let tags = tags(self.tags);
        // A listing leaves prompts out, so a direct read must do the same to be consistent.
        if tags.get(PROMPT_TAG).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(InvalidPayload::Object(format!(
                "{name:?} is the name of a prompt in the registry, not of a model",
                name = name.as_str()
            )));
        }
        let aliases = self.aliases.unwrap_or_default().into_iter();
        let latest = self.latest_versions.filter(|_| stages == Stages::AsAliases).unwrap_or_default();
        let latest = latest.into_iter().filter_map(StageAliases::into_fact);
        let updated_at = self.last_updated_timestamp.unwrap_or(self.creation_timestamp);
        Ok(RegisteredModelFacts {
            name,
            created_at: timestamp(self.creation_timestamp)?,
            updated_at: timestamp(updated_at)?,
            description: self.description.unwrap_or_default(),
            tags,
            aliases: aliases.filter_map(Alias::into_fact).chain(latest).collect(),
        })
    }
}

impl ModelVersion {
    /// Returns the facts, if the answer is about the requested version.
    pub(super) fn expect_version(
        self,
        name: &ModelName,
        version: Version,
    ) -> Result<VersionFacts, InvalidPayload> {
        if self.name != name.as_str() || self.version != version.to_string() {
            return Err(InvalidPayload::Response(format!(
                "requested version {version} of {:?}, but it returned version {} of {:?}",
                name.as_str(),
                self.version,
                self.name
            )));
        }
        self.into_facts()
    }

    /// Whether it is a version of this model.
    pub(super) fn is_of(&self, name: &ModelName) -> bool {
        self.name == name.as_str()
    }

    /// Returns the facts, if it is a version of this model that Laurel can use.
    pub(super) fn facts_of(self, name: &ModelName) -> Option<VersionFacts> {
        self.is_of(name).then(|| self.into_facts().ok()).flatten()
    }

    fn into_facts(self) -> Result<VersionFacts, InvalidPayload> {
        Ok(VersionFacts {
            version: self.version.parse().map_err(|error| InvalidPayload::Response(format!("{error}")))?,
            created_at: timestamp(self.creation_timestamp)?,
            state: state(self.status.as_deref()),
            model_uri: self.model_uri()?,
            run_id: self.run_id.filter(|id| !id.is_empty()),
            description: self.description.unwrap_or_default(),
            tags: tags(self.tags),
        })
    }

    /// Returns the URI that a server loads.
    ///
    /// MLflow uses the name in `models:/<name>/<version>` verbatim, without decoding it, and truncates it at
    /// a `?`. If the name cannot be written like that, the location of the version's files is used.
    fn model_uri(&self) -> Result<ModelUri, InvalidPayload> {
        let source = self.source.as_deref().unwrap_or_default();
        let from_source = source.parse::<ModelUri>().ok();
        if let Some(uri) = from_source.filter(|uri| uri.logged_model().is_some()) {
            return Ok(uri);
        }
        let by_name = format!("models:/{}/{}", self.name, self.version);
        let by_name = (!self.name.contains('?')).then(|| by_name.parse().ok()).flatten();
        by_name.or_else(|| source.parse().ok()).ok_or_else(|| {
            InvalidPayload::Object(format!(
                "version {} of {:?} has no URI that a model server can load: rename the model so that its \
                 name has no white space and no '?'",
                self.version, self.name
            ))
        })
    }
}

impl Alias {
    fn into_fact(self) -> Option<(AliasName, Version)> {
        Some((self.alias.parse().ok()?, self.version.parse().ok()?))
    }
}

fn state(status: Option<&str>) -> VersionState {
    match status {
        // In MLflow's protocol, READY is the default of an absent status.
        None | Some("" | "READY") => VersionState::Ready,
        Some("FAILED_REGISTRATION") => VersionState::Failed,
        // An unknown state is not READY.
        Some(_) => VersionState::Pending,
    }
}

fn tags(tags: Option<Vec<Tag>>) -> BTreeMap<String, String> {
    tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value.unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn version(name: &str, source: &str) -> ModelVersion {
        let json = json!({ "name": name, "version": "3", "creation_timestamp": 1, "source": source });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_version_is_loaded_by_identity_then_by_name_then_from_its_files() {
        let id = "models:/m-0123456789abcdef0123456789abcdef";
        let table = [
            ("fraud", id, Some(id)),
            ("Fraud cards", id, Some(id)),
            ("fraud", "models:/m-0123", Some("models:/fraud/3")),
            ("fraud", "s3://b/x", Some("models:/fraud/3")),
            ("fraud", "", Some("models:/fraud/3")),
            ("ünï#1;a%20b@c", "", Some("models:/ünï#1;a%20b@c/3")),
            ("Fraud cards", "s3://b/x", Some("s3://b/x")),
            ("what?", "s3://b/x", Some("s3://b/x")),
            ("what?", "", None),
            ("Fraud cards", "s3://b/x y", None),
        ];
        for (name, source, uri) in table {
            let got = version(name, source).into_facts().ok().map(|facts| String::from(facts.model_uri));
            assert_eq!(got.as_deref(), uri, "{name:?} {source:?}");
        }
    }

    #[test]
    fn only_a_ready_version_is_ready() {
        let table = [
            (None, VersionState::Ready),
            (Some("READY"), VersionState::Ready),
            (Some("PENDING_REGISTRATION"), VersionState::Pending),
            (Some("FAILED_REGISTRATION"), VersionState::Failed),
            (Some("QUARANTINED"), VersionState::Pending),
        ];
        for (status, expected) in table {
            assert_eq!(state(status), expected, "{status:?}");
        }
    }

    #[test]
    fn numbers_may_be_strings_and_lists_may_be_null() {
        let model: WireModel = serde_json::from_value(json!({
            "name": "fraud", "creation_timestamp": "1700000000000", "last_updated_timestamp": null,
            "tags": null, "new_field": [1],
            "aliases": [{ "alias": "champion", "version": 7 }, { "alias": "ünï", "version": "1" },
                        { "alias": "v2", "version": "2" }, { "alias": "gone" }, { "alias": "nl\n", "version": "1" }],
        }))
        .unwrap();
        let facts = model.into_facts(Stages::Ignore).unwrap();
        assert_eq!(facts.updated_at, facts.created_at);
        assert_eq!(facts.created_at.as_millisecond(), 1_700_000_000_000);
        let aliases: Vec<_> = facts.aliases.iter().map(|(alias, v)| format!("{alias}={v}")).collect();
        assert_eq!(aliases, ["champion=7"]);
    }
}
