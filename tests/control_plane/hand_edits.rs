//! What somebody edits by hand is put right.

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{ResourceExt, api::DeleteParams};
use laurel::render::labels;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::{selected, sizes, until_sizes},
};

/// Whether the Service selects a version of the champion, and nothing else.
fn selects(service: &Service, version: &str) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    selector.len() == 2 && selector.get(labels::VERSION).is_some_and(|selected| selected == version)
}

/// Edits the Service's selector by hand; it is put back on version 2.
async fn reselect(fixture: &Fixture, selector: Value) -> Result<()> {
    let began = Instant::now();
    let edit = json!({ "spec": { "selector": selector } });
    let edited: Service = fixture.edit("champion", edit).await?;
    fixture.audit.excuse(&edited);
    let revision = edited.resource_version();
    let restored = |service: &Service| selects(service, "2") && service.resource_version() != revision;
    let seen = fixture.audit.service_since(began, "the Service back on version 2", restored).await?;
    println!("  {selector}: put right after {:?}", seen.at - began);
    Ok(())
}

#[test]
fn a_service_repointed_or_deleted_by_hand_is_restored_at_once() {
    run("edit-service", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        // Version 1 is warm, version 9 does not exist.
        reselect(fixture, json!({ labels::VERSION: "1" })).await?;
        reselect(fixture, json!({ labels::VERSION: "9" })).await?;
        reselect(fixture, json!({ labels::VERSION: null })).await?;
        reselect(fixture, json!({ "app": "theirs" })).await?;
        reselect(fixture, json!({ labels::VERSION: null, labels::MODEL_ALIAS: null, "app": "theirs" }))
            .await?;
        reselect(fixture, Value::Null).await?;

        let deleted = Instant::now();
        fixture.api::<Service>().delete("champion", &DeleteParams::default()).await?;
        let restored = |service: &Service| selects(service, "2");
        let seen = fixture.audit.service_since(deleted, "the Service again", restored).await?;
        println!("  deleted: back after {:?}", seen.at - deleted);
        Ok(())
    });
}

#[test]
fn a_service_repointed_by_hand_leaves_the_warm_version_warm() {
    run("edit-keeps-warm", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        reselect(fixture, json!({ labels::VERSION: "1" })).await?;
        reselect(fixture, json!({ labels::VERSION: "9" })).await?;
        reselect(fixture, Value::Null).await?;
        let sizes = sizes(fixture).await?;
        ensure!(sizes == [("1".to_owned(), 2), ("2".to_owned(), 2)].into(), "{sizes:?}");
        Ok(())
    });
}

#[test]
fn a_service_port_changed_by_hand_is_restored() {
    run("edit-port", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let began = Instant::now();
        let ports = json!({ "spec": { "ports": [{ "name": "http", "port": 9999, "targetPort": 9999 }] } });
        let edited: Service = fixture.edit("champion", ports).await?;
        let ports = |service: &Service| service.spec.clone().and_then(|spec| spec.ports).unwrap_or_default();
        let restored = |service: &Service| {
            let ports = ports(service);
            ports.len() == 1
                && ports[0].port == 8080
                && service.resource_version() != edited.resource_version()
        };
        fixture.audit.service_since(began, "the port 8080", restored).await.map(drop)
    });
}

#[test]
fn a_deployment_deleted_or_scaled_by_hand_is_restored() {
    run("edit-deployment", async |fixture| {
        fixture.registered(1).await?;
        let change = fixture.get("version: '1'").await?;
        fixture.edit::<Deployment>("champion-v1", json!({ "spec": { "replicas": 5 } })).await?;
        until_sizes(fixture, [("1", 2)]).await?;
        fixture.edit::<Deployment>("champion-v1", json!({ "spec": { "replicas": 1 } })).await?;
        until_sizes(fixture, [("1", 2)]).await?;

        let deleted = Instant::now();
        fixture.api::<Deployment>().delete("champion-v1", &DeleteParams::foreground()).await?;
        fixture.pods.until_since(deleted, "new pods", PATIENCE).await?;
        let again = |it: &laurel::api::ModelAlias| crate::support::alias::is_ready(it, change.generation);
        fixture.champion.until_since(deleted, "Ready again", PATIENCE, again).await?;
        until_sizes(fixture, [("1", 2)]).await?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        Ok(())
    });
}

#[test]
fn deleting_the_warm_version_s_deployment_by_hand_does_no_harm() {
    run("edit-warm", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        fixture.api::<Deployment>().delete("champion-v1", &DeleteParams::background()).await?;
        until_sizes(fixture, [("2", 2)]).await?;
        fixture.get("version: '1'").await?;
        ensure!(selected(fixture).await? == "1", "the rollback did not start it again");
        Ok(())
    });
}
