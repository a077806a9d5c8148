//! What stands in the way on the registry's side: it is told, nothing that serves is touched, and it ends by
//! itself.

use anyhow::{Result, ensure};
use kube::Resource;
use laurel::api::{
    ModelRegistry, RegisteredModel,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    gate::Gate,
    simulated::look::{revisions, selected},
    support::{
        alias::{condition, has, is_ready, message, version},
        watch::Watch,
    },
};

/// The ModelRegistry `mlflow`; `more` is YAML beside its URL.
async fn name_registry(fixture: &Fixture, url: &str, more: &str) -> Result<()> {
    fixture
        .apply(&format!(
            "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec:
  mlflow: {{url: '{url}'}}
  pollInterval: 5s
  {more}
"
        ))
        .await
}

/// Watches the ModelRegistry.
fn registry(fixture: &Fixture) -> Watch<ModelRegistry> {
    Watch::of(fixture.api(), "mlflow")
}

/// Waits until the ModelRegistry says a reason since a moment; what it says.
async fn says(watch: &Watch<ModelRegistry>, since: Instant, reason: Reason) -> Result<String> {
    let name: &str = reason.into();
    let ready = |registry: &ModelRegistry| {
        let conditions = registry.status.clone().unwrap_or_default().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "Ready")
    };
    let wanted = |registry: &ModelRegistry| {
        ready(registry).is_some_and(|ready| {
            ready.reason == name && ready.observed_generation == registry.meta().generation
        })
    };
    let seen = watch.until(name, PATIENCE, |seen| seen.at >= since && wanted(&seen.object)).await?;
    Ok(ready(&seen.object).map(|ready| ready.message).unwrap_or_default())
}

#[test]
fn promise_3_an_unreachable_registry_changes_nothing_and_is_caught_up_with_later() {
    run("away", async |fixture| {
        let gate = Gate::open(fixture.world.mlflow.port).await?;
        let registry = registry(fixture);
        fixture.registered(2).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        name_registry(fixture, &gate.url(), "").await?;
        fixture.get("{version: '1', deletionPolicy: Retain}").await?;

        let closed = Instant::now();
        gate.close().await;
        let said = says(&registry, closed, Reason::RegistryUnreachable).await?;
        ensure!(said.contains(&gate.url()), "{said}");
        let before = revisions(fixture).await?;
        let change = fixture.desired("{version: '2', deletionPolicy: Retain}").await?;
        let waits = fixture.champion.reason(change, Reason::RegistryUnreachable, PATIENCE).await?.object;
        let condition_of = |type_| condition(&waits, type_).map(|condition| condition.status);
        ensure!(condition_of(ConditionType::Serving).as_deref() == Some("True"), "{waits:?}");
        ensure!(condition_of(ConditionType::RegistrySynced).as_deref() == Some("Unknown"), "{waits:?}");
        ensure!(condition_of(ConditionType::Reconciling).as_deref() == Some("True"), "{waits:?}");
        let after = revisions(fixture).await?;
        for untouched in ["Deployment champion-v1", "Service champion"] {
            ensure!(before[untouched] == after[untouched], "{untouched} was written");
        }
        ensure!(!after.contains_key("Deployment champion-v2"), "version 2 was started without the registry");

        gate.open_again().await?;
        fixture.champion.ready(change, PATIENCE).await?;
        ensure!(selected(fixture).await? == "2", "the wish was forgotten");
        fixture.until_named("champion", Some("2")).await
    });
}

#[test]
fn promise_5_a_rollback_to_the_warm_version_needs_no_registry() {
    run("away-rollback", async |fixture| {
        let gate = Gate::open(fixture.world.mlflow.port).await?;
        let registry = registry(fixture);
        fixture.registered(2).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        name_registry(fixture, &gate.url(), "").await?;
        fixture.get("{version: '1', deletionPolicy: Retain}").await?;
        fixture.get("{version: '2', deletionPolicy: Retain}").await?;
        fixture.until_named("champion", Some("2")).await?;
        let closed = Instant::now();
        gate.close().await;
        says(&registry, closed, Reason::RegistryUnreachable).await?;
        let change = fixture.desired("{version: '1', deletionPolicy: Retain}").await?;
        fixture.champion.until_since(change.accepted, "version 1", PATIENCE, |it| version(it) == "1").await?;
        ensure!(selected(fixture).await? == "1", "traffic did not go back");
        gate.open_again().await?;
        fixture.until_named("champion", Some("1")).await
    });
}

#[test]
fn a_missing_registeredmodel_is_reported_and_detected_when_created() {
    run("no-model", async |fixture| {
        let change = fixture.desired("version: '1'").await?;
        let refused = fixture.champion.reason(change, Reason::RegisteredModelNotFound, PATIENCE).await?;
        let said = message(&refused.object);
        let wanted = format!(
            r#"spec.modelRef: there is no RegisteredModel "model" in the namespace "{}""#,
            fixture.namespace
        );
        ensure!(said.contains(&wanted), "{said}");
        fixture.reported(Reason::RegisteredModelNotFound).await?;
        fixture.registered(1).await?;
        fixture.champion.ready(change, PATIENCE).await.map(drop)
    });
}

#[test]
fn a_missing_modelregistry_is_reported_and_detected_when_created() {
    run("no-registry", async |fixture| {
        fixture.registered(1).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        let change = fixture.desired("version: '1'").await?;
        let refused = fixture.champion.reason(change, Reason::ModelRegistryNotFound, PATIENCE).await?;
        let said = message(&refused.object);
        let named = format!("no usable ModelRegistry {}/mlflow", fixture.namespace);
        ensure!(said.contains(&named), "{said}");
        name_registry(fixture, &fixture.world.mlflow.url(), "").await?;
        fixture.champion.ready(change, PATIENCE).await.map(drop)
    });
}

#[test]
fn a_version_that_is_not_registered_yet_serves_once_it_is() {
    run("no-version", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let change = fixture.desired("version: '2'").await?;
        let refused = fixture.champion.reason(change, Reason::VersionNotFound, PATIENCE).await?;
        let said = message(&refused.object);
        ensure!(
            said == "version 2 does not exist in the registry; correct spec.version, or register it",
            "{said}"
        );
        ensure!(selected(fixture).await? == "1", "traffic moved");
        fixture.world.mlflow.register(&fixture.model).await?;
        fixture.champion.ready(change, PATIENCE).await?;
        ensure!(selected(fixture).await? == "2", "version 2 does not serve");
        Ok(())
    });
}

#[test]
fn a_host_that_mlflow_rejects_is_reported_with_the_option_that_allows_it() {
    run("host", async |fixture| {
        let registry = registry(fixture);
        fixture.registered(1).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        let port = fixture.world.mlflow.port;
        let began = Instant::now();
        name_registry(fixture, &format!("http://localhost:{port}"), "").await?;
        let said = says(&registry, began, Reason::RegistryHostRefused).await?;
        ensure!(said.contains("--allowed-hosts") && said.contains(&format!("localhost:{port}")), "{said}");
        let change = fixture.desired("version: '1'").await?;
        fixture.champion.reason(change, Reason::RegistryHostRefused, PATIENCE).await?;

        name_registry(fixture, "http://127.0.0.1:1", "").await?;
        let said = says(&registry, began, Reason::RegistryUnreachable).await?;
        ensure!(said.contains("127.0.0.1:1"), "{said}");
        let waits = |it: &laurel::api::ModelAlias| has(it, Reason::RegistryUnreachable);
        fixture.champion.until("RegistryUnreachable", PATIENCE, waits).await?;

        let corrected = Instant::now();
        name_registry(fixture, &fixture.world.mlflow.url(), "").await?;
        says(&registry, corrected, Reason::Connected).await?;
        fixture.champion.ready(change, PATIENCE).await.map(drop)
    });
}

#[test]
fn a_missing_secret_and_a_missing_key_are_reported_and_detected_when_created() {
    run("secret", async |fixture| {
        let registry = registry(fixture);
        fixture.registered(1).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        let began = Instant::now();
        let login = "auth: {basic: {secretRef: {name: login}}}";
        name_registry(fixture, &fixture.world.mlflow.url(), login).await?;
        let said = says(&registry, began, Reason::SecretNotFound).await?;
        let wanted = format!(
            r#"spec.auth.basic.secretRef: the Secret "login" does not exist in the namespace "{}"; create it"#,
            fixture.namespace
        );
        ensure!(said == wanted, "{said}");
        let change = fixture.desired("version: '1'").await?;
        fixture.champion.reason(change, Reason::SecretNotFound, PATIENCE).await?;

        let secret = |keys: &str| {
            format!("{{apiVersion: v1, kind: Secret, metadata: {{name: login}}, stringData: {keys}}}")
        };
        fixture.apply(&secret("{username: laurel}")).await?;
        let said = says(&registry, began, Reason::SecretKeyInvalid).await?;
        ensure!(
            said.contains(r#"the Secret "login""#) && said.contains(r#"has no key "password""#),
            "{said}"
        );
        fixture.apply(&secret("{username: laurel, password: s3cr3t-of-this-test}")).await?;
        says(&registry, began, Reason::Connected).await?;
        fixture.champion.ready(change, PATIENCE).await?;
        let log = fixture.world.log_about("s3cr3t-of-this-test");
        ensure!(log.is_empty(), "the log carries the password: {log}");
        Ok(())
    });
}

#[test]
fn deleting_the_registeredmodel_of_a_serving_alias_deletes_nothing_else() {
    run("orphan", async |fixture| {
        fixture.registered(1).await?;
        let change = fixture.get("version: '1'").await?;
        let models = fixture.api::<RegisteredModel>();
        models.delete("model", &kube::api::DeleteParams::default()).await?;
        let since = Instant::now();
        let orphaned = |it: &laurel::api::ModelAlias| has(it, Reason::RegisteredModelNotFound);
        fixture.champion.until_since(since, "RegisteredModelNotFound", PATIENCE, orphaned).await?;
        ensure!(selected(fixture).await? == "1", "the Service went with it");
        fixture.describe_model("").await?;
        fixture
            .champion
            .until_since(since, "Ready again", PATIENCE, |it| is_ready(it, change.generation))
            .await
            .map(drop)
    });
}
