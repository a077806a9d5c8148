//! The Service: the one name under which whatever version serves is reached.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{HTTP, ServiceRendering, labels};
use crate::{api::names::Version, decide::Traffic};

/// Whose pods the Service sends requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The pods of this version alone.
    One(Version),
    /// The pods of all versions that are ready: while pods are exchanged a few at a time.
    Shared,
}

impl Selection {
    /// What a Service selects that sends requests there.
    #[must_use]
    pub fn of(traffic: Traffic) -> Option<Self> {
        match traffic {
            Traffic::One(version) => Some(Self::One(version)),
            Traffic::Shared => Some(Self::Shared),
            Traffic::Nowhere => None,
        }
    }

    pub(super) fn version(self) -> Option<Version> {
        match self {
            Self::One(version) => Some(version),
            Self::Shared => None,
        }
    }
}

/// The Service of a ModelAlias. Its type is left to whoever sets it: without one, Kubernetes makes it a
/// `ClusterIP`.
#[must_use]
pub fn service(r: &ServiceRendering, selected: Selection) -> Service {
    let port = ServicePort {
        name: Some(HTTP.to_owned()),
        port: r.serving.port.into(),
        target_port: Some(IntOrString::String(HTTP.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some("http".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: ObjectMeta {
            name: Some(r.name.to_owned()),
            namespace: Some(r.namespace.to_owned()),
            labels: Some(labels::service_labels(r)),
            annotations: Some(labels::service_annotations(r)),
            owner_references: Some(vec![r.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(labels::selector(r.name, selected.version())),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The URL for predictions inside the cluster. All three runtimes have `/invocations`; a server of one's own
/// that has not is reached under the same host and port.
#[must_use]
pub fn endpoint(r: &ServiceRendering) -> String {
    format!("http://{}.{}.svc:{}/invocations", r.name, r.namespace, r.serving.port)
}
