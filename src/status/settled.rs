//! Whether an object waits for nothing, so that a change of its registry's health need not be reported by it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{
    ModelAlias, ModelAliasStatus, RegisteredModel, condition::ConditionType, model_alias::Recorded,
};

/// Whether a ModelAlias is at rest: what it asks for serves, the alias names it, and the audit log is written.
/// `status` is the newest known one.
#[must_use]
pub fn is_alias_settled(alias: &ModelAlias, status: &ModelAliasStatus) -> bool {
    let metadata = &alias.metadata;
    metadata.deletion_timestamp.is_none()
        && status.observed_generation == metadata.generation
        && status.target_version == status.version
        && holds(&status.conditions, ConditionType::Ready)
        && holds(&status.conditions, ConditionType::RegistrySynced)
        && status.history.iter().all(|entry| entry.recorded != Recorded::Pending)
}

/// Whether a RegisteredModel is at rest.
#[must_use]
pub fn is_model_settled(model: &RegisteredModel) -> bool {
    let metadata = &model.metadata;
    let Some(status) = &model.status else { return false };
    metadata.deletion_timestamp.is_none()
        && status.observed_generation == metadata.generation
        && holds(&status.conditions, ConditionType::Ready)
}

fn holds(conditions: &[Condition], type_: ConditionType) -> bool {
    let name: &str = type_.into();
    conditions.iter().any(|condition| condition.type_ == name && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn alias(change: impl FnOnce(&mut Value)) -> ModelAlias {
        let mut object = json!({
            "metadata": { "name": "champion", "generation": 2 },
            "spec": { "modelRef": { "name": "fraud" }, "alias": "champion", "version": "1" },
            "status": {
                "observedGeneration": 2, "version": "1", "targetVersion": "1",
                "history": [{
                    "version": "1", "at": "2026-01-01T00:00:00Z", "cause": "Spec", "requestedBy": "me",
                    "outcome": "Promoted", "recorded": "Written",
                }],
                "conditions": [condition("Ready", "True"), condition("RegistrySynced", "True")],
            },
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn condition(type_: &str, status: &str) -> Value {
        json!({
            "type": type_, "status": status, "reason": "AsDesired", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    fn is_settled(change: impl FnOnce(&mut Value)) -> bool {
        let alias = alias(change);
        is_alias_settled(&alias, alias.status.as_ref().unwrap())
    }

    #[test]
    fn a_model_alias_is_at_rest_only_if_nothing_about_it_is_pending() {
        assert!(is_settled(|_| {}));
        assert!(!is_settled(|it| it["status"]["targetVersion"] = "2".into()));
        assert!(!is_settled(|it| it["metadata"]["generation"] = 3.into()));
        assert!(!is_settled(|it| it["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()));
        assert!(!is_settled(|it| it["status"]["conditions"][0] = condition("Ready", "False")));
        assert!(!is_settled(|it| it["status"]["conditions"][1] = condition("RegistrySynced", "Unknown")));
        assert!(!is_settled(|it| it["status"]["history"][0]["recorded"] = "Pending".into()));
    }

    #[test]
    fn a_registered_model_is_at_rest_if_it_is_ready_and_unchanged() {
        let model = |generation: i64, ready: &str| -> RegisteredModel {
            serde_json::from_value(json!({
                "metadata": { "name": "fraud", "generation": generation },
                "spec": {},
                "status": { "observedGeneration": 1, "conditions": [condition("Ready", ready)] },
            }))
            .unwrap()
        };
        assert!(is_model_settled(&model(1, "True")));
        assert!(!is_model_settled(&model(2, "True")) && !is_model_settled(&model(1, "Unknown")));
    }
}
