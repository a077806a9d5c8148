//! Writes to the HTTPRoute and to the Services that it names.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::{
    Effects,
    deletion::delete,
    referred_route,
    workloads::{Done, api, apply, enough_pods_are_ready, free_ports, serving_was_removed},
};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        http_route::HttpRoute,
        names::{Version, deployment_name},
    },
    cluster::error::error_message,
    decide::{Observed, Shares, Traffic},
    render,
    resolve::Subject,
};

/// Writes the weights of the versions, after a look at the pods of those that get more than before.
pub(super) async fn share(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    shares: &Shares,
) -> Done {
    let before = observed.cluster.route.as_ref().map(|route| &route.shares);
    let gets_more = |version: &Version| before.is_none_or(|before| shares.of(*version) > before.of(*version));
    for version in shares.iter().map(|(version, _)| version).filter(gets_more) {
        enough_pods_are_ready(effects, subject, Traffic::One(version), 1).await?;
    }
    if let Some(mirror) = shares.mirror() {
        let is_new = before.is_none_or(|before| before.mirrored_to(mirror.version).is_none());
        if is_new {
            enough_pods_are_ready(effects, subject, Traffic::One(mirror.version), 1).await?;
            has_service(effects, subject, mirror.version).await?;
        }
    }
    if observed.status.route_ref.is_some() {
        return referred_route::write(effects, subject, observed, shares).await;
    }
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    let route = render::http_route(&rendering, shares).ok_or_else(|| {
        ReasonMessage::new(
            Reason::AsDesired,
            "spec.traffic was removed while the HTTPRoute was being written",
        )
    })?;
    let known = effects.cluster.route(&subject.key);
    let is_known = known.is_some_and(|known| !known.owner.is_foreign(&subject.claim()));
    apply::<HttpRoute>(effects, subject, rendering.name, &route, is_known).await.map(drop)
}

/// Checks with the API server that the Service of a version exists: some Gateways answer no request at all
/// while copies are sent to one that does not.
async fn has_service(effects: &Effects<'_>, subject: &Subject<'_>, version: Version) -> Done {
    let name = deployment_name(&subject.key.1, version);
    let there = api::<Service>(effects, subject).get_metadata_opt(&name).await;
    let there = there.map_err(|error| error_message(&error, "read", &format!("the Service {name:?}")))?;
    let is_alive = there.is_some_and(|service| service.metadata.deletion_timestamp.is_none());
    is_alive.then_some(()).ok_or_else(|| {
        ReasonMessage::new(Reason::WaitingForPods, format!("the Service {name:?} does not exist any more"))
    })
}

pub(super) async fn delete_route(effects: &Effects<'_>, subject: &Subject<'_>) -> Done {
    let known = effects.cluster.route(&subject.key).and_then(|known| known.uid);
    delete::<HttpRoute>(effects.client, effects.cluster, &subject.key, &subject.key.1, known).await
}

pub(super) async fn apply_version_service(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    version: Version,
) -> Done {
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    let service = render::version_service(&rendering, version);
    let known = effects.cluster.version_service(&subject.key, version);
    let known = known.filter(|known| !known.owner.is_foreign(&subject.claim()));
    if let Some(known) = &known {
        free_ports(effects, subject, known, &service).await?;
    }
    apply::<Service>(effects, subject, &service.name_any(), &service, known.is_some()).await.map(drop)
}

pub(super) async fn delete_version_service(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    version: Version,
) -> Done {
    let name = deployment_name(&subject.key.1, version);
    let known = effects.cluster.version_service(&subject.key, version).and_then(|known| known.uid);
    delete::<Service>(effects.client, effects.cluster, &subject.key, &name, known).await
}
