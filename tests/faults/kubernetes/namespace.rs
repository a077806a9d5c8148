//! A namespace goes with everything in it, whatever is away at that moment.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use tokio::time::Instant;

use super::{calm, case, run_all};
use crate::{
    fixture::Fixture,
    wire::{Exchange, Rule, Violation},
};

/// The registry's deadline, and as long as the cluster may take for the rest on a busy machine: it looks
/// again and again, with longer and longer pauses.
const DEADLINE: Duration = Duration::from_secs(110);

/// Asks for the end of the namespace. What the cluster then takes away in it is not the operator's doing,
/// which deletes no Deployment.
async fn delete(fixture: &Fixture) -> Result<Namespace> {
    let namespaces: Api<Namespace> = Api::all(fixture.cluster.client.clone());
    let deleted = namespaces.delete(&fixture.namespace, &DeleteParams::default()).await?;
    let namespace = deleted.left().context("the namespace has finalizers")?;
    fixture.invariants.excuse_the_end(&namespace);
    Ok(namespace)
}

/// Deletes the namespace, and waits until it is gone.
async fn ends(fixture: &Fixture, deadline: Duration) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(fixture.cluster.client.clone());
    let began = Instant::now();
    let namespace = delete(fixture).await?;
    fixture.gone(&namespaces, &namespace, deadline).await?;
    println!("  gone after {:?}", began.elapsed());
    let deletes = |write: &Exchange| write.method == Method::DELETE && write.path.contains("/deployments/");
    ensure!(!fixture.journal.writes().iter().any(deletes), "the operator deleted a Deployment");
    calm(fixture, began, |exchange| !exchange.is_watch()).map(drop)
}

async fn serving(fixture: &Fixture, model: &str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.describe_model(model).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await
}

#[test]
fn promise_9_a_namespace_terminates_whatever_is_unreachable() {
    run_all([
        case("n-registry", async |fixture| {
            serving(fixture, "deletionPolicy: Delete").await?;
            fixture.registry.refuse();
            ends(fixture, DEADLINE).await?;
            ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "who removed the alias?");
            Ok(())
        }),
        case("n-hangs", async |fixture| {
            serving(fixture, "").await?;
            fixture.registry.place(Rule::always(Violation::Hang));
            ends(fixture, DEADLINE).await
        }),
        case("n-finalizer", async |fixture| {
            serving(fixture, "").await?;
            let violation = Violation::kubernetes(500, "InternalError", "etcdserver: leader changed");
            fixture.kubernetes.place(Rule::on(Method::PATCH, "/modelaliases/champion?", violation).times(3));
            ends(fixture, DEADLINE).await
        }),
        case("n-promotion", async |fixture| {
            serving(fixture, "").await?;
            let slow = "{version: '2', serving: {template: {metadata: {annotations: \
                 {kwok.laurel.test/ready-after: 3s}}}}}";
            fixture.desired(slow).await?;
            ends(fixture, DEADLINE).await
        }),
        case("n-streams", async |fixture| {
            serving(fixture, "").await?;
            fixture.kubernetes.refuse();
            let namespaces: Api<Namespace> = Api::all(fixture.cluster.client.clone());
            let namespace = delete(fixture).await?;
            tokio::time::sleep(Duration::from_secs(3)).await; // Time itself is the subject: it is not seen.
            fixture.kubernetes.accept().await?;
            fixture.gone(&namespaces, &namespace, DEADLINE).await
        }),
    ]);
}
