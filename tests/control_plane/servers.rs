//! Promotions with releases of MLflow other than the newest, and with other setups of it.
//!
//! The suite runs the oldest supported releases. `make test-servers` runs the others too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::runtime::watcher;
use laurel::api::{
    ModelAlias, ModelRegistry,
    condition::Reason,
    model_alias::{Cause, Outcome},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    harness::{PURPOSE, World},
    simulated::{
        look::selected,
        machine::RUNTIME,
        mlflow::{ADMIN, Mlflow},
        place::{PATIENCE, Place, reported},
    },
    support::{
        alias::{is_ready, status, version},
        watch::Watch,
    },
};

/// Time limit of one test, without installing and cleaning up.
const LONGEST: Duration = Duration::from_mins(6);

/// How a server differs for Laurel.
struct Differs {
    /// Whether it has webhooks.
    webhooks: bool,
    /// Whether it reports its version where its API is.
    version: Option<&'static str>,
}

const WITHOUT_WEBHOOKS: bool = false;
const WITH_WEBHOOKS: bool = true;

#[test]
fn follow_and_rollback_with_mlflow_2_9() {
    promotes("2.9", WITHOUT_WEBHOOKS, Some("2.9.2"));
}

#[test]
fn follow_and_rollback_with_mlflow_2_22() {
    promotes("2.22", WITHOUT_WEBHOOKS, Some("2.22.1"));
}

#[test]
#[ignore = "make test-servers runs it"]
fn follow_and_rollback_with_mlflow_3_1() {
    promotes("3.1", WITHOUT_WEBHOOKS, Some("3.1.4"));
}

#[test]
#[ignore = "make test-servers runs it"]
fn follow_and_rollback_with_mlflow_3_8_and_a_static_prefix() {
    promotes("3.8", WITH_WEBHOOKS, None);
}

#[test]
#[ignore = "make test-servers runs it"]
fn follow_and_rollback_with_postgresql_and_four_workers() {
    promotes("newest-postgresql", WITH_WEBHOOKS, Some("3.17.2"));
}

#[test]
#[ignore = "make test-servers runs it"]
fn follow_and_rollback_with_a_login_and_a_workspace() {
    promotes("newest-auth", WITH_WEBHOOKS, Some("3.17.2"));
}

/// Promotes with this server, and stops it.
fn promotes(server: &str, webhooks: bool, version: Option<&'static str>) {
    RUNTIME.block_on(async {
        let world = World::get().await.unwrap_or_else(|error| panic!("{error:#}"));
        let differs = Differs { webhooks, version };
        if let Err(error) = with_server(world, server, &differs).await {
            panic!("{error:#}");
        }
    });
}

async fn with_server(world: &'static World, server: &str, differs: &Differs) -> Result<()> {
    let name = format!("mlflow-{}", server.replace('.', "-"));
    let began = Instant::now();
    // A place outlives its test.
    let mlflow: &'static Mlflow =
        Box::leak(Box::new(Mlflow::start_server(server, &world.folder(&name)?).await?));
    println!("{name} answers after {:.1} s", began.elapsed().as_secs_f64());
    let namespace = format!("cp-{name}-{}", std::process::id());
    let place = Place::create(&world.cluster, mlflow, namespace, PURPOSE).await?;
    let began = Instant::now();
    let mut result = reported(story(&place, differs), LONGEST).await;
    if result.is_ok() {
        result = place.audit.verdict().await.map(drop);
    }
    println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
    if result.is_err() {
        place.show().await;
        println!("--- the operator\n{}", world.log_about(&place.namespace));
    }
    let cleaned = place.clean_up().await;
    let stopped = mlflow.stop().await;
    result.and(cleaned).and(stopped)
}

async fn story(place: &Place, differs: &Differs) -> Result<()> {
    create_registry(place).await?;
    place.registered(1).await?;
    place.describe_model("tags: {team: risk}").await?;
    follows_each_way(place).await?;

    // Back to the version before, which is still warm.
    let change = place.desired("version: '2'").await?;
    place.champion.ready(change, PATIENCE).await?;
    serves(place, change.accepted, "2").await?;
    let entry = place.champion.last().map(|it| status(&it).history).unwrap_or_default().into_iter().next();
    let entry = entry.context("no history")?;
    ensure!(entry.cause == Cause::Spec && entry.outcome == Outcome::RolledBack, "{entry:?}");

    ensure!(place.mlflow.tags(&place.model).await?["team"] == "risk", "the tag is not set");
    audit_log_is_written(place).await?;
    reports_what_the_server_has(place, differs).await
}

/// Latest, best, semver, and the alias in the registry.
async fn follows_each_way(place: &Place) -> Result<()> {
    let began = Instant::now();
    place.desired("follow: {latest: {}}").await?;
    serves(place, began, "1").await?;
    let began = Instant::now();
    place.mlflow.register_run(&place.model, &[("auc", 0.9)]).await?;
    serves(place, began, "2").await?;

    place.desired("follow: {best: {metric: auc}}").await?;
    for values in [&[("auc", f64::NAN)][..], &[("auc", 0.8)]] {
        place.mlflow.register_run(&place.model, values).await?;
    }
    let began = Instant::now();
    place.mlflow.register_run(&place.model, &[("auc", 0.95)]).await?;
    serves(place, began, "5").await?;

    place.mlflow.set_version_tag((&place.model, "3"), "semver", "2.1.0").await?;
    place.mlflow.set_version_tag((&place.model, "4"), "semver", "3.0.0").await?;
    let began = Instant::now();
    place.desired("follow: {semver: {tag: semver, range: '>=2.1 <3'}}").await?;
    serves(place, began, "3").await?;

    place.desired("follow: {registry: {}}").await?;
    let began = Instant::now();
    place.mlflow.set_alias(&place.model, "champion", "4").await?;
    serves(place, began, "4").await
}

/// Waits until a version serves and the alias names it, in a state seen since a given time.
async fn serves(place: &Place, since: Instant, wanted: &str) -> Result<()> {
    let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == wanted;
    place.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(place).await? == wanted, "the Service is not on version {wanted}");
    place.until_named("champion", Some(wanted)).await
}

async fn audit_log_is_written(place: &Place) -> Result<()> {
    let began = Instant::now();
    loop {
        let tags = place.mlflow.tags_of_versions(&place.model).await?;
        let logged =
            tags.values().filter(|tags| tags.keys().any(|key| key.starts_with("laurel.log."))).count();
        if logged == 5 {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "each version served, but {logged} have a log: {tags:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The default registry of the namespace, with all that the server requires.
async fn create_registry(place: &Place) -> Result<()> {
    let secret = |name: &str, data: Value| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
    let access = &place.mlflow.access;
    let mut spec = json!({ "mlflow": { "url": place.mlflow.url() }, "pollInterval": "5s" });
    if let Some(password) = &access.password {
        let login = secret("login", json!({ "username": ADMIN, "password": password }));
        place.apply(&login.to_string()).await?;
        spec["auth"] = json!({ "basic": { "secretRef": { "name": "login" } } });
    }
    if let Some(workspace) = &access.workspace {
        spec["mlflow"]["workspace"] = json!(workspace);
    }
    place.apply(&secret("webhook", json!({ "secret": "wonderland" })).to_string()).await?;
    spec["webhook"] = json!({
        "secretRef": { "name": "webhook" },
        // Nobody answers there: whether the server can deliver is a test of its own.
        "register": { "url": "http://127.0.0.1:9", "encryptionKeySet": true },
    });
    let registry = json!({
        "apiVersion": "laurel.dev/v1alpha1",
        "kind": "ModelRegistry",
        "metadata": { "name": "default", "annotations": { "laurel.dev/default": "true" } },
        "spec": spec,
    });
    place.apply(&registry.to_string()).await
}

/// The status names the server's version, and why it has no webhooks if it has none.
async fn reports_what_the_server_has(place: &Place, differs: &Differs) -> Result<()> {
    let registries: Watch<ModelRegistry> = Watch::start(place.api(), watcher::Config::default());
    let (reason, words) = if differs.webhooks {
        (Reason::WebhookUndeliverable, "check that its server can reach that address")
    } else {
        (Reason::RegistryUnsupported, "they need MLflow 3.3 or newer")
    };
    let reason: &str = reason.into();
    let is_so = |registry: &ModelRegistry| {
        let status = registry.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.iter();
        let webhook = conditions.find(|condition| condition.type_ == "WebhookReady");
        webhook.is_some_and(|it| it.status == "False" && it.reason == reason && it.message.contains(words))
    };
    let seen = registries.until(reason, PATIENCE, |seen| is_so(&seen.object)).await?;
    let version = seen.object.status.unwrap_or_default().server_version;
    ensure!(version.as_deref() == differs.version, "{version:?}");
    Ok(())
}
