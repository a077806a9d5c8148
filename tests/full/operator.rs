//! The operator itself goes away. No other test runs meanwhile: they measure how fast it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    scene::{ALL_PODS, PATIENCE, Scene, play},
    support::{
        alias,
        cluster::{OPERATOR_NAMESPACE, OPERATOR_PODS},
    },
};

#[test]
fn promises_2_and_7_the_operator_killed_in_mid_promotion_loses_nothing_and_the_next_one_goes_on() {
    play("killed", ALL_PODS, async |scene| {
        scene.good_versions(2).await?;
        scene.get(json!({ "version": "1" })).await?;
        let clients = scene.clients().await?;

        let before = Instant::now();
        let change = scene.wish(json!({ "version": "2" })).await?;
        scene.pods.until_since(before, "a pod of version 2", PATIENCE).await?;
        kill_operator(scene).await?;
        scene.champion.ready(change, PATIENCE).await?;
        clients.move_to(change, "1", "2").await?;

        // At rest it is killed again: whoever comes next finds everything as wished.
        let quiet = Instant::now();
        kill_operator(scene).await?;
        scene.cluster.require_laurel().await?;
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(10)).await; // Time itself is the subject.
        ensure!(scene.pods.started_since(quiet).is_empty(), "a new operator started pods");
        let last = scene.champion.last().context("the ModelAlias is gone")?;
        ensure!(alias::is_ready(&last, change.generation), "not Ready under the new operator");
        clients.stay_on(quiet, "2").await?;
        clients.leave().await.map(drop)
    });
}

/// Kills the operator's pod without a word, and waits until another one is there.
async fn kill_operator(scene: &Scene) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client.clone(), OPERATOR_NAMESPACE);
    for pod in pods.list(&ListParams::default().labels(OPERATOR_PODS)).await? {
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}
