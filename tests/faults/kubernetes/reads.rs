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

use super::{LASTING, PATIENCE, RECOVERY, calm, case, expired, forbidden, run_all};
use crate::{
    fixture::Fixture,
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

/// Something has the name of a Deployment, and Laurel cannot see whose it is.
async fn get_fails(fixture: &Fixture, violation: Violation, reason: Reason) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    let theirs = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: champion-v2}
spec:
  replicas: 0
  selector: {matchLabels: {app: theirs}}
  template:
    metadata: {labels: {app: theirs}}
    spec: {containers: [{name: theirs, image: 'registry.example/theirs:1'}]}
";
    fixture.apply(theirs).await?;
    let placed = fixture.kubernetes.place(Rule::on(Method::GET, "/deployments/champion-v2", violation));
    let began = Instant::now();
    let change = fixture.desired("version: '2'").await?;
    let seen = fixture.champion.reason(change, reason, PATIENCE).await?.object;
    ensure!(message(&seen).contains("read the Deployment \"champion-v2\""), "{}", message(&seen));
    ensure!(holds(&seen, ConditionType::Serving), "the serving version stopped serving");
    sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
    calm(fixture, began, |_| true)?;
    fixture.kubernetes.lift(&placed);
    fixture.champion.reason(change, Reason::NameTaken, RECOVERY).await?;
    fixture.kubectl(&["delete", "deployment", "champion-v2"]).await?;
    fixture.champion.ready(change, RECOVERY).await?;
    fixture.until_quiet().await
}

#[test]
fn an_object_that_cannot_be_read_is_not_written_and_reported() {
    let denied = forbidden("get", "deployments.apps", "champion-v2");
    let violations = [("500", failing(), Reason::ApplyFailed), ("403", denied, Reason::ApplyForbidden)];
    let cases = violations.map(|(code, violation, reason)| {
        case(format!("r-get-{code}"), async move |fixture| get_fails(fixture, violation, reason).await)
    });
    run_all(cases);
}

/// Watches end, and the lists to restart them fail for a while; meanwhile the Service is deleted by hand.
async fn lists_fail(fixture: &Fixture, violation: Violation) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let ended = fixture.kubernetes.place(Rule::when(Exchange::is_watch, expired()));
    let is_list = |exchange: &Exchange| exchange.method == Method::GET && exchange.path.contains("limit=");
    let lists = fixture.kubernetes.place(Rule::when(is_list, violation));
    fixture.kubernetes.drop_streams();
    let began = Instant::now();
    lists.until_struck(8, PATIENCE).await?;
    let deleted = Instant::now();
    fixture.api::<Service>().delete("champion", &DeleteParams::default()).await?;
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
        calm(fixture, began, |exchange| exchange.path.contains(kind))?;
    }
    fixture.kubernetes.lift(&ended);
    fixture.kubernetes.lift(&lists);
    let over = Instant::now();
    fixture.audit.service_since(deleted, "the Service again", |_| true).await?;
    println!("  the Service was restored {:?} after the fault", over.elapsed());
    fixture.get("version: '2'").await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_quiet().await
}

#[test]
fn promise_7_watches_whose_lists_fail_are_restarted_with_backoff_and_catch_up() {
    let busy = Violation::kubernetes(429, "TooManyRequests", "too many requests, please try again later");
    let violations = [
        ("429", busy.header("retry-after", "1")),
        ("500", failing()),
        ("503", Violation::kubernetes(503, "ServiceUnavailable", "the API server is overloaded")),
    ];
    let cases = violations.map(|(code, violation)| {
        case(format!("r-list-{code}"), async move |fixture| lists_fail(fixture, violation).await)
    });
    run_all(cases);
}

/// A ModelRegistry whose Secret cannot be read reports it.
async fn secret_fails(fixture: &Fixture, violation: Violation, reason: Reason, text: &str) -> Result<()> {
    fixture.operator.start().await?;
    let url = fixture.registry.url();
    let placed = fixture.kubernetes.place(Rule::on(Method::GET, "/secrets/login", violation));
    let registries: Api<ModelRegistry> = fixture.api();
    let watch = Watch::start(registries, watcher::Config::default());
    fixture
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
    ensure!(reported.contains(text) && reported.contains("spec.auth.basic.secretRef"), "{reported}");
    fixture.kubernetes.lift(&placed);
    let connected = |registry: &ModelRegistry| ready(registry).is_some_and(|ready| ready.status == "True");
    watch.until("connected", PATIENCE, |seen| connected(&seen.object)).await?;
    let secret: Secret = fixture.api().get("login").await?;
    ensure!(secret.name_any() == "login", "the Secret is untouched");
    let log = fixture.operator.log(10_000);
    ensure!(!log.contains("s3cret"), "the password was logged");
    Ok(())
}

#[test]
fn promise_10_an_unreadable_secret_is_reported_with_the_field_that_names_it() {
    let violations = [
        (
            "403",
            forbidden("get", "secrets", "login"),
            Reason::ApplyForbidden,
            "cannot get resource \"secrets\"",
        ),
        ("500", failing(), Reason::ApplyFailed, "request timed out"),
    ];
    let cases = violations.map(|(code, violation, reason, text)| {
        let story = async move |fixture: &Fixture| secret_fails(fixture, violation, reason, text).await;
        case(format!("r-secret-{code}"), story)
    });
    run_all(cases);
}
