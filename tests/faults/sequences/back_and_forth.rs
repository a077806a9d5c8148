//! To another version and back again: after every single write of the promotion, and at other moments.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use laurel::api::{ModelAlias, model_alias::Outcome};
use tokio::time::{Instant, sleep};

use super::{pods_of, reached, rest, settle};
use crate::{
    fixture::Fixture,
    kubernetes::{PATIENCE, case, run_all},
    simulated::{look::sizes, place::Place},
    support::alias::{Change, is_ready, status},
    wire::{Rule, Violation},
};

/// More writes than a promotion has.
const WRITES: usize = 10;

/// When it goes back.
#[derive(Clone, Copy)]
enum Moment {
    /// After so many writes of the promotion, before the operator hears that the last one was done.
    Write(usize),
    /// After so many milliseconds.
    After(u64),
}

/// Version 2 starts a little slowly, so that there is time to change one's mind.
const SLOW: &str = "serving: {template: {metadata: {annotations: {kwok.laurel.test/ready-after: 300ms}}}}";

fn desired(version: &str) -> String {
    format!("version: '{version}'\n{SLOW}")
}

/// Waits until the write was made, or until there is nothing left to write: then the moment is the end of the
/// promotion.
async fn met(fixture: &Fixture, change: Change, cleaned: impl Fn() -> bool) -> Result<bool> {
    let began = Instant::now();
    while !cleaned() {
        let over = fixture.champion.last().is_some_and(|it| is_ready(&it, change.generation));
        if over {
            settle(fixture).await?;
            return Ok(cleaned());
        }
        ensure!(began.elapsed() < PATIENCE, "neither so many writes nor an end of the promotion");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(true)
}

/// Version 1 serves; version 2 is wished for, and at some moment version 1 again.
async fn there_and_back(fixture: &Fixture, moment: Moment) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get(&desired("1")).await?;
    fixture.until_named("champion", Some("1")).await?;
    settle(fixture).await?;
    let pods = pods_of(fixture, "1").await?;
    let back = match moment {
        Moment::After(milliseconds) => {
            fixture.desired(&desired("2")).await?;
            // Time itself is the subject: another moment each time.
            sleep(Duration::from_millis(milliseconds)).await;
            fixture.desired(&desired("1")).await?
        }
        Moment::Write(number) => {
            let (aliases, manifest): (Api<ModelAlias>, _) = (fixture.api(), Place::manifest(&desired("1"))?);
            let go_back = Violation::after(move |_| {
                let (aliases, manifest) = (aliases.clone(), manifest.clone());
                async move {
                    let ours = PatchParams::apply("kubectl").force();
                    aliases.patch("champion", &ours, &Patch::Apply(manifest)).await.unwrap();
                }
            });
            let placed = fixture.kubernetes.place(Rule::writes(go_back.clone()).nth(number));
            let change = fixture.desired(&desired("2")).await?;
            if met(fixture, change, || placed.hits() > 0).await? {
                fixture.champion.accepted().await?
            } else {
                fixture.desired(&desired("1")).await?
            }
        }
    };
    reached(fixture, back, "1").await?;
    rest(fixture).await?;
    ensure!(pods_of(fixture, "1").await? == pods, "the way back started pods of version 1");
    let last = status(&fixture.champion.last().unwrap());
    ensure!(last.rejected.is_empty(), "something was rejected: {last:?}");
    let served = last
        .history
        .iter()
        .any(|entry| entry.version.to_string() == "2" && entry.outcome == Outcome::Promoted);
    let sizes = sizes(fixture).await?;
    // What has served is warm; what has not rests.
    let wanted = if served { Some(&2) } else { Some(&0) };
    let size = sizes.get("2");
    ensure!(
        sizes["1"] == 2 && (size == wanted || !served && size.is_none()),
        "{sizes:?}, version 2 served: {served}"
    );
    Ok(())
}

#[test]
fn promises_5_and_7_a_rollback_at_any_moment_of_a_promotion_restores_the_old_version() {
    let writes = (1..=WRITES).map(|number| (format!("b-write-{number}"), Moment::Write(number)));
    let times = [0, 200, 900].map(|after| (format!("b-after-{after}"), Moment::After(after)));
    run_all(
        writes
            .chain(times)
            .map(|(name, moment)| case(name, async move |fixture| there_and_back(fixture, moment).await)),
    );
}

/// The same by the alias in the registry: somebody moves it there and back while the follower promotes.
async fn alias_there_and_back(fixture: &Fixture, number: usize) -> Result<()> {
    const FOLLOW: &str = "follow: {registry: {}}";
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.move_alias("1").await?;
    fixture.get(&format!("{FOLLOW}\n{SLOW}")).await?;
    settle(fixture).await?;
    let pods = pods_of(fixture, "1").await?;
    let (mlflow, model) = (fixture.mlflow, fixture.model.clone());
    let go_back = Violation::after(move |_| {
        let model = model.clone();
        async move { mlflow.set_alias(&model, "champion", "1").await.unwrap() }
    });
    let placed = fixture.kubernetes.place(Rule::writes(go_back).nth(number));
    fixture.move_alias("2").await?;
    placed.until_struck(1, PATIENCE).await?;
    // It may go on to version 2 first: it was asked for, and the registry is read every five seconds.
    rest(fixture).await?;
    let last = fixture.champion.last().unwrap();
    ensure!(is_ready(&last, 1), "it is not Ready: {:?}", status(&last));
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias was moved again");
    ensure!(crate::simulated::look::selected(fixture).await? == "1", "traffic is not on version 1");
    ensure!(pods_of(fixture, "1").await? == pods, "the way back started pods of version 1");
    Ok(())
}

#[test]
fn promise_7_an_alias_moved_back_during_a_promotion_is_followed_back() {
    run_all((1..=4).map(|number| {
        case(format!("b-alias-{number}"), async move |fixture| alias_there_and_back(fixture, number).await)
    }));
}

/// The spec is changed three times in a second: only the last wish counts.
async fn three_times(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(4).await?;
    fixture.get(&desired("1")).await?;
    fixture.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    fixture.desired(&desired("2")).await?;
    sleep(Duration::from_millis(250)).await; // Time itself is the subject: three times in a second.
    fixture.desired(&desired("3")).await?;
    sleep(Duration::from_millis(250)).await; // As above.
    let last = fixture.desired(&desired("4")).await?;
    println!("  three wishes in {:?}", began.elapsed());
    reached(fixture, last, "4").await?;
    rest(fixture).await?;
    let sizes = sizes(fixture).await?;
    let running: Vec<&String> =
        sizes.iter().filter(|(_, size)| **size > 0).map(|(version, _)| version).collect();
    ensure!(
        sizes["4"] == 2 && running.len() == 2,
        "one version is warm beside version 4, and no more: {sizes:?}"
    );
    Ok(())
}

/// The same without waiting at all, and back to where it began.
async fn at_once(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(3).await?;
    fixture.get(&desired("1")).await?;
    fixture.until_named("champion", Some("1")).await?;
    settle(fixture).await?;
    let pods = pods_of(fixture, "1").await?;
    for round in ["2", "3", "2", "3", "2"] {
        fixture.desired(&desired(round)).await?;
    }
    let last = fixture.desired(&desired("1")).await?;
    reached(fixture, last, "1").await?;
    rest(fixture).await?;
    ensure!(pods_of(fixture, "1").await? == pods, "the way back started pods of version 1");
    Ok(())
}

#[test]
fn promise_7_of_several_quick_changes_the_last_one_counts() {
    run_all([
        case("b-three", async |fixture| three_times(fixture).await),
        case("b-at-once", async |fixture| at_once(fixture).await),
    ]);
}
