//! The PodDisruptionBudget: drains of nodes take the pods that serve one at a time.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{Selection, ServiceRendering, labels};

/// The PodDisruptionBudget of a ModelAlias, for the pods that its Service selects.
///
/// One pod may always go, so a single replica never blocks a drain. Pods that are not ready protect nothing
/// and may go, too.
#[must_use]
pub fn disruption_budget(r: &ServiceRendering, selected: Selection) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(r.name.to_owned()),
            namespace: Some(r.namespace.to_owned()),
            labels: Some(labels::service_labels(r)),
            annotations: Some(labels::service_annotations(r)),
            owner_references: Some(vec![r.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels::selector(r.name, selected.version())),
                match_expressions: None,
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
