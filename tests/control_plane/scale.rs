//! The scale subresource: what kubectl and autoscalers see of a ModelAlias.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::autoscaling::{v1::Scale, v2::HorizontalPodAutoscaler};
use kube::Api;
use laurel::api::ModelAlias;
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::until_sizes,
    support::alias::{is_ready, status},
};

/// What the scale subresource says.
async fn scale(fixture: &Fixture) -> Result<Scale> {
    let aliases: Api<ModelAlias> = fixture.api();
    Ok(serde_json::from_value(serde_json::to_value(aliases.get_scale("champion").await?)?)?)
}

#[test]
fn a_size_removed_from_the_manifest_is_kept_for_an_autoscaler() {
    run("size-open", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("{version: '1', serving: {replicas: 3}}").await?;
        until_sizes(fixture, [("1", 3)]).await?;
        fixture.get("{version: '1', serving: {replicas: null}}").await?;
        let size = |it: &ModelAlias| it.spec.serving.as_ref().and_then(|serving| serving.replicas);
        fixture.champion.until("the size is filled in", PATIENCE, |it| size(it) == Some(3)).await?;
        until_sizes(fixture, [("1", 3)]).await?;
        ensure!(scale(fixture).await?.spec.and_then(|spec| spec.replicas) == Some(3), "no scale");

        // Applied again, the manifest that does not say it changes nothing, and so does a promotion.
        fixture.kubectl(&["scale", "malias", "champion", "--replicas=2"]).await?;
        until_sizes(fixture, [("1", 2)]).await?;
        fixture.get("{version: '2', serving: {replicas: null}}").await?;
        until_sizes(fixture, [("1", 2), ("2", 2)]).await
    });
}

#[test]
fn kubectl_scale_and_an_autoscaler_scale_the_serving_version() {
    run("scale", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.kubectl(&["scale", "malias", "champion", "--replicas=3"]).await?;
        let change = fixture.champion.accepted().await?;
        until_sizes(fixture, [("1", 3)]).await?;
        let full = |it: &ModelAlias| is_ready(it, change.generation) && status(it).ready_replicas == Some(3);
        fixture.champion.until("3 ready pods", PATIENCE, full).await?;
        let seen = scale(fixture).await?;
        let reported = seen.status.context("no status")?;
        ensure!(
            seen.spec.and_then(|spec| spec.replicas) == Some(3) && reported.replicas == 3,
            "{reported:?}"
        );
        let wanted = "laurel.dev/model-alias=champion,laurel.dev/version=1";
        ensure!(reported.selector.as_deref() == Some(wanted), "{reported:?}");

        fixture
            .apply(
                "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: champion}
spec:
  scaleTargetRef: {apiVersion: laurel.dev/v1alpha1, kind: ModelAlias, name: champion}
  minReplicas: 4
  maxReplicas: 5
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
",
            )
            .await?;
        // It needs no metrics to enforce its minimum.
        let scalers = fixture.api::<HorizontalPodAutoscaler>();
        let began = Instant::now();
        loop {
            let seen = scalers.get("champion").await?.status.unwrap_or_default();
            let able = seen.conditions.unwrap_or_default();
            if able.iter().any(|each| each.type_ == "AbleToScale" && each.status == "True") {
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "the autoscaler cannot scale: {able:?}");
            sleep(Duration::from_millis(200)).await;
        }
        until_sizes(fixture, [("1", 4)]).await
    });
}
