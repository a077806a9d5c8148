//! How soon a moved alias is acted on: the alias is set in MLflow, and the version's Deployment is there.
//! With MLflow's webhooks, and beside it with a poll every 5 seconds.
//!
//! `make bench-push` runs it. It prints figures, and judges nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{ResourceExt, runtime::watcher};
use laurel::api::condition::Reason;
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Fixture, run_for},
    support::watch::Watch,
    webhook::{Pushed, serves},
};

const LONGEST: Duration = Duration::from_mins(30);
const PATIENCE: Duration = Duration::from_secs(90);

/// Moves the alias to one new version after the other, at moments spread over `spread`, and measures how long
/// each takes to get its Deployment.
async fn measure(fixture: &Fixture, count: usize, spread: Duration) -> Result<Vec<Duration>> {
    let deployments: Watch<Deployment> = Watch::start(fixture.api(), watcher::Config::default());
    let first = fixture.world.mlflow.register(&fixture.model).await?;
    fixture.world.mlflow.set_alias(&fixture.model, "champion", &first).await?;
    fixture.desired("{follow: {registry: {}}, rollout: {warmFor: 1s, revisionHistoryLimit: 0}}").await?;
    serves(fixture, Instant::now(), &first).await?;
    let mut took = Vec::new();
    for number in 0..count {
        let version = fixture.world.mlflow.register(&fixture.model).await?;
        // Not in step with polls or with what the move before has left to do.
        sleep(Duration::from_millis(300) + spread * u32::try_from(number % 37)? / 37).await;
        let moved = Instant::now();
        fixture.world.mlflow.set_alias(&fixture.model, "champion", &version).await?;
        let name = format!("champion-v{version}");
        let there = deployments.until(&name, PATIENCE, |seen| seen.object.name_any() == name).await?;
        took.push(there.at.duration_since(moved));
        serves(fixture, moved, &version).await?;
    }
    Ok(took)
}

fn tell(what: &str, mut took: Vec<Duration>) -> Result<()> {
    took.sort_unstable();
    let at = |share: f64| -> Result<f64> {
        // The smallest time within which that share of the moves was done.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few hundred"
        )]
        let index = (took.len() as f64 * share).ceil() as usize;
        Ok(took.get(index.max(1) - 1).context("no moves")?.as_secs_f64() * 1000.0)
    };
    println!(
        "{what}: {} moves, p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        took.len(),
        at(0.5)?,
        at(0.99)?,
        at(1.0)?
    );
    Ok(())
}

fn moves(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|moves| moves.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "a benchmark: make bench-push"]
fn time_from_an_alias_set_in_mlflow_to_the_deployment() {
    run_for(LONGEST, "bench-push", async |fixture| {
        let pushed = Pushed::create(fixture, true).await?;
        pushed.says("True", Reason::WebhookReceiving).await?;
        tell(
            "push, polls 10 minutes apart",
            measure(fixture, moves("PUSH_MOVES", 200), Duration::from_secs(1)).await?,
        )
    });
    run_for(LONGEST, "bench-poll", async |fixture| {
        fixture.registered(0).await?;
        tell("polls 5 s apart", measure(fixture, moves("POLL_MOVES", 20), Duration::from_secs(5)).await?)
    });
}
