//! One kind of read fails for a while.

use anyhow::{Result, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{Api, ResourceExt, api::DeleteParams, runtime::watcher};
use laurel::api::{
    ModelRegistry,
    condition::{ConditionType, Reason},
};
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, RECOVERY, calm, expired, forbidden, play_all, scene};
use crate::{
    scene::{Scene, play},
    simulated::look::selected,
    support::{
        alias::{holds, message},
        watch::Watch,
    },
    wire::{Exchange, Rule, Violation},
};

fn failing() -> Violation {
    Violation::kubernetes(500, "InternalError", "etcdserver: request timed out")
}

#[test]
fn an_object_that_cannot_be_looked_at_is_not_written_and_that_is_told() {
    play("r-get", async |scene| {
        scene.registered(2).await?;
        scene.get("version: '1'").await?;
        let placed = scene.kubernetes.place(Rule::on(Method::GET, "/deployments/champion-v2", failing()));
        let began = Instant::now();
        let change = scene.desired("version: '2'").await?;
        let seen = scene.champion.reason(change, Reason::ApplyFailed, PATIENCE).await?.object;
        ensure!(message(&seen).contains("read the Deployment \"champion-v2\""), "{}", message(&seen));
        ensure!(holds(&seen, ConditionType::Serving), "what serves goes on");
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        calm(scene, began, |_| true)?;
        scene.kubernetes.lift(&placed);
        scene.champion.ready(change, RECOVERY).await?;
        scene.until_quiet().await
    });
}

/// Watches end, and the lists that begin them anew fail for a while; meanwhile the Service is deleted by hand.
async fn lists_fail(scene: &Scene, violation: Violation) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    let ended = scene.kubernetes.place(Rule::when(Exchange::is_watch, expired()));
    let is_list = |exchange: &Exchange| exchange.method == Method::GET && exchange.path.contains("limit=");
    let lists = scene.kubernetes.place(Rule::when(is_list, violation));
    scene.kubernetes.drop_streams();
    let began = Instant::now();
    lists.until_struck(8, PATIENCE).await?;
    let deleted = Instant::now();
    scene.api::<Service>().delete("champion", &DeleteParams::default()).await?;
    sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
    // Eight watches.
    for kind in [
        "/deployments?",
        "/services?",
        "/endpointslices?",
        "/poddisruptionbudgets?",
        "/pods?",
        "/modelaliases?",
        "/registeredmodels?",
    ] {
        calm(scene, began, |exchange| exchange.path.contains(kind))?;
    }
    scene.kubernetes.lift(&ended);
    scene.kubernetes.lift(&lists);
    let over = Instant::now();
    scene.audit.service_since(deleted, "the Service again", |_| true).await?;
    println!("  the Service was back {:?} after the fault", over.elapsed());
    scene.get("version: '2'").await?;
    ensure!(selected(scene).await? == "2", "traffic did not move");
    scene.until_quiet().await
}

#[test]
fn promise_7_watches_whose_lists_fail_are_begun_again_without_haste_and_what_was_missed_is_caught_up_with() {
    let busy = Violation::kubernetes(429, "TooManyRequests", "too many requests, please try again later");
    let violations = [
        ("429", busy.header("retry-after", "1")),
        ("500", failing()),
        ("503", Violation::kubernetes(503, "ServiceUnavailable", "the API server is overloaded")),
    ];
    let scenes = violations.map(|(code, violation)| {
        scene(format!("r-list-{code}"), async move |scene| lists_fail(scene, violation).await)
    });
    play_all(scenes);
}

/// A ModelRegistry whose Secret cannot be read says so under a reason.
async fn secret_fails(scene: &Scene, violation: Violation, reason: Reason, said: &str) -> Result<()> {
    scene.operator.start().await?;
    let url = scene.registry.url();
    let placed = scene.kubernetes.place(Rule::on(Method::GET, "/secrets/login", violation));
    let registries: Api<ModelRegistry> = scene.api();
    let watch = Watch::start(registries, watcher::Config::default());
    scene
        .apply(&format!(
            "
apiVersion: v1
kind: Secret
metadata: {{name: login}}
stringData: {{username: us, password: s3cret}}
---
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec: {{mlflow: {{url: '{url}'}}, pollInterval: 5s, auth: {{basic: {{secretRef: {{name: login}}}}}}}}
"
        ))
        .await?;
    let ready = |registry: &ModelRegistry| {
        let conditions = registry.status.clone().unwrap_or_default().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "Ready")
    };
    let name: &str = reason.into();
    let is_it = |registry: &ModelRegistry| ready(registry).is_some_and(|ready| ready.reason == name);
    let seen = watch.until(name, PATIENCE, |seen| is_it(&seen.object)).await?.object;
    let reported = ready(&seen).map(|ready| ready.message).unwrap_or_default();
    ensure!(reported.contains(said) && reported.contains("spec.auth.basic.secretRef"), "{reported}");
    scene.kubernetes.lift(&placed);
    let connected = |registry: &ModelRegistry| ready(registry).is_some_and(|ready| ready.status == "True");
    watch.until("connected", PATIENCE, |seen| connected(&seen.object)).await?;
    let secret: Secret = scene.api().get("login").await?;
    ensure!(secret.name_any() == "login", "the Secret is untouched");
    let log = scene.operator.log(10_000);
    ensure!(!log.contains("s3cret"), "the password was logged");
    Ok(())
}

#[test]
fn promise_10_a_secret_that_may_not_or_cannot_be_read_is_told_with_the_field_that_names_it() {
    let violations = [
        (
            "403",
            forbidden("get", "secrets", "login"),
            Reason::ApplyForbidden,
            "cannot get resource \"secrets\"",
        ),
        ("500", failing(), Reason::ApplyFailed, "request timed out"),
    ];
    let scenes = violations.map(|(code, violation, reason, said)| {
        let story = async move |scene: &Scene| secret_fails(scene, violation, reason, said).await;
        scene(format!("r-secret-{code}"), story)
    });
    play_all(scenes);
}
