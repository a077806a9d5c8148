//! The API server, or one of our kinds, is not there when the operator starts: it waits, says for what, and
//! goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, RECOVERY, calm, forbidden, play_all, scene};
use crate::{
    scene::{Scene, play_before_start},
    simulated::look::selected,
    wire::{Exchange, Rule, Violation},
};

/// Waits until `/readyz` says 503 and `said`.
async fn says(scene: &Scene, said: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let reported = scene.operator.readiness().await;
        if let Ok((503, reported)) = &reported
            && said.iter().all(|said| reported.contains(said))
        {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "/readyz says {reported:?}, and not {said:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Something is missing from the start. What was wished for meanwhile is done once it is there.
async fn missing(scene: &Scene, rule: Rule, said: &[&str]) -> Result<()> {
    scene.registered(1).await?;
    let placed = scene.kubernetes.place(rule);
    let began = Instant::now();
    scene.operator.launch()?;
    says(scene, said).await?;
    let change = scene.desired("version: '1'").await?;
    sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
    // It is still so, and not only now and then.
    for _ in 0..20 {
        let reported = scene.operator.readiness().await?;
        ensure!(
            reported.0 == 503 && said.iter().all(|said| reported.1.contains(said)),
            "/readyz says {reported:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
    let asked = calm(scene, began, |exchange| placed_on(exchange, said[0]))?;
    ensure!(scene.journal.count() == 0, "it wrote something:\n{}", scene.journal.told_since(began));
    scene.kubernetes.lift(&placed);
    let over = Instant::now();
    scene.champion.ready(change, RECOVERY).await?;
    println!("  without {}: {asked} requests, ready {:?} after it was there", said[0], over.elapsed());
    ensure!(scene.operator.is_ready().await, "/readyz does not say that it is ready");
    ensure!(selected(scene).await? == "1", "it does not serve");
    scene.until_named("champion", Some("1")).await?;
    scene.until_quiet().await
}

fn placed_on(exchange: &Exchange, what: &str) -> bool {
    exchange.path.contains(&format!("/{}?", what.to_lowercase()))
}

#[test]
fn an_operator_without_its_crds_waits_and_says_for_what() {
    let scenes = ["ModelAliases", "ModelRegistries"].map(|kind| {
        let absent =
            Violation::kubernetes(404, "NotFound", "the server could not find the requested resource");
        let rule = Rule::when(move |exchange| placed_on(exchange, kind), absent);
        let said = [kind, "could not find the requested resource"];
        scene(format!("s-{}", kind.to_lowercase()), async move |scene| missing(scene, rule, &said).await)
    });
    play_all(scenes);
}

#[test]
fn an_operator_that_may_not_read_the_cluster_waits_and_says_for_what() {
    let scenes = [("ModelAliases", "modelaliases.laurel.dev"), ("Pods", "pods")].map(|(kind, resource)| {
        let rule = Rule::when(move |exchange| placed_on(exchange, kind), forbidden("list", resource, ""));
        let said = [kind, "cannot list resource"];
        scene(format!("s-403-{}", kind.to_lowercase()), async move |scene| missing(scene, rule, &said).await)
    });
    play_all(scenes);
}

#[test]
fn an_operator_that_starts_before_its_api_server_is_ready_goes_on_when_it_is() {
    let overloaded = Violation::kubernetes(503, "ServiceUnavailable", "the API server is starting");
    let violations = [("503", overloaded, "is starting"), ("reset", Violation::Reset, "Connection reset")];
    let scenes = violations.map(|(code, violation, said)| {
        let said = ["ModelAliases", said];
        let story = async move |scene: &Scene| missing(scene, Rule::always(violation), &said).await;
        scene(format!("s-all-{code}"), story)
    });
    play_all(scenes);
}

#[test]
fn an_operator_that_starts_while_nobody_listens_goes_on_when_somebody_does() {
    play_before_start("s-refused", async |scene| {
        scene.registered(1).await?;
        let change = scene.desired("version: '1'").await?;
        scene.kubernetes.refuse();
        scene.operator.launch()?;
        says(scene, &["ModelAliases", "refused"]).await?;
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        says(scene, &["ModelAliases", "refused"]).await?;
        scene.kubernetes.accept().await?;
        scene.champion.ready(change, RECOVERY).await?;
        scene.until_quiet().await
    });
}
