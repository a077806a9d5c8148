//! What is kept of a Deployment: the size and the settings of one version.

use jiff::Timestamp;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use kube::ResourceExt;

use super::{Cache, Owner, Projected, count, revision, version_of};
use crate::{
    api::{
        model_alias::AliasKey,
        names::{ModelUri, Version, deployment_name},
    },
    cluster::field_owners,
    render::labels,
};

/// What is kept of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentView {
    /// Its UID.
    pub uid: Option<String>,
    /// Its revision.
    pub resource_version: u64,
    /// The version that its pods serve.
    pub version: Version,
    /// Who controls it.
    pub owner: Owner,
    pub(super) desired: u32,
    pub(super) rolled_out: bool,
    pub(super) edited: bool,
    /// Whether another client owns fields that are Laurel's.
    pub shared: bool,
    pub(super) settings: String,
    pub(super) model_uri: ModelUri,
    pub(super) started_at: Option<Timestamp>,
    /// Why its pods cannot be made.
    pub(super) error_message: Option<String>,
}

fn deployment_view(deployment: &Deployment, alias: &AliasKey) -> Option<DeploymentView> {
    let metadata = &deployment.metadata;
    let annotation =
        |key: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)).cloned();
    let version = version_of(metadata)?;
    let spec = deployment.spec.as_ref()?;
    let status = deployment.status.clone().unwrap_or_default();
    let managers = metadata.managed_fields.as_deref().unwrap_or_default();
    let desired = count(spec.replicas);
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let error_message = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
        .map(|condition| condition.message.clone().unwrap_or_default());
    let seen = status.observed_generation.is_some() && status.observed_generation >= metadata.generation;
    Some(DeploymentView {
        uid: metadata.uid.clone(),
        resource_version: revision(metadata),
        version,
        owner: Owner::of(metadata, alias, &deployment_name(&alias.1, version)),
        desired,
        rolled_out: seen
            && count(status.updated_replicas) == desired
            && count(status.replicas) == desired
            && count(status.ready_replicas) >= desired,
        edited: is_edited(managers, annotation(labels::OWNS_TEMPLATE).is_some()),
        shared: field_owners::is_shared(managers),
        settings: annotation(labels::SETTINGS).unwrap_or_default(),
        model_uri: annotation(labels::MODEL_URI)?.parse().ok()?,
        started_at: annotation(labels::STARTED_AT).and_then(|text| text.parse().ok()),
        error_message,
    })
}

/// Whether another client changed what is Laurel's. Of a Deployment that a release applied which only looked
/// at the image, nothing else counts: an upgrade does not restart pods for what was changed before.
fn is_edited(managers: &[ManagedFieldsEntry], owns_template: bool) -> bool {
    if owns_template { field_owners::is_shared(managers) } else { field_owners::is_image_shared(managers) }
}

impl Projected for Deployment {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        let Some(view) = deployment_view(self, alias) else {
            tracing::warn!(deployment = %self.name_any(), namespace = %alias.0, "a Deployment with our label lacks our version or model URI");
            return;
        };
        cache.edit(alias, |objects| {
            let name = self.name_any();
            if objects
                .deployments
                .get(&name)
                .is_none_or(|known| known.resource_version <= view.resource_version)
            {
                objects.deployments.insert(name, view);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| drop(objects.deployments.remove(name)));
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        cache.all(|objects| objects.deployments.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{deployment, key};
    use super::*;

    fn is_edited(annotations: &str, field: &str) -> bool {
        let managers = format!(
            "managedFields: [{{manager: kubectl-set, operation: Update, fieldsV1: {{'f:spec': {{'f:template': {{'f:spec': \
              {{'f:containers': {{'k:{{\"name\":\"model\"}}': {{'{field}': {{}}}}}}}}}}}}}}}}]"
        );
        let mut deployment = deployment(2, &managers);
        deployment
            .annotations_mut()
            .extend((!annotations.is_empty()).then(|| (annotations.into(), "true".into())));
        deployment_view(&deployment, &key()).unwrap().edited
    }

    #[test]
    fn any_field_of_the_template_counts() {
        assert!(is_edited(labels::OWNS_TEMPLATE, "f:image"));
        assert!(is_edited(labels::OWNS_TEMPLATE, "f:resources"));
    }

    #[test]
    fn a_deployment_of_an_earlier_release_is_left_as_it_is_but_for_its_image() {
        assert!(is_edited("", "f:image"));
        assert!(!is_edited("", "f:resources"));
    }
}
