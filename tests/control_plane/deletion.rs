//! Suspension and deletion: what stays, what is deleted, and that it completes.

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
    ModelAlias, ModelRegistry, RegisteredModel,
    condition::{ConditionType, Reason},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    gate::Gate,
    simulated::look::{revisions, selected, until_sizes},
    support::{
        alias::{condition, has, holds},
        watch::{Seen, Watch},
    },
};

/// Less than the deadline for the registry: whoever waited for it takes longer.
const PROMPT: Duration = Duration::from_secs(58);

/// More than the deadline for the registry.
const DEADLINE: Duration = Duration::from_secs(75);

#[test]
fn a_suspended_modelalias_is_not_written_and_resumes_where_it_was() {
    run("suspend", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        let change = fixture.desired("{version: '2', suspend: true}").await?;
        let is_suspended = |it: &ModelAlias| {
            let known = it.status.as_ref().and_then(|status| status.observed_generation);
            holds(it, ConditionType::Suspended) && known == Some(change.generation)
        };
        let suspended = fixture.champion.until("Suspended", PATIENCE, is_suspended).await?;
        ensure!(holds(&suspended.object, ConditionType::Serving), "the serving version stopped serving");
        ensure!(holds(&suspended.object, ConditionType::Ready), "Ready stays as it was");
        ensure!(!holds(&suspended.object, ConditionType::Stalled), "suspension is not a failure");
        let deployment: Deployment =
            fixture.edit("champion-v1", json!({ "spec": { "replicas": 3 } })).await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        tokio::time::sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
        let edited = deployment.spec.and_then(|spec| spec.replicas);
        until_sizes(fixture, [("1", edited.context("it was scaled by hand")?)]).await?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias was put back");
        fixture.get("version: '2'").await?;
        let last = fixture.champion.last().context("it is gone")?;
        ensure!(condition(&last, ConditionType::Suspended).is_none(), "it is still suspended");
        // The previous version stays warm at the size it had.
        until_sizes(fixture, [("1", 3), ("2", 2)]).await
    });
}

#[test]
fn a_deletion_without_a_policy_leaves_the_alias_and_waits_for_nothing() {
    run("delete-default", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("{version: '1', deletionPolicy: null}").await?;
        fixture.until_named("champion", Some("1")).await?;
        let last = fixture.champion.last().context("it is gone")?;
        ensure!(last.metadata.finalizers.unwrap_or_default().is_empty(), "it has a finalizer");
        delete(fixture, PROMPT).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias is gone");
        Ok(())
    });
}

/// Deletes the champion and waits until it and all its objects are gone. Returns how long that took.
async fn delete(fixture: &Fixture, deadline: Duration) -> Result<Duration> {
    let aliases = fixture.api::<ModelAlias>();
    let began = Instant::now();
    let champion = aliases.get("champion").await?;
    aliases.delete("champion", &DeleteParams::default()).await?;
    fixture.gone(&aliases, &champion, deadline).await?;
    let took = began.elapsed();
    while !fixture.api::<Deployment>().list_metadata(&ListParams::default()).await?.items.is_empty()
        || !fixture.api::<Service>().list_metadata(&ListParams::default()).await?.items.is_empty()
    {
        ensure!(began.elapsed() < deadline + PATIENCE, "something of it is left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(took)
}

#[test]
fn a_deletion_deletes_or_keeps_the_aliases_by_its_policy() {
    run("delete", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("{version: '1', previousAlias: previous}").await?;
        fixture.get("{version: '2', previousAlias: previous}").await?;
        fixture.until_named("champion", Some("2")).await?;
        fixture.until_named("previous", Some("1")).await?;
        delete(fixture, PROMPT).await?;
        ensure!(fixture.named("champion").await?.is_none(), "the alias is left");
        ensure!(fixture.named("previous").await?.is_none(), "the previous alias is left");

        fixture.get("{version: '1', deletionPolicy: Retain}").await?;
        fixture.until_named("champion", Some("1")).await?;
        delete(fixture, PROMPT).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias is gone");

        // An alias that somebody else moved is not deleted.
        fixture.get("{version: '1', drift: Report}").await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        delete(fixture, PROMPT).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "somebody else's alias is gone");
        Ok(())
    });
}

#[test]
fn promise_9_a_deletion_completes_within_the_deadline_while_the_registry_is_unreachable() {
    run("delete-away", async |fixture| {
        // A restarted operator begins the deadline again.
        let _no_restart = fixture.world.keeps_running.lock().await;
        let gate = Gate::open(fixture.world.mlflow.port).await?;
        fixture.registered(1).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        fixture
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
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        let closed = Instant::now();
        gate.close().await;
        let reports = |seen: &Seen<ModelRegistry>| {
            let conditions = seen.object.status.as_ref().map(|status| &status.conditions);
            let away = Reason::RegistryUnreachable.to_string();
            seen.at >= closed && conditions.is_some_and(|all| all.iter().any(|each| each.reason == away))
        };
        let registry = Watch::of(fixture.api::<ModelRegistry>(), "mlflow");
        registry.until("the registry is unreachable", PATIENCE, reports).await?;
        let took = delete(fixture, DEADLINE).await?;
        println!("  gone after {took:?}");
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "who removed the alias?");
        Ok(())
    });
}

/// Deletes a namespace with everything in it, including its ModelRegistry. Returns how long that took.
async fn delete_namespace(fixture: &Fixture, model: &str) -> Result<Duration> {
    fixture.registered(1).await?;
    fixture
        .apply(&format!(
            "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec: {{mlflow: {{url: '{}'}}, pollInterval: 5s}}
",
            fixture.world.mlflow.url()
        ))
        .await?;
    fixture.describe_model(model).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let namespaces: Api<Namespace> = Api::all(fixture.world.cluster.client.clone());
    let namespace = namespaces.get(&fixture.namespace).await?;
    let began = Instant::now();
    namespaces.delete(&fixture.namespace, &DeleteParams::default()).await?;
    fixture.gone(&namespaces, &namespace, DEADLINE).await?;
    println!("  gone after {:?}", began.elapsed());
    Ok(began.elapsed())
}

#[test]
fn promise_9_a_namespace_with_everything_in_it_terminates() {
    run("namespace", async |fixture| {
        let took = delete_namespace(fixture, "registryRef: {name: mlflow}").await?;
        ensure!(took < PROMPT, "it took {took:?} although the registry was reachable");
        ensure!(fixture.named("champion").await?.is_none(), "the alias is left");
        Ok(())
    });
}

#[test]
fn a_namespace_deletes_its_model_even_if_its_modelregistry_is_deleted_first() {
    run("namespace-model", async |fixture| {
        let model = "{registryRef: {name: mlflow}, deletionPolicy: Delete}";
        let took = delete_namespace(fixture, model).await?;
        ensure!(took < PROMPT, "it took {took:?} although the registry was reachable");
        ensure!(fixture.world.mlflow.model(&fixture.model).await?.is_none(), "the model is left");
        Ok(())
    });
}

/// What is about to go is deleted in any order with its namespace.
#[test]
fn promise_9_a_deletion_waits_for_no_deadline_although_its_registeredmodel_is_gone() {
    run("model-first", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("{version: '1', deletionPolicy: Delete}").await?;
        fixture.until_named("champion", Some("1")).await?;
        fixture.api::<RegisteredModel>().delete("model", &DeleteParams::default()).await?;
        let is_missing = |it: &ModelAlias| {
            let ready = it.status.iter().flat_map(|status| &status.conditions);
            ready.into_iter().any(|it| it.type_ == "Ready" && it.status == "False")
        };
        fixture.champion.until("its model is missed", PATIENCE, is_missing).await?;
        tokio::time::sleep(Duration::from_secs(11)).await; // Time itself is the subject: two polls.
        let took = delete(fixture, DEADLINE).await?;
        ensure!(took < Duration::from_secs(20), "it took {took:?} although the registry was reachable");
        ensure!(fixture.named("champion").await?.is_none(), "the alias is left");
        Ok(())
    });
}

#[test]
fn an_alias_without_serving_is_managed_in_the_registry_only() {
    run("alias-only", async |fixture| {
        fixture.registered(2).await?;
        let change = fixture.get("{version: '1', serving: null}").await?;
        fixture.champion.reason(change, Reason::AliasSet, PATIENCE).await?;
        fixture.until_named("champion", Some("1")).await?;
        ensure!(!revisions(fixture).await?.contains_key("Service champion"), "there is a Service");
        fixture.get("version: '1'").await?;
        ensure!(selected(fixture).await? == "1", "it does not serve");
        let change = fixture.desired("{version: '2', serving: null}").await?;
        fixture
            .champion
            .until("AliasSet again", PATIENCE, |it| {
                crate::support::alias::is_ready(it, change.generation) && has(it, Reason::AliasSet)
            })
            .await?;
        fixture.until_named("champion", Some("2")).await?;
        until_sizes(fixture, []).await
    });
}
