//! The operator itself goes away. No other test runs meanwhile: they measure how fast it is.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use tokio::{
    process::Command,
    time::{Instant, sleep_until},
};

use crate::{
    faults::{identities_of, pods_of, restarts},
    fixture::{ALL_PODS, Fixture, PATIENCE, run},
    support::{
        alias,
        cluster::{OPERATOR_NAMESPACE, OPERATOR_PODS},
    },
};

#[test]
fn promises_2_and_7_an_operator_killed_during_a_promotion_loses_nothing_and_the_next_continues() {
    run("killed", ALL_PODS, async |fixture| {
        fixture.good_versions(2).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let before = Instant::now();
        let change = fixture.desired(json!({ "version": "2" })).await?;
        fixture.pods.until_since(before, "a pod of version 2", PATIENCE).await?;
        kill_operator(fixture).await?;
        fixture.champion.ready(change, PATIENCE).await?;
        clients.move_to(change, "1", "2").await?;

        // At rest it is killed again: whoever comes next finds everything as wished.
        let quiet = Instant::now();
        kill_operator(fixture).await?;
        fixture.cluster.require_laurel().await?;
        sleep_until(Instant::now() + Duration::from_secs(10)).await; // Time itself is the subject.
        ensure!(fixture.pods.started_since(quiet).is_empty(), "a new operator started pods");
        let last = fixture.champion.last().context("the ModelAlias is gone")?;
        ensure!(alias::is_ready(&last, change.generation), "not Ready under the new operator");
        clients.stay_on(quiet, "2").await?;
        clients.leave().await.map(drop)
    });
}

#[test]
fn promises_2_and_8_an_operator_upgrade_restarts_no_model_and_a_rollout_under_way_is_completed() {
    run("upgrade", ALL_PODS, async |fixture| {
        fixture.good_versions(2).await?;
        let two_pods = |version| json!({ "version": version, "serving": { "replicas": 2 } });
        fixture.get(two_pods("1")).await?;
        let clients = fixture.clients().await?;

        // At rest.
        let (pods, deployments) = (identities_of(fixture, "1").await?, generations(fixture).await?);
        let quiet = Instant::now();
        upgrade(fixture, "at-rest").await?;
        sleep_until(Instant::now() + Duration::from_secs(10)).await; // Time itself is the subject.
        ensure!(identities_of(fixture, "1").await? == pods, "the upgrade replaced serving pods");
        ensure!(generations(fixture).await? == deployments, "the upgrade changed a Deployment");
        ensure!(fixture.pods.started_since(quiet).is_empty(), "the upgrade started pods");

        // In the midst of a rollout.
        let before = Instant::now();
        let change = fixture.desired(two_pods("2")).await?;
        fixture.pods.until_since(before, "a pod of version 2", PATIENCE).await?;
        upgrade(fixture, "in-mid-rollout").await?;
        fixture.champion.ready(change, PATIENCE).await?;
        clients.move_to(change, "1", "2").await?;
        ensure!(
            identities_of(fixture, "1").await? == pods,
            "the pods that served, and are warm now, were replaced"
        );
        let started = fixture.pods.started_since(before);
        ensure!(started.len() == 2, "two pods of version 2, and each once: {started:?}");
        for version in ["1", "2"] {
            let again: i32 = pods_of(fixture, version).await?.iter().map(restarts).sum();
            ensure!(again == 0, "containers of version {version} were started {again} times anew");
        }
        clients.leave().await?;
        upgrade(fixture, "").await
    });
}

/// Kills the operator's pod without a word, and waits until another one is there.
async fn kill_operator(fixture: &Fixture) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(fixture.cluster.client.clone(), OPERATOR_NAMESPACE);
    for pod in pods.list(&ListParams::default().labels(OPERATOR_PODS)).await? {
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

/// Upgrades the release to the same chart and the same values, but for a new annotation of the operator's
/// pod, and waits until the new operator is ready.
async fn upgrade(fixture: &Fixture, mark: &str) -> Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundled = checkout.join(".cluster/bin/helm");
    let mut helm = Command::new(if bundled.exists() { bundled } else { "helm".into() });
    helm.args([
        "upgrade",
        "laurel",
        "charts/laurel",
        "--namespace",
        OPERATOR_NAMESPACE,
        "--reuse-values",
        "--wait",
    ]);
    helm.args(["--set", &format!("podAnnotations.upgraded={mark}")]).current_dir(checkout);
    if let Some(path) = fixture.cluster.kubeconfig() {
        helm.env("KUBECONFIG", path);
    }
    let done = helm.output().await.context("helm cannot be run")?;
    ensure!(done.status.success(), "helm upgrade: {}", String::from_utf8_lossy(&done.stderr));
    fixture.cluster.require_laurel().await
}

/// How often the spec of each Deployment was changed.
async fn generations(fixture: &Fixture) -> Result<BTreeMap<String, Option<i64>>> {
    let deployments: Api<Deployment> = Api::namespaced(fixture.cluster.client.clone(), &fixture.namespace);
    let deployments = deployments.list(&ListParams::default()).await?;
    Ok(deployments.into_iter().map(|each| (each.name_any(), each.metadata.generation)).collect())
}
