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
        edited: is_edited(managers, annotation),
        shared: field_owners::is_shared(managers),
        settings: annotation(labels::SETTINGS).unwrap_or_default(),
        model_uri: annotation(labels::MODEL_URI)?.parse().ok()?,
        started_at: annotation(labels::STARTED_AT).and_then(|text| text.parse().ok()),
        error_message,
    })
}

/// Whether another client changed what is Laurel's. Of a Deployment that a release applied which only looked
/// at the image, nothing else counts: an upgrade does not restart pods for what was changed before.
fn is_edited(managers: &[ManagedFieldsEntry], annotation: impl Fn(&str) -> Option<String>) -> bool {
    let is_shared = match annotation(labels::OWNS_TEMPLATE).as_deref() {
        Some(labels::PENDING) => true,
        Some(_) => field_owners::is_shared(managers),
        None => field_owners::is_image_shared(managers),
    };
    is_shared
        || annotation(labels::OWNED_FIELDS).is_some_and(|digest| field_owners::has_lost(managers, &digest))
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
    use std::collections::BTreeMap;

    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    use super::super::tests::{deployment, key};
    use super::*;
    use crate::{
        api::FIELD_MANAGER,
        render::{
            self,
            fixture::{Fixture, model_uri, version},
        },
    };

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

    /// A Deployment as it is applied, with these managers of its fields.
    fn applied(managers: &Value) -> Deployment {
        let fixture = Fixture::serving("");
        let rendered =
            render::deployment(&fixture.rendering(), version(2), &model_uri(), 1, Timestamp::UNIX_EPOCH);
        let mut applied = rendered.unwrap().object;
        applied.metadata.managed_fields = serde_json::from_value(managers.clone()).unwrap();
        applied.metadata.resource_version = Some("7".into());
        applied
    }

    fn is_seen_as_edited(deployment: &Deployment) -> bool {
        deployment_view(deployment, &key()).unwrap().edited
    }

    /// The operator may be killed after the ownership was taken, before the fields are applied.
    #[test]
    fn a_change_that_is_being_taken_back_is_seen_until_it_is_applied() {
        let image = json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": {
            "k:{\"name\":\"model\"}": { "f:image": {} } } } } } });
        let theirs = json!([{ "manager": "kubectl-set", "operation": "Update", "fieldsV1": image }]);
        let mut edited = applied(&theirs);
        assert!(is_seen_as_edited(&edited));
        let patch = field_owners::take_back(&edited.metadata).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        edited.metadata.managed_fields =
            serde_json::from_value(patch["metadata"]["managedFields"].clone()).unwrap();
        let marks: BTreeMap<String, String> =
            serde_json::from_value(patch["metadata"]["annotations"].clone()).unwrap();
        edited.annotations_mut().extend(marks);
        assert!(!field_owners::is_shared(edited.managed_fields()));
        assert!(is_seen_as_edited(&edited));
        edited.annotations_mut().extend(applied(&theirs).metadata.annotations.unwrap());
        edited.annotations_mut().remove(labels::OWNED_FIELDS);
        assert!(!is_seen_as_edited(&edited));
    }

    #[test]
    fn a_field_that_somebody_removed_is_missed() {
        let fields = json!({ "f:spec": { "f:minReadySeconds": {} } });
        let ours = json!([{ "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields }]);
        let mut deployment = applied(&ours);
        assert!(is_seen_as_edited(&deployment), "most fields are missing");
        let digest = field_owners::applied(deployment.managed_fields()).unwrap();
        deployment.annotations_mut().insert(labels::OWNED_FIELDS.into(), digest);
        assert!(!is_seen_as_edited(&deployment));
        for unknown in [json!([]), json!([{ "manager": "velero", "operation": "Update", "fieldsV1": {} }])] {
            assert!(!is_seen_as_edited(&applied(&unknown)), "nothing is known of what was applied");
        }
        let mut later = applied(&ours);
        later.annotations_mut().insert(labels::OWNED_FIELDS.into(), "v9-0123456789abcdef".into());
        assert!(!is_seen_as_edited(&later), "a later release was here");
    }

    #[test]
    fn a_deployment_of_an_earlier_release_is_left_as_it_is_but_for_its_image() {
        assert!(is_edited("", "f:image"));
        assert!(!is_edited("", "f:resources"));
    }
}
