//! A ModelAlias to render in tests, from the YAML that a user would write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{RegistryForPods, Rendering};
use crate::api::{
    ModelAliasSpec,
    names::{ModelName, ModelUri, Version},
};

pub(crate) struct Fixture {
    pub(crate) spec: ModelAliasSpec,
    pub(crate) model: ModelName,
    pub(crate) registry: RegistryForPods,
}

impl Fixture {
    /// Creates one with this YAML under `serving`, in addition to an image.
    pub(crate) fn serving(yaml: &str) -> Self {
        let serving = ["image: serving:1"].into_iter().chain(yaml.lines()).collect::<Vec<_>>().join("\n  ");
        let spec =
            format!("modelRef: {{name: fraud}}\nalias: champion\nversion: '4'\nserving:\n  {serving}\n");
        Self {
            spec: serde_yaml::from_str(&spec).unwrap(),
            model: "fraud".parse().unwrap(),
            registry: RegistryForPods {
                tracking_uri: "http://mlflow.mlops.svc:5000".parse().unwrap(),
                workspace: None,
                ca: None,
                env_from: Vec::new(),
            },
        }
    }

    pub(crate) fn with_registry(mut self, change: impl FnOnce(&mut RegistryForPods)) -> Self {
        change(&mut self.registry);
        self
    }

    pub(crate) fn rendering(&self) -> Rendering<'_> {
        Rendering {
            name: "fraud-champion",
            namespace: "risk",
            owner: OwnerReference {
                api_version: "laurel.dev/v1alpha1".into(),
                kind: "ModelAlias".into(),
                name: "fraud-champion".into(),
                uid: "6d1b".into(),
                controller: Some(true),
                block_owner_deletion: None,
            },
            model: &self.model,
            alias: &self.spec.alias,
            serving: self.spec.serving.as_ref().unwrap(),
            traffic: self.spec.traffic.as_ref(),
            registry: &self.registry,
        }
    }
}

pub(crate) fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

pub(crate) fn model_uri() -> ModelUri {
    "models:/m-0123456789abcdef0123456789abcdef".parse().unwrap()
}
