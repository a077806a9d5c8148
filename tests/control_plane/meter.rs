//! The ConfigMap with the meter, which all pods of a namespace count with.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{ResourceExt, api::DeleteParams};
use laurel::render::{meter, mounts_meter};
use tokio::time::{Instant, sleep};

use crate::{
    drift::forbid,
    fixture::{Fixture, PATIENCE, run},
    simulated::look::selected,
};

async fn config_map(fixture: &Fixture) -> Result<Option<ConfigMap>> {
    Ok(fixture.api::<ConfigMap>().get_opt(&meter("any").name_any()).await?)
}

/// Whether the pods of a version mount the meter.
async fn is_mounted(fixture: &Fixture, version: &str) -> Result<bool> {
    let deployment = fixture.api::<Deployment>().get(&format!("champion-v{version}")).await?;
    Ok(mounts_meter(&deployment))
}

#[test]
fn all_deployments_of_a_namespace_count_with_the_same_configmap() {
    run("meter", async |fixture| {
        fixture.registered(3).await?;
        fixture.get("version: '1'").await?;
        let first = config_map(fixture).await?.context("no ConfigMap")?;
        let rendered = meter(&fixture.namespace);
        ensure!(first.data == rendered.data && first.immutable == Some(true), "{first:?}");
        ensure!(first.owner_references().is_empty(), "it has an owner");
        ensure!(is_mounted(fixture, "1").await?, "version 1 does not mount it");

        fixture.get("{version: '2', serving: {metrics: {predictions: Numbers}}}").await?;
        let second = config_map(fixture).await?.context("no ConfigMap any more")?;
        ensure!(second.resource_version() == first.resource_version(), "it was written again");
        ensure!(is_mounted(fixture, "2").await?, "version 2 does not mount it");

        fixture
            .get(
                "{version: '3', serving: {templateOmit: ['spec.volumes[laurel-meter]', \
                     'spec.containers[model].volumeMounts[/etc/laurel/meter]']}}",
            )
            .await?;
        ensure!(!is_mounted(fixture, "3").await?, "version 3 mounts what it omits");
        Ok(())
    });
}

#[test]
fn a_configmap_that_cannot_be_written_holds_up_nothing() {
    run("meter-refused", async |fixture| {
        forbid(fixture, "", "configmaps", "!object.metadata.name.startsWith('laurel-meter-')").await?;
        let probe = "{apiVersion: v1, kind: ConfigMap, metadata: {name: laurel-meter-probe}}";
        let began = Instant::now();
        while fixture.apply(probe).await.is_ok() {
            fixture.api::<ConfigMap>().delete("laurel-meter-probe", &DeleteParams::default()).await?;
            ensure!(began.elapsed() < PATIENCE, "the policy does not come into force");
            sleep(std::time::Duration::from_millis(200)).await;
        }
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        ensure!(selected(fixture).await? == "2", "traffic did not move");
        ensure!(config_map(fixture).await?.is_none(), "the policy does not reject it");
        ensure!(is_mounted(fixture, "2").await?, "it is not mounted where it could be");
        let logged = fixture.world.log_about(&fixture.namespace);
        let warnings = logged.lines().filter(|line| line.contains("the platform team says no")).count();
        ensure!(warnings == 1, "{warnings} warnings in {logged}");
        Ok(())
    });
}
