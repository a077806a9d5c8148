//! Suspending and deleting: what stays, what goes, and that it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Service},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    gate::Gate,
    scene::{PATIENCE, Scene, play},
    simulated::look::{revisions, selected, until_sizes},
    support::alias::{condition, has, holds},
};

/// The registry's deadline, and some.
const DEADLINE: Duration = Duration::from_secs(75);

#[test]
fn suspended_it_writes_nothing_and_goes_on_where_it_was() {
    play("suspend", async |scene| {
        scene.registered(2).await?;
        scene.get("version: '1'").await?;
        scene.until_named("champion", Some("1")).await?;
        let change = scene.desired("{version: '2', suspend: true}").await?;
        let is_suspended = |it: &ModelAlias| {
            let known = it.status.as_ref().and_then(|status| status.observed_generation);
            holds(it, ConditionType::Suspended) && known == Some(change.generation)
        };
        let suspended = scene.champion.until("Suspended", PATIENCE, is_suspended).await?;
        ensure!(holds(&suspended.object, ConditionType::Serving), "what serves goes on");
        ensure!(holds(&suspended.object, ConditionType::Ready), "Ready stays as it was");
        ensure!(!holds(&suspended.object, ConditionType::Stalled), "suspension is not a failure");
        let deployment: Deployment = scene.edit("champion-v1", json!({ "spec": { "replicas": 3 } })).await?;
        scene.world.mlflow.set_alias(&scene.model, "champion", "2").await?;
        tokio::time::sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
        let edited = deployment.spec.and_then(|spec| spec.replicas);
        until_sizes(scene, [("1", edited.context("it was scaled by hand")?)]).await?;
        ensure!(selected(scene).await? == "1", "traffic moved");
        ensure!(scene.named("champion").await?.as_deref() == Some("2"), "the alias was put back");
        scene.get("version: '2'").await?;
        let last = scene.champion.last().context("it is gone")?;
        ensure!(condition(&last, ConditionType::Suspended).is_none(), "it is suspended no more");
        // The previous version stays warm at the size it had.
        until_sizes(scene, [("1", 3), ("2", 2)]).await
    });
}

#[test]
fn deleted_without_a_policy_it_leaves_its_alias_and_waits_for_nothing() {
    play("delete-default", async |scene| {
        scene.registered(1).await?;
        scene.get("{version: '1', deletionPolicy: null}").await?;
        scene.until_named("champion", Some("1")).await?;
        let last = scene.champion.last().context("it is gone")?;
        ensure!(last.metadata.finalizers.unwrap_or_default().is_empty(), "it has a finalizer");
        delete(scene, PATIENCE).await?;
        ensure!(scene.named("champion").await?.as_deref() == Some("1"), "the alias is gone");
        Ok(())
    });
}

/// Deletes the champion and waits until it and everything of it is gone; how long that took.
async fn delete(scene: &Scene, deadline: Duration) -> Result<Duration> {
    let aliases = scene.api::<ModelAlias>();
    let began = Instant::now();
    let champion = aliases.get("champion").await?;
    aliases.delete("champion", &DeleteParams::default()).await?;
    scene.gone(&aliases, &champion, deadline).await?;
    let took = began.elapsed();
    while !scene.api::<Deployment>().list_metadata(&ListParams::default()).await?.items.is_empty()
        || !scene.api::<Service>().list_metadata(&ListParams::default()).await?.items.is_empty()
    {
        ensure!(began.elapsed() < deadline + PATIENCE, "something of it is left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(took)
}

#[test]
fn deleted_it_takes_its_aliases_with_it_or_leaves_them_as_its_policy_says() {
    play("delete", async |scene| {
        scene.registered(2).await?;
        scene.get("{version: '1', previousAlias: previous}").await?;
        scene.get("{version: '2', previousAlias: previous}").await?;
        scene.until_named("champion", Some("2")).await?;
        scene.until_named("previous", Some("1")).await?;
        delete(scene, PATIENCE).await?;
        ensure!(scene.named("champion").await?.is_none(), "the alias is left");
        ensure!(scene.named("previous").await?.is_none(), "the previous alias is left");

        scene.get("{version: '1', deletionPolicy: Retain}").await?;
        scene.until_named("champion", Some("1")).await?;
        delete(scene, PATIENCE).await?;
        ensure!(scene.named("champion").await?.as_deref() == Some("1"), "the alias is gone");

        // An alias that somebody else has moved is theirs.
        scene.get("{version: '1', drift: Report}").await?;
        scene.world.mlflow.set_alias(&scene.model, "champion", "2").await?;
        delete(scene, PATIENCE).await?;
        ensure!(scene.named("champion").await?.as_deref() == Some("2"), "somebody else's alias is gone");
        Ok(())
    });
}

#[test]
fn promise_9_deleted_while_the_registry_is_away_it_is_gone_within_the_deadline() {
    play("delete-away", async |scene| {
        // An operator that starts anew gives the deletion its whole time once more.
        let _no_restart = scene.world.keeps_running.lock().await;
        let gate = Gate::open(scene.world.mlflow.port).await?;
        scene.registered(1).await?;
        scene.describe_model("registryRef: {name: mlflow}").await?;
        scene
            .apply(&format!(
                "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec: {{mlflow: {{url: '{}'}}, pollInterval: 5s}}
",
                gate.url()
            ))
            .await?;
        scene.get("version: '1'").await?;
        scene.until_named("champion", Some("1")).await?;
        let closed = Instant::now();
        gate.close().await;
        let away = |it: &ModelAlias| {
            condition(it, ConditionType::RegistrySynced)
                .is_some_and(|synced| synced.reason == "RegistryUnreachable")
        };
        scene.champion.until_since(closed, "the registry is away", PATIENCE, away).await?;
        let took = delete(scene, DEADLINE).await?;
        println!("  gone after {took:?}");
        ensure!(scene.named("champion").await?.as_deref() == Some("1"), "who removed the alias?");
        Ok(())
    });
}

/// A namespace with everything in it, its ModelRegistry, too, is deleted; how long that took.
async fn delete_namespace(scene: &Scene, model: &str) -> Result<Duration> {
    scene.registered(1).await?;
    scene
        .apply(&format!(
            "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec: {{mlflow: {{url: '{}'}}, pollInterval: 5s}}
",
            scene.world.mlflow.url()
        ))
        .await?;
    scene.describe_model(model).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    let namespaces: Api<Namespace> = Api::all(scene.world.cluster.client.clone());
    let namespace = namespaces.get(&scene.namespace).await?;
    let began = Instant::now();
    namespaces.delete(&scene.namespace, &DeleteParams::default()).await?;
    scene.gone(&namespaces, &namespace, DEADLINE).await?;
    println!("  gone after {:?}", began.elapsed());
    Ok(began.elapsed())
}

#[test]
fn promise_9_a_namespace_with_everything_in_it_ends() {
    play("namespace", async |scene| {
        let took = delete_namespace(scene, "registryRef: {name: mlflow}").await?;
        ensure!(took < PATIENCE, "the registry was there, yet it took {took:?}");
        ensure!(scene.named("champion").await?.is_none(), "the alias is left");
        Ok(())
    });
}

#[test]
fn a_namespace_takes_its_model_with_it_also_when_its_modelregistry_goes_first() {
    play("namespace-model", async |scene| {
        let model = "{registryRef: {name: mlflow}, deletionPolicy: Delete}";
        let took = delete_namespace(scene, model).await?;
        ensure!(took < PATIENCE, "the registry was there, yet it took {took:?}");
        ensure!(scene.world.mlflow.model(&scene.model).await?.is_none(), "the model is left");
        Ok(())
    });
}

#[test]
fn an_alias_without_serving_is_kept_in_the_registry_and_runs_nothing() {
    play("alias-only", async |scene| {
        scene.registered(2).await?;
        let change = scene.get("{version: '1', serving: null}").await?;
        scene.champion.reason(change, Reason::AliasSet, PATIENCE).await?;
        scene.until_named("champion", Some("1")).await?;
        ensure!(!revisions(scene).await?.contains_key("Service champion"), "there is a Service");
        scene.get("version: '1'").await?;
        ensure!(selected(scene).await? == "1", "it does not serve");
        let change = scene.desired("{version: '2', serving: null}").await?;
        scene
            .champion
            .until("AliasSet again", PATIENCE, |it| {
                crate::support::alias::is_ready(it, change.generation) && has(it, Reason::AliasSet)
            })
            .await?;
        scene.until_named("champion", Some("2")).await?;
        until_sizes(scene, []).await
    });
}
