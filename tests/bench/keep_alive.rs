//! What `serving.keepAlive: Disabled` costs: predictions of the same model, with connections closed after
//! each answer and with connections kept, in turns, so that a busy machine affects both equally.
//!
//! `make bench-keep-alive` runs it. It needs the cluster of `make demo`, prints figures and ratios, and asserts nothing.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_types, reason = "effects: runs against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "effects: a turn lasts as long as it lasts")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use the rest")]
mod support;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use support::{
    alias::Alias,
    cluster::Cluster,
    load::{Load, Plan, Report, Request},
    mlflow::Mlflow,
    service::{Way, way_to},
};

const NAMESPACE: &str = "laurel-bench";
const MODEL: &str = "fraud-xgboost";
const PATIENCE: Duration = Duration::from_mins(2);
const TURNS: usize = 6;
const TURN: Duration = Duration::from_secs(10);
const PER_SECOND: u32 = 50;

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = Cluster::connect().await?;
    cluster.require_laurel().await?;
    let mlflow = Mlflow::connect(&cluster).await?;
    cluster.fresh_namespace(NAMESPACE, "bench").await?;
    let example = mlflow.artifact((MODEL, "1"), "serving_input_example.json").await?;
    let request = Request::post_json("/invocations", example);

    let closed = serve(&cluster, "closed", "Disabled").await?;
    let kept = serve(&cluster, "kept", "Enabled").await?;
    println!(
        "{PER_SECOND} predictions a second over one kept connection where the server allows it, {TURNS} \
         turns each"
    );
    let (mut closed_turns, mut kept_turns) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        closed_turns.push(turn(&closed, &request).await?);
        kept_turns.push(turn(&kept, &request).await?);
    }
    for share in [0.5, 0.99] {
        let closed = median(&closed_turns, share)?;
        let kept = median(&kept_turns, share)?;
        println!(
            "p{:.0}: keepAlive Disabled {:.1} ms, Enabled {:.1} ms, ratio {:.2}",
            share * 100.0,
            closed * 1000.0,
            kept * 1000.0,
            closed / kept
        );
    }
    cluster.delete_namespace(NAMESPACE).await
}

async fn serve(cluster: &Cluster, name: &str, keep_alive: &str) -> Result<Way> {
    let manifest = format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: RegisteredModel
metadata: {{name: fraud, namespace: {NAMESPACE}}}
spec: {{modelName: {MODEL}}}
---
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  modelRef: {{name: fraud}}
  alias: bench-{name}
  version: '1'
  serving: {{image: '{image}', keepAlive: {keep_alive}}}
",
        image = std::env::var("LAUREL_SERVING_IMAGE")
            .unwrap_or_else(|_| "localhost/laurel/serving:3.17.2".to_owned()),
    );
    let alias = Alias::observe(cluster, NAMESPACE, name);
    let change = alias.apply(&manifest).await?;
    alias.ready(change, PATIENCE).await?;
    way_to(cluster, NAMESPACE, name).await
}

async fn turn(way: &Way, request: &Request) -> Result<Report> {
    let plan = Plan {
        fresh_per_second: 0,
        keep_alive_per_second: PER_SECOND,
        timeout: Duration::from_secs(10),
        max_in_flight: 1000,
        at_most: TURN,
    };
    let load = Load::start(&way.target, request, plan);
    tokio::time::sleep(TURN).await;
    let report = load.stop().await;
    ensure!(report.lost() == 0, "requests were lost: {report}");
    Ok(report)
}

/// The median over the turns of the latency within which `share` of a turn's requests were answered, in
/// seconds.
fn median(turns: &[Report], share: f64) -> Result<f64> {
    let latencies: Option<Vec<Duration>> = turns.iter().map(|turn| turn.latency(share)).collect();
    let latencies = latencies.context("a turn without answers")?;
    Ok(support::load::quantile(latencies, 0.5).context("no turns")?.as_secs_f64())
}
