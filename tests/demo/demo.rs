//! The demo: a model is promoted and rolled back on a real Kubernetes while clients send it predictions.
//!
//! `make demo` prepares everything and runs it. By hand, with the cluster up and Laurel installed:
//!
//! ```sh
//! cargo run --example demo
//! ```
//!
//! With `GATEWAY=1` it is another demo: of shares, behind the Gateway that `tests/rig/rig gateway-up`
//! installs.
//!
//! With `CLUSTER=existing` it uses kubectl's current cluster; `LAUREL_SERVING_IMAGE` then names a serving
//! image that this cluster can pull. It starts from an empty namespace `risk` each time, which it deletes
//! only if it created it, and leaves everything running. It fails if a single request was lost.

#![expect(clippy::print_stdout, reason = "the demo talks to a person at a terminal")]
#![expect(clippy::disallowed_types, reason = "effects: the demo runs against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "effects: the environment names the cluster")]

mod gateway;
mod harness;
mod measure;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use the rest")]
mod support;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    ALIAS, Clients, Harness, MODEL, NAME, NAMESPACE, PATIENCE, print_command, print_output, print_step,
};
use laurel::api::condition::{ConditionType, Reason};
use support::{
    alias::{self, Change},
    load::{Connection, Load},
};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<()> {
    let mut harness = Harness::create().await?;
    if std::env::var("GATEWAY").is_ok_and(|gateway| gateway == "1") {
        return gateway::run(&harness).await;
    }
    first_version(&mut harness).await?;
    let Clients { way, load } = harness.start_clients().await?;

    promotion(&mut harness, &load, "1", "2").await?;
    promotion(&mut harness, &load, "2", "3").await?;
    rollback(&mut harness, &load, "3", "2").await?;
    follow(&mut harness).await?;
    moved_in_mlflow(&mut harness, &load, "2", "1").await?;
    bad_image(&mut harness, &load, "1").await?;
    taken_back(&mut harness).await?;

    print_step("The same again, measured more closely");
    measure::pod_starts(&harness);
    let lost_meanwhile = measure::moves(&harness, &way, "1", "2").await?;
    measure::operator_memory(&harness).await;

    print_step("What happened");
    println!("\n{}", harness.table(&load));
    let report = load.stop().await;
    for connection in [Connection::Fresh, Connection::KeepAlive] {
        println!("  {connection:?}: {}", report.over(connection));
    }
    what_to_try();
    ensure!(report.lost() + lost_meanwhile == 0, "requests were lost: {report}");
    ensure!(
        report.not_sent() == 0,
        "the client could not keep its rate, so it may have missed something: {report}"
    );
    println!("\nNot one request was lost.");
    Ok(())
}

async fn first_version(harness: &mut Harness) -> Result<()> {
    print_step("The model, and @champion is version 1");
    harness.apply("registered-model.yaml").await?;
    print_output(include_str!("champion-v1.yaml"));
    let change = harness.change("champion-v1.yaml").await?;
    let took = serves(harness, change, "1").await?;
    harness.end_step("version 1 from nothing", took, None).await
}

async fn promotion(harness: &mut Harness, load: &Load, from: &str, to: &str) -> Result<()> {
    print_step(&format!("Promotion: version: \"{from}\" becomes version: \"{to}\""));
    let change = harness.change(&format!("champion-v{to}.yaml")).await?;
    let took = serves(harness, change, to).await?;
    let last = harness.traffic_moved(load, change, from, to).await?;
    harness.end_step(&format!("promotion {from} to {to}"), took, Some(last)).await
}

async fn rollback(harness: &mut Harness, load: &Load, from: &str, to: &str) -> Result<()> {
    print_step(&format!("Rollback to version {to}, which is still warm"));
    let before = Instant::now();
    let change = harness.change(&format!("champion-v{to}.yaml")).await?;
    let took = serves(harness, change, to).await?;
    let last = harness.traffic_moved(load, change, from, to).await?;
    let started = harness.pods.started_since(before);
    ensure!(started.is_empty(), "a rollback to a warm version started pods: {started:?}");
    harness.end_step(&format!("rollback {from} to {to}"), took, Some(last)).await
}

async fn follow(harness: &mut Harness) -> Result<()> {
    print_step("From now on MLflow decides: follow: {registry: {}} instead of version");
    let change = harness.change("champion-follow.yaml").await?;
    let took = serves(harness, change, "2").await?;
    harness.end_step("follow the registry", took, None).await
}

async fn moved_in_mlflow(harness: &mut Harness, load: &Load, from: &str, to: &str) -> Result<()> {
    print_step(&format!("A data scientist moves @{ALIAS} to version {to} in MLflow"));
    let body = format!(r#"{{"name":"{MODEL}","alias":"{ALIAS}","version":"{to}"}}"#);
    let url = format!("{}/api/2.0/mlflow/registered-models/alias", support::mlflow::URL);
    print_command(&format!("curl -X POST {url} -H 'Content-Type: application/json' -d '{body}'"));
    let generation = harness.champion.accepted().await?.generation;
    harness.mlflow.set_alias(MODEL, ALIAS, to).await?;
    let change = Change { generation, accepted: Instant::now() };
    let took = serves(harness, change, to).await?;
    let last = harness.traffic_moved(load, change, from, to).await?;
    harness.end_step(&format!("alias {from} to {to} in MLflow"), took, Some(last)).await
}

async fn bad_image(harness: &mut Harness, load: &Load, serving: &str) -> Result<()> {
    print_step("A mistake: version 3 with an image that does not exist");
    let change = harness.change("champion-bad-image.yaml").await?;
    let refused = harness.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
    println!("  STATUS {}: {}", Reason::ProgressDeadlineExceeded, alias::message(&refused.object));
    ensure!(alias::holds(&refused.object, ConditionType::Serving), "the serving version stopped serving");
    let answered = load.since(change.accepted).answered();
    ensure!(answered.keys().eq([serving]), "traffic did not stay on version {serving}: {answered:?}");
    harness.end_step("bad image, refused", refused.at - change.accepted, None).await
}

async fn taken_back(harness: &mut Harness) -> Result<()> {
    print_step("The mistake is reverted: version 2 again");
    let change = harness.change("champion-v2.yaml").await?;
    let took = serves(harness, change, "2").await?;
    harness.end_step("taken back", took, None).await
}

/// Waits until a version serves after a change. Returns the time since the change was accepted.
pub(crate) async fn serves(harness: &Harness, change: Change, version: &str) -> Result<Duration> {
    let wanted = |malias: &_| alias::is_ready(malias, change.generation) && alias::version(malias) == version;
    let ready = harness
        .champion
        .until_since(change.accepted, &format!("Ready with version {version}"), PATIENCE, wanted)
        .await?;
    Ok(ready.at - change.accepted)
}

fn what_to_try() {
    let kubeconfig = if std::env::var_os("CLUSTER").is_none() {
        "\n    export KUBECONFIG=$PWD/.cluster/full/kubeconfig PATH=$PWD/.cluster/bin:$PATH"
    } else {
        ""
    };
    println!(
        "
  Everything is still up. To try:
{kubeconfig}
    kubectl get malias,deploy,pods -n {NAMESPACE}
    kubectl describe malias {NAME} -n {NAMESPACE}
    kubectl apply -n {NAMESPACE} -f tests/demo/champion-v1.yaml      # roll back
    kubectl get events -n {NAMESPACE} --field-selector involvedObject.kind=ModelAlias
    kubectl explain modelalias.spec"
    );
}
