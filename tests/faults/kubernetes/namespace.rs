//! A namespace goes with everything in it, whatever is away at that moment.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use tokio::time::Instant;

use super::{calm, play_all, scene};
use crate::{
    scene::Scene,
    wire::{Exchange, Rule, Violation},
};

/// The registry's deadline, and as long as the cluster may take for the rest on a busy machine: it looks
/// again and again, with longer and longer pauses.
const DEADLINE: Duration = Duration::from_secs(110);

/// Asks for the end of the namespace. What the cluster then takes away in it is not the operator's doing,
/// which deletes no Deployment.
async fn delete(scene: &Scene) -> Result<Namespace> {
    let namespaces: Api<Namespace> = Api::all(scene.cluster.client.clone());
    let deleted = namespaces.delete(&scene.namespace, &DeleteParams::default()).await?;
    let namespace = deleted.left().context("the namespace has finalizers")?;
    scene.witness.excuse_the_end(&namespace);
    Ok(namespace)
}

/// Deletes the namespace, and waits until it is gone.
async fn ends(scene: &Scene, deadline: Duration) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(scene.cluster.client.clone());
    let began = Instant::now();
    let namespace = delete(scene).await?;
    scene.gone(&namespaces, &namespace, deadline).await?;
    println!("  gone after {:?}", began.elapsed());
    let deletes = |write: &Exchange| write.method == Method::DELETE && write.path.contains("/deployments/");
    ensure!(!scene.journal.writes().iter().any(deletes), "the operator deleted a Deployment");
    calm(scene, began, |exchange| !exchange.is_watch()).map(drop)
}

async fn serving(scene: &Scene, model: &str) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.describe_model(model).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await
}

#[test]
fn promise_9_a_namespace_ends_whatever_is_away() {
    play_all([
        scene("n-registry", async |scene| {
            serving(scene, "deletionPolicy: Delete").await?;
            scene.registry.refuse();
            ends(scene, DEADLINE).await?;
            ensure!(scene.named("champion").await?.as_deref() == Some("1"), "who removed the alias?");
            Ok(())
        }),
        scene("n-hangs", async |scene| {
            serving(scene, "").await?;
            scene.registry.place(Rule::always(Violation::Hang));
            ends(scene, DEADLINE).await
        }),
        scene("n-finalizer", async |scene| {
            serving(scene, "").await?;
            let violation = Violation::kubernetes(500, "InternalError", "etcdserver: leader changed");
            scene.kubernetes.place(Rule::on(Method::PATCH, "/modelaliases/champion?", violation).times(3));
            ends(scene, DEADLINE).await
        }),
        scene("n-promotion", async |scene| {
            serving(scene, "").await?;
            let slow = "{version: '2', serving: {template: {metadata: {annotations: \
                 {kwok.laurel.test/ready-after: 3s}}}}}";
            scene.desired(slow).await?;
            ends(scene, DEADLINE).await
        }),
        scene("n-streams", async |scene| {
            serving(scene, "").await?;
            scene.kubernetes.refuse();
            let namespaces: Api<Namespace> = Api::all(scene.cluster.client.clone());
            let namespace = delete(scene).await?;
            tokio::time::sleep(Duration::from_secs(3)).await; // Time itself is the subject: it is not seen.
            scene.kubernetes.accept().await?;
            scene.gone(&namespaces, &namespace, DEADLINE).await
        }),
    ]);
}
