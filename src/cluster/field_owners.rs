//! Who owns the fields of a Deployment's spec, as its managed fields say.
//!
//! Which fields are Laurel's says [`owned_fields`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use serde_json::{Value, json};

use crate::{
    api::FIELD_MANAGER,
    render::{
        labels,
        owned_fields::{self, Fields, split},
    },
};

/// Whether another client has set a field that is Laurel's.
#[must_use]
pub fn is_shared(managers: &[ManagedFieldsEntry]) -> bool {
    others(managers).any(|fields| split(fields).is_some())
}

/// Whether another client has set the image of the container `model`.
#[must_use]
pub fn is_image_shared(managers: &[ManagedFieldsEntry]) -> bool {
    let path = "/f:template/f:spec/f:containers/k:{\"name\":\"model\"}/f:image";
    others(managers).filter_map(|fields| fields.get("f:spec")).any(|spec| spec.pointer(path).is_some())
}

/// Returns the digest of the fields that Laurel applied; `None` where it applied none.
#[must_use]
pub fn applied(managers: &[ManagedFieldsEntry]) -> Option<String> {
    managers.iter().find(|entry| is_applied_by_laurel(entry)).and_then(fields).map(owned_fields::digest)
}

/// Whether fields are missing of which this is the digest: somebody removed them.
#[must_use]
pub fn has_lost(managers: &[ManagedFieldsEntry], digest: &str) -> bool {
    owned_fields::is_comparable(digest) && applied(managers).is_some_and(|applied| applied != digest)
}

/// The patch that gives all that is Laurel's back to Laurel, over the revision that `metadata` is of. It
/// marks the Deployment, because from then on nothing else shows that somebody changed it. `None` where
/// nothing has to be given back.
#[must_use]
pub fn take_back(metadata: &ObjectMeta) -> Option<Value> {
    let managers = taken_back(metadata.managed_fields.as_deref().unwrap_or_default())?;
    Some(json!({
        "metadata": {
            "resourceVersion": metadata.resource_version,
            "managedFields": managers,
            "annotations": { labels::OWNS_TEMPLATE: labels::PENDING },
        },
    }))
}

/// The managed fields with all that is Laurel's given back to Laurel, so that its next apply sets what it
/// renders and removes what it does not. `None` where it has it already.
fn taken_back(managers: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let mut taken = Fields::new();
    let mut entries: Vec<ManagedFieldsEntry> = Vec::new();
    for entry in managers {
        let parts = fields(entry).filter(|_| is_other(entry)).and_then(split);
        let Some((ours, theirs)) = parts else {
            entries.push(entry.clone());
            continue;
        };
        merge(&mut taken, ours);
        if !theirs.is_empty() {
            entries.push(ManagedFieldsEntry { fields_v1: Some(FieldsV1(theirs.into())), ..entry.clone() });
        }
    }
    if taken.is_empty() {
        return None;
    }
    let taken = Fields::from_iter([("f:spec".to_owned(), taken.into())]);
    if let Some(entry) = entries.iter_mut().find(|entry| is_applied_by_laurel(entry)) {
        let mut all = fields(entry).cloned().unwrap_or_default();
        merge(&mut all, taken);
        entry.fields_v1 = Some(FieldsV1(all.into()));
    } else {
        entries.push(ManagedFieldsEntry {
            api_version: Some("apps/v1".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(taken.into())),
            manager: Some(FIELD_MANAGER.to_owned()),
            operation: Some("Apply".to_owned()),
            ..ManagedFieldsEntry::default()
        });
    }
    Some(entries)
}

/// Whether the entry is about the object itself and of another client. Autoscalers write the subresource
/// `scale`, and Kubernetes `status`.
fn is_other(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() != Some(FIELD_MANAGER)
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

fn is_applied_by_laurel(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

fn fields(entry: &ManagedFieldsEntry) -> Option<&Fields> {
    entry.fields_v1.as_ref()?.0.as_object()
}

fn others(managers: &[ManagedFieldsEntry]) -> impl Iterator<Item = &Fields> {
    managers.iter().filter(|entry| is_other(entry)).filter_map(fields)
}

fn merge(into: &mut Fields, from: Fields) {
    for (field, value) in from {
        match (into.get_mut(&field), value) {
            (Some(Value::Object(known)), Value::Object(value)) => merge(known, value),
            (_, value) => drop(into.insert(field, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: &Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields,
        }))
        .unwrap()
    }

    fn kubectl(spec: &Value) -> ManagedFieldsEntry {
        entry("kubectl-set", "Update", &json!({ "f:spec": spec }))
    }

    fn container(fields: &Value) -> Value {
        json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"model\"}": fields } } } })
    }

    #[test]
    fn every_field_of_the_pod_spec_is_laurels() {
        let new_variable =
            json!({ "f:env": { "k:{\"name\":\"DEBUG\"}": { ".": {}, "f:name": {}, "f:value": {} } } });
        for spec in [
            container(&json!({ "f:image": {} })),
            container(&new_variable),
            container(&json!({ "f:resources": { "f:limits": { "f:memory": {} } } })),
            container(&json!({ "f:readinessProbe": { "f:periodSeconds": {} } })),
            json!({ "f:template": { "f:spec": { "f:nodeSelector": {} } } }),
            json!({ "f:template": { "f:metadata": { "f:annotations": { "f:laurel.dev/settings": {} } } } }),
            json!({ "f:strategy": { "f:type": {} } }),
            json!({ "f:minReadySeconds": {} }),
        ] {
            assert!(is_shared(&[kubectl(&spec)]), "{spec}");
            let ours = entry(FIELD_MANAGER, "Update", &json!({ "f:spec": spec }));
            assert!(!is_shared(&[ours]), "{spec}");
        }
    }

    #[test]
    fn others_set_the_size_and_metadata_of_their_own() {
        let restart = json!({ ".": {}, "f:kubectl.kubernetes.io/restartedAt": {} });
        let mut scale = kubectl(&container(&json!({ "f:image": {} })));
        scale.subresource = Some("scale".into());
        for entry in [
            kubectl(&json!({ "f:replicas": {} })),
            kubectl(&json!({ "f:paused": {} })),
            kubectl(&json!({ "f:template": { "f:metadata": { "f:annotations": restart } } })),
            entry("hpa", "Update", &json!({ "f:metadata": { "f:annotations": { "f:a": {} } } })),
            scale,
        ] {
            assert!(!is_shared(std::slice::from_ref(&entry)), "{entry:?}");
            assert_eq!(taken_back(&[entry]), None);
        }
    }

    #[test]
    fn what_is_laurels_is_given_back_and_the_rest_stays() {
        let applied = container(&json!({ "f:image": {}, "f:env": { "k:{\"name\":\"HOME\"}": {} } }));
        let mut edited = container(&json!({ "f:env": { "k:{\"name\":\"DEBUG\"}": {} } }));
        edited["f:replicas"] = json!({});
        edited["f:template"]["f:metadata"] =
            json!({ "f:annotations": { "f:kubectl.kubernetes.io/restartedAt": {} } });
        let ours = entry(FIELD_MANAGER, "Apply", &json!({ "f:metadata": {}, "f:spec": applied }));
        let taken = taken_back(&[ours.clone(), kubectl(&edited)]).unwrap();
        let env = json!({ "k:{\"name\":\"HOME\"}": {}, "k:{\"name\":\"DEBUG\"}": {} });
        let all = container(&json!({ "f:image": {}, "f:env": env }));
        let kept = json!({
            "f:replicas": {}, "f:template": { "f:metadata": { "f:annotations": { "f:kubectl.kubernetes.io/restartedAt": {} } } },
        });
        let due =
            [entry(FIELD_MANAGER, "Apply", &json!({ "f:metadata": {}, "f:spec": all })), kubectl(&kept)];
        assert_eq!(taken, due);
        assert_eq!(taken_back(&taken), None);
    }

    #[test]
    fn an_entry_of_which_nothing_is_left_is_dropped() {
        let edited = container(&json!({ "f:image": {} }));
        let taken = taken_back(&[kubectl(&edited)]).unwrap();
        assert_eq!(taken, [entry(FIELD_MANAGER, "Apply", &json!({ "f:spec": edited }))]);
    }
}
