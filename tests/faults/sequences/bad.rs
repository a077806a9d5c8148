//! Several bad versions in a row: traffic stays on the good one, and its Service is never empty.

use anyhow::{Context, Result, ensure};
use laurel::api::{condition::Reason, model_alias::Outcome};
use tokio::time::Instant;

use super::{pods_of, reached, rest};
use crate::{
    fixture::Fixture,
    kubernetes::{PATIENCE, case, run_all},
    simulated::look::{no_more_pods, selected, sizes},
    support::alias::status,
};

fn desired(version: &str, fate: Option<&str>, strategy: &str) -> String {
    // The last of them is rejected soon; a good one has time, even on a busy machine.
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

/// The settings of a version that is rejected soon.
const LATE: &str = "never-ready";

/// Requests the version, and waits until it is rejected.
async fn rejected(fixture: &Fixture, version: &str, strategy: &str) -> Result<()> {
    let change = fixture.desired(&desired(version, Some(LATE), strategy)).await?;
    fixture.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
    ensure!(selected(fixture).await? == "1", "traffic moved");
    Ok(())
}

/// Asserts that only version 1 runs, answers and has the alias.
async fn only_version_1(fixture: &Fixture) -> Result<()> {
    let sizes = sizes(fixture).await?;
    let runs = |(version, size): (&String, &i32)| (version == "1") == (*size > 0);
    ensure!(sizes["1"] == 2 && sizes.iter().all(runs), "{sizes:?}");
    ensure!(selected(fixture).await? == "1", "traffic moved");
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias moved");
    Ok(())
}

/// Asserts that two pods were ready all the time, and that no more pods existed than the strategy has room for.
/// A rejected version's pods may still be ending when the next version starts its own: with `BlueGreen` that
/// makes three versions of two pods each, and with `Rolling` each new pod waits for that room.
fn bounded(fixture: &Fixture, since: Instant, strategy: &str) -> Result<()> {
    super::bounded(fixture, since, 2, if strategy == "Rolling" { 3 } else { 6 })
}

async fn in_a_row(fixture: &Fixture, strategy: &str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(4).await?;
    fixture.get(&format!("{{version: '1', rollout: {{strategy: {strategy}}}}}")).await?;
    fixture.until_named("champion", Some("1")).await?;
    let (began, pods) = (Instant::now(), pods_of(fixture, "1").await?);
    rejected(fixture, "2", strategy).await?;
    fixture.operator.restart().await?;
    rejected(fixture, "3", strategy).await?;
    rest(fixture).await?;
    only_version_1(fixture).await?;
    if strategy == "BlueGreen" {
        ensure!(pods_of(fixture, "1").await? == pods, "pods of version 1 were restarted");
    }
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    let reported: Vec<_> =
        last.history.iter().map(|entry| (entry.version.to_string(), entry.outcome)).collect();
    let wanted = [("3", Outcome::Rejected), ("2", Outcome::Rejected), ("1", Outcome::Promoted)];
    ensure!(reported == wanted.map(|(version, outcome)| (version.to_owned(), outcome)), "{reported:?}");
    // Each is held back individually: the first one is not forgotten because of the second.
    let change = fixture.desired(&desired("4", GOOD, strategy)).await?;
    reached(fixture, change, "4").await?;
    bounded(fixture, began, strategy)?;
    rest(fixture).await
}

/// The second bad version is requested while the first is still starting, and the third while the second is.
async fn in_quick_order(fixture: &Fixture, strategy: &str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(4).await?;
    fixture.get(&format!("{{version: '1', rollout: {{strategy: {strategy}}}}}")).await?;
    fixture.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    let first = fixture.desired(&desired("2", Some("crash-loop"), strategy)).await?;
    fixture.champion.reason(first, Reason::ModelCrashed, PATIENCE).await?;
    let second = fixture.desired(&desired("3", Some("image-pull-error"), strategy)).await?;
    fixture.champion.reason(second, Reason::ImagePullFailed, PATIENCE).await?;
    rejected(fixture, "4", strategy).await?;
    rest(fixture).await?;
    only_version_1(fixture).await?;
    // Back to the first one, which was abandoned but not rejected: it is tried again.
    let change = fixture.desired(&desired("2", GOOD, strategy)).await?;
    reached(fixture, change, "2").await?;
    bounded(fixture, began, strategy)?;
    rest(fixture).await
}

/// There is no room for the bad one, then it is rolled back, and the next one has room.
async fn without_room(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(3).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let quota = no_more_pods(fixture).await?;
    let first = fixture.desired("version: '2'").await?;
    fixture.champion.reason(first, Reason::PodsRefused, PATIENCE).await?;
    let back = fixture.desired("version: '1'").await?;
    reached(fixture, back, "1").await?;
    let second = fixture.desired("version: '3'").await?;
    fixture.champion.reason(second, Reason::PodsRefused, PATIENCE).await?;
    ensure!(selected(fixture).await? == "1", "traffic moved");
    quota.delete("full", &kube::api::DeleteParams::default()).await?;
    reached(fixture, second, "3").await?;
    let sizes = sizes(fixture).await?;
    ensure!(sizes.get("2").is_none_or(|size| *size == 0), "a version runs that is not requested: {sizes:?}");
    rest(fixture).await
}

#[test]
fn promise_1_several_bad_versions_do_not_move_traffic() {
    run_all([
        case("c-row", async |fixture| in_a_row(fixture, "BlueGreen").await),
        case("c-row-rolling", async |fixture| in_a_row(fixture, "Rolling").await),
        case("c-quick", async |fixture| in_quick_order(fixture, "BlueGreen").await),
        case("c-quick-rolling", async |fixture| in_quick_order(fixture, "Rolling").await),
        case("c-room", async |fixture| without_room(fixture).await),
    ]);
}
