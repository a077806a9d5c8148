//! Promotion and rollback under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run, serving},
    support::{alias, cluster::OPERATOR_PODS},
};

/// From accepted to the last answer of the old version, when nothing has to be started. Far above what an
/// idle machine needs (tens of milliseconds), and far below any polling.
const IMMEDIATELY: Duration = Duration::from_secs(1);

fn two_pods(version: &str) -> serde_json::Value {
    json!({ "version": version, "serving": { "replicas": 2 } })
}

#[test]
fn promises_2_and_5_no_request_is_lost_and_a_rollback_is_immediate_and_starts_no_pod() {
    run("lossless", 6, async |fixture| {
        fixture.good_versions(3).await?;
        fixture.get(two_pods("1")).await?;
        let clients = fixture.clients().await?;

        for (from, to) in [("1", "2"), ("2", "3")] {
            let change = fixture.get(two_pods(to)).await?;
            clients.move_to(change, from, to).await?;
        }

        let before = Instant::now();
        let change = fixture.get(two_pods("2")).await?;
        let moved = clients.move_to(change, "3", "2").await?;
        println!("  rollback: last old answer {moved:?} after it was accepted");
        ensure!(moved < IMMEDIATELY, "the rollback took {moved:?}");
        let started = fixture.pods.started_since(before);
        ensure!(started.is_empty(), "the rollback started {started:?}");

        abort(fixture).await?;
        clients.stay_on(change.accepted + Duration::from_secs(2), "2").await?;
        clients.leave().await.map(drop)
    });
}

/// Wishes for a version that has to be started, and thinks better of it while its pods come up.
async fn abort(fixture: &Fixture) -> Result<()> {
    let before = Instant::now();
    fixture.desired(two_pods("1")).await?;
    fixture.pods.until_since(before, "a pod of version 1", PATIENCE).await?;
    let change = fixture.get(two_pods("2")).await?;
    ensure!(serving(fixture) == "2", "version {} serves", serving(fixture));
    ensure!(alias::is_ready(&fixture.champion.last().unwrap(), change.generation), "not Ready");
    Ok(())
}

#[test]
fn keep_alive_clients_lose_nothing_while_pods_of_the_version_they_use_are_replaced() {
    run("settings", 3, async |fixture| {
        fixture.good_versions(1).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;
        let before = Instant::now();
        fixture
            .get(json!({ "version": "1", "serving": { "env": [{ "name": "COLOUR", "value": "green" }] } }))
            .await?;
        ensure!(!fixture.pods.started_since(before).is_empty(), "new settings started no pod");
        clients.stay_on(before, "1").await?;

        let before = Instant::now();
        fixture.kubectl(&["scale", "modelalias", "champion", "--replicas=2"], None).await?;
        let change = fixture.champion.accepted().await?;
        fixture.champion.ready(change, PATIENCE).await?;
        ensure!(fixture.pods.started_since(before).len() == 1, "scaling from 1 to 2 starts one pod");
        clients.leave().await.map(drop)
    });
}

#[test]
fn promise_12_the_operator_runs_under_restricted_with_least_privilege() {
    run("rights", 0, async |fixture| {
        let label = "pod-security.kubernetes.io/enforce=restricted";
        let system = crate::support::cluster::OPERATOR_NAMESPACE;
        let dry_run = ["label", "namespace", system, "--dry-run=server", "--overwrite", label];
        let said = fixture.cluster.run_kubectl(&dry_run, None).await?;
        ensure!(!said.to_lowercase().contains("violate"), "{said}");

        let of_pod = ["-n", system, "get", "pods", "-l", OPERATOR_PODS];
        let account = "-o=jsonpath={.items[0].spec.serviceAccountName}";
        let account = fixture.cluster.run_kubectl(&[&of_pod[..], &[account]].concat(), None).await?;
        let operator = format!("--as=system:serviceaccount:{system}:{account}");
        for (verb, resource, allowed) in [
            ("get", "secrets", true),
            ("list", "secrets", false),
            ("watch", "secrets", false),
            ("create", "pods", false),
            ("delete", "namespaces", false),
            ("*", "*", false),
        ] {
            let said = fixture.kubectl(&["auth", "can-i", verb, resource, &operator], None).await;
            ensure!(said.is_ok() == allowed, "the operator may {verb} {resource}: {}", said.is_ok());
        }
        Ok(())
    });
}
