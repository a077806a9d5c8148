//! The operator itself goes away and comes back, while all the other tests go on.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use laurel::api::ModelAlias;
use tokio::time::{Instant, sleep};

use crate::{
    look::{revisions, selected, settled, until_sizes},
    scene::{PATIENCE, play},
    support::alias::is_ready,
};

#[test]
fn promises_7_and_8_a_new_operator_writes_nothing_where_all_is_as_wished_and_catches_up_where_not() {
    play("restart", async |scene| {
        scene.registered(2).await?;
        scene.get("{version: '1', previousAlias: previous}").await?;
        let change = scene.get("{version: '2', previousAlias: previous}").await?;
        scene.until_named("previous", Some("1")).await?;
        let settled = settled(scene).await?;
        scene.world.kill_operator()?;
        scene.world.start_operator().await?;
        sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
        let later = revisions(scene).await?;
        ensure!(settled == later, "a new operator wrote something:\n{settled:#?}\n{later:#?}");

        // What happens while there is no operator is caught up with.
        scene.world.kill_operator()?;
        let away = Instant::now();
        scene.api::<Deployment>().delete("champion-v2", &DeleteParams::background()).await?;
        scene.world.mlflow.delete_alias(&scene.model, "champion").await?;
        scene.world.start_operator().await?;
        scene.pods.until_since(away, "pods of version 2", PATIENCE).await?;
        let again = |it: &ModelAlias| is_ready(it, change.generation);
        scene.champion.until_since(away, "Ready again", PATIENCE, again).await?;
        scene.until_named("champion", Some("2")).await?;
        until_sizes(scene, [("1", 2), ("2", 2)]).await
    });
}

#[test]
fn promise_7_killed_in_the_middle_of_promotions_it_ends_where_it_was_going() {
    play("killed", async |scene| {
        scene.registered(6).await?;
        scene.get("version: '1'").await?;
        for (version, after) in ["2", "3", "4", "5", "6"].into_iter().zip([5, 30, 80, 150, 300]) {
            let change = scene.wish(&format!("version: '{version}'")).await?;
            sleep(Duration::from_millis(after)).await; // Time itself is the subject: another moment each time.
            scene.world.kill_operator()?;
            scene.world.start_operator().await?;
            scene.champion.ready(change, PATIENCE).await?;
            ensure!(selected(scene).await? == version, "the Service is not on version {version}");
        }
        scene.until_named("champion", Some("6")).await
    });
}
