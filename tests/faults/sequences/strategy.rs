//! The strategy changes while a version serves, and in the middle of a rollout.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use laurel::render::labels;
use tokio::time::{Instant, sleep};

use super::{bounded, pods_of, reached, rest};
use crate::{
    fixture::Fixture,
    kubernetes::{case, run_all},
    simulated::look::until_sizes,
};

const REPLICAS: usize = 3;

fn desired(version: &str, strategy: &str) -> String {
    format!(
        "
version: '{version}'
rollout: {{strategy: {strategy}}}
serving:
  replicas: {REPLICAS}
  template: {{metadata: {{annotations: {{kwok.laurel.test/ready-after: 700ms}}}}}}
"
    )
}

/// While version 2 serves: nothing restarts, and the version before is warm where there is room for it by the
/// strategy.
async fn while_serving(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    for version in ["1", "2"] {
        let change = fixture.desired(&desired(version, "BlueGreen")).await?;
        reached(fixture, change, version).await?;
    }
    let pods = pods_of(fixture, "2").await?;
    let began = Instant::now();
    let change = fixture.desired(&desired("2", "Rolling")).await?;
    reached(fixture, change, "2").await?;
    until_sizes(fixture, [("1", 0), ("2", 3)]).await?;
    let change = fixture.desired(&desired("2", "BlueGreen")).await?;
    reached(fixture, change, "2").await?;
    rest(fixture).await?;
    until_sizes(fixture, [("1", 0), ("2", 3)]).await?;
    ensure!(pods_of(fixture, "2").await? == pods, "pods were started anew");
    ensure!(fixture.pods.started_since(began).is_empty(), "pods were started");
    Ok(())
}

/// Waits until both versions answer: a rolling exchange is in its middle.
async fn shared(fixture: &Fixture, since: Instant) -> Result<()> {
    let shared = |service: &Service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| !selector.contains_key(labels::VERSION))
    };
    fixture.audit.service_since(since, "both versions answer", shared).await.map(drop)
}

/// When the wish changes.
#[derive(Clone, Copy)]
enum Moment {
    /// So many milliseconds after the rollout was wished for.
    After(u64),
    /// When both versions answer.
    Shared,
}

/// Version 2 is being rolled out by one strategy; then the other one is wished for, and with it version 2 or
/// version 1.
async fn in_mid_rollout(
    fixture: &Fixture,
    from: &str,
    to: &str,
    moment: Moment,
    version: &str,
) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    let change = fixture.desired(&desired("1", from)).await?;
    reached(fixture, change, "1").await?;
    let began = Instant::now();
    fixture.desired(&desired("2", from)).await?;
    match moment {
        // Time itself is the subject.
        Moment::After(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
        Moment::Shared => shared(fixture, began).await?,
    }
    let change = fixture.desired(&desired(version, to)).await?;
    reached(fixture, change, version).await?;
    rest(fixture).await?;
    bounded(fixture, began, REPLICAS, 2 * REPLICAS)?;
    let deployments = crate::simulated::look::sizes(fixture).await?;
    ensure!(deployments[version] == 3, "{deployments:?}");
    let other = if version == "1" { "2" } else { "1" };
    let size = deployments.get(other).copied().unwrap_or_default();
    // A warm version keeps the size that it had when traffic left it, in mid-rollout less than all of its
    // pods.
    ensure!(size == 0 || to == "BlueGreen" && size <= 3, "{deployments:?}");
    Ok(())
}

#[test]
fn a_strategy_changed_at_rest_or_during_a_rollout_stays_within_its_bounds() {
    let mut cases = vec![case("g-serving", async |fixture| while_serving(fixture).await)];
    let (blue_green, rolling) = ("BlueGreen", "Rolling");
    let rollouts = [
        ("early-2", blue_green, rolling, Moment::After(50), "2"),
        ("early-1", rolling, blue_green, Moment::After(50), "1"),
        ("late-2", blue_green, rolling, Moment::After(600), "2"),
        ("late-1", blue_green, rolling, Moment::After(600), "1"),
        ("shared-2", rolling, blue_green, Moment::Shared, "2"),
        ("shared-1", rolling, blue_green, Moment::Shared, "1"),
        ("rolling-1", rolling, rolling, Moment::Shared, "1"),
    ];
    for (name, from, to, moment, version) in rollouts {
        cases.push(case(format!("g-{name}"), async move |fixture| {
            in_mid_rollout(fixture, from, to, moment, version).await
        }));
    }
    run_all(cases);
}
