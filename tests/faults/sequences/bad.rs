//! Bad versions in a row: traffic stays on the one that works, and its Service is never empty.

use anyhow::{Context, Result, ensure};
use laurel::api::{condition::Reason, model_alias::Outcome};
use tokio::time::Instant;

use super::{pods_of, reached, rest};
use crate::{
    kubernetes::{PATIENCE, play_all, scene},
    scene::Scene,
    simulated::look::{no_more_pods, selected, sizes},
    support::alias::status,
};

fn desired(version: &str, fate: Option<&str>, strategy: &str) -> String {
    // The last of them is to be rejected soon; a good one has time, also on a busy machine.
    let deadline = if fate == Some(LATE) { "5s" } else { "60s" };
    let annotation = fate
        .map_or_else(|| "example.org/fate: good".to_owned(), |fate| format!("kwok.laurel.test/fate: {fate}"));
    format!(
        "
version: '{version}'
rollout: {{strategy: {strategy}, progressDeadline: {deadline}}}
serving: {{template: {{metadata: {{annotations: {{{annotation}}}}}}}}}
"
    )
}

const GOOD: Option<&str> = None;

/// The fate of a version that is given up soon.
const LATE: &str = "never-ready";

/// The version is wished for, and rejected.
async fn rejected(scene: &Scene, version: &str, strategy: &str) -> Result<()> {
    let change = scene.desired(&desired(version, Some(LATE), strategy)).await?;
    scene.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
    ensure!(selected(scene).await? == "1", "traffic moved");
    Ok(())
}

/// Nothing but version 1 runs, answers and is named.
async fn only_version_1(scene: &Scene) -> Result<()> {
    let sizes = sizes(scene).await?;
    let runs = |(version, size): (&String, &i32)| (version == "1") == (*size > 0);
    ensure!(sizes["1"] == 2 && sizes.iter().all(runs), "{sizes:?}");
    ensure!(selected(scene).await? == "1", "traffic moved");
    ensure!(scene.named("champion").await?.as_deref() == Some("1"), "the alias moved");
    Ok(())
}

async fn in_a_row(scene: &Scene, strategy: &str) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(4).await?;
    scene.get(&format!("{{version: '1', rollout: {{strategy: {strategy}}}}}")).await?;
    scene.until_named("champion", Some("1")).await?;
    let (began, pods) = (Instant::now(), pods_of(scene, "1").await?);
    rejected(scene, "2", strategy).await?;
    scene.operator.restart().await?;
    rejected(scene, "3", strategy).await?;
    rest(scene).await?;
    only_version_1(scene).await?;
    if strategy == "BlueGreen" {
        ensure!(pods_of(scene, "1").await? == pods, "pods of version 1 were started anew");
    }
    let last = status(&scene.champion.last().context("the ModelAlias is gone")?);
    let reported: Vec<_> =
        last.history.iter().map(|entry| (entry.version.to_string(), entry.outcome)).collect();
    let wanted = [("3", Outcome::Rejected), ("2", Outcome::Rejected), ("1", Outcome::Promoted)];
    ensure!(reported == wanted.map(|(version, outcome)| (version.to_owned(), outcome)), "{reported:?}");
    // Each is held back for itself: the first one is not forgotten because of the second.
    let change = scene.desired(&desired("4", GOOD, strategy)).await?;
    reached(scene, change, "4").await?;
    super::bounded(scene, began, 2, 5)?;
    rest(scene).await
}

/// The second bad one comes while the first one is still being tried, and the third while the second is.
async fn in_quick_order(scene: &Scene, strategy: &str) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(4).await?;
    scene.get(&format!("{{version: '1', rollout: {{strategy: {strategy}}}}}")).await?;
    scene.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    let first = scene.desired(&desired("2", Some("crash-loop"), strategy)).await?;
    scene.champion.reason(first, Reason::ModelCrashed, PATIENCE).await?;
    let second = scene.desired(&desired("3", Some("image-pull-error"), strategy)).await?;
    scene.champion.reason(second, Reason::ImagePullFailed, PATIENCE).await?;
    rejected(scene, "4", strategy).await?;
    rest(scene).await?;
    only_version_1(scene).await?;
    // Back to the first one, which was given up and not rejected: it is tried anew.
    let change = scene.desired(&desired("2", GOOD, strategy)).await?;
    reached(scene, change, "2").await?;
    super::bounded(scene, began, 2, 6)?;
    rest(scene).await
}

/// There is no room for the bad one at all, then it is rolled back, and the next one has room.
async fn without_room(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(3).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    let quota = no_more_pods(scene).await?;
    let first = scene.desired("version: '2'").await?;
    scene.champion.reason(first, Reason::PodsRefused, PATIENCE).await?;
    let back = scene.desired("version: '1'").await?;
    reached(scene, back, "1").await?;
    let second = scene.desired("version: '3'").await?;
    scene.champion.reason(second, Reason::PodsRefused, PATIENCE).await?;
    ensure!(selected(scene).await? == "1", "traffic moved");
    quota.delete("full", &kube::api::DeleteParams::default()).await?;
    reached(scene, second, "3").await?;
    let sizes = sizes(scene).await?;
    ensure!(sizes.get("2").is_none_or(|size| *size == 0), "what nobody wishes for runs: {sizes:?}");
    rest(scene).await
}

#[test]
fn promise_1_bad_versions_in_a_row_leave_traffic_where_it_works() {
    play_all([
        scene("c-row", async |scene| in_a_row(scene, "BlueGreen").await),
        scene("c-row-rolling", async |scene| in_a_row(scene, "Rolling").await),
        scene("c-quick", async |scene| in_quick_order(scene, "BlueGreen").await),
        scene("c-quick-rolling", async |scene| in_quick_order(scene, "Rolling").await),
        scene("c-room", async |scene| without_room(scene).await),
    ]);
}
