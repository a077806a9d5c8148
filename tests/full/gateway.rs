//! Behind a Gateway, under load: shares, copies, canaries, promotions and rollbacks.

use std::time::Duration;

use anyhow::{Result, ensure};
use laurel::api::ModelAlias;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::{
    fixture::{ALL_PODS, Fixture, PATIENCE, run},
    outside::{CLOSELY, Outside, ROUGHLY, in_effect, step},
    support::{
        alias,
        load::{Load, Plan, Request},
        pods::logged,
        service::{gateway_traffic, through_gateway},
    },
};

const PATH: &str = "/laurel-test-gateway";

/// Time limit from the accepted rollback to the last response of the other version.
const IMMEDIATELY: Duration = Duration::from_secs(2);

/// The canary's steps wait until the test has seen enough of each.
fn canary() -> Value {
    let steps = json!([
        { "mirror": 100, "atLeast": "1s", "approval": "Required" },
        { "weight": 10, "atLeast": "1s", "approval": "Required" },
        { "weight": 50, "atLeast": "1s", "approval": "Required" },
    ]);
    json!({ "strategy": "Canary", "steps": steps })
}

/// Behind a Gateway connections can be kept: it chooses a version for each request.
fn desired(version: &str, rollout: &Value) -> Value {
    json!({
        "version": version,
        "serving": { "keepAlive": "Enabled" },
        "traffic": gateway_traffic(PATH),
        "rollout": rollout,
    })
}

async fn approve(fixture: &Fixture, step: &str) -> Result<()> {
    let approval = format!("laurel.dev/approve={step}");
    fixture.kubectl(&["annotate", "modelalias", "champion", &approval, "--overwrite"], None).await.map(drop)
}

/// Sends requests that nobody else sends, and waits until the pods of a version have logged all of them.
async fn copies_arrive(fixture: &Fixture, version: &str) -> Result<()> {
    const TARGET: &str = "/ping?copied";
    let way = through_gateway(&fixture.cluster, PATH).await?;
    let load =
        Load::start(&way.target, &Request::get(TARGET), Plan::both(50, Duration::from_secs(5)).patient());
    load.until(Instant::now(), PATIENCE, |seen| seen.sent() >= 300).await;
    let report = load.stop().await;
    let deadline = Instant::now() + PATIENCE;
    let pods = (fixture.namespace.as_str(), "champion", version);
    loop {
        let copies = logged(&fixture.cluster, pods, &format!("\"GET {TARGET}")).await?.len();
        if copies == report.sent() {
            println!("  {copies} copies arrived of {report}");
            break;
        }
        ensure!(copies < report.sent() && Instant::now() < deadline, "{copies} copies of {report}");
    }
    ensure!(report.answered().keys().eq(["1"]), "a copy was answered to a client: {report}");
    ensure!(report.lost() == 0, "requests were lost: {report}");
    Ok(())
}

#[test]
fn promises_2_and_5_behind_a_gateway_shares_are_as_desired_and_nothing_is_lost() {
    run("gateway", ALL_PODS, async |fixture| {
        let blue_green = json!({ "strategy": "BlueGreen" });
        fixture.good_versions(2).await?;
        fixture.get(desired("1", &canary())).await?;
        let outside = Outside::begin(fixture, PATH).await?;
        let inside = fixture.clients().await?;

        let promoted = fixture.desired(desired("2", &canary())).await?;
        let has_copies = |malias: &ModelAlias| alias::gets_copies(malias, "2");
        let begun = in_effect(fixture, promoted.accepted, "copies for version 2", has_copies).await?;
        sleep_until(begun).await;
        copies_arrive(fixture, "2").await?;
        outside.stay_on(promoted.accepted, "1").await?;

        approve(fixture, "2/1").await?;
        let begun = step(fixture, promoted, "2", 10).await?;
        outside.share(begun, ("2", 10.0), CLOSELY).await?;
        inside.stay_on(begun, "1").await?;
        inside.leave().await?;

        approve(fixture, "2/2").await?;
        let half = step(fixture, promoted, "2", 50).await?;
        outside.share(half, ("2", 50.0), ROUGHLY).await?;

        let back = fixture.get(desired("1", &canary())).await?;
        let moved = outside.moved(back, "2", "1").await?;
        println!("  reverted at 50 %: last response of version 2 {moved:?} after it was accepted");
        ensure!(moved < IMMEDIATELY, "the revert took {moved:?}");

        let change = fixture.get(desired("2", &blue_green)).await?;
        outside.moved(change, "1", "2").await?;
        let before = Instant::now();
        let change = fixture.get(desired("1", &blue_green)).await?;
        let moved = outside.moved(change, "2", "1").await?;
        println!("  warm rollback: last response of version 2 {moved:?} after it was accepted");
        ensure!(moved < IMMEDIATELY, "the rollback took {moved:?}");
        ensure!(fixture.pods.started_since(before).is_empty(), "a warm rollback started a pod");
        outside.leave().await
    });
}
