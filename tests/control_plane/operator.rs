//! The operator is killed and restarted, while all other tests keep running.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::api::DeleteParams;
use laurel::api::ModelAlias;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{PATIENCE, run},
    simulated::look::{revisions, selected, settled, until_sizes},
    support::alias::{is_ready, status},
};

#[test]
fn promises_7_and_8_a_new_operator_writes_only_where_something_changed() {
    run("restart", async |fixture| {
        let _alone = fixture.world.keeps_running.lock().await;
        fixture.registered(2).await?;
        fixture.get("{version: '1', previousAlias: previous}").await?;
        let change = fixture.get("{version: '2', previousAlias: previous}").await?;
        fixture.until_named("previous", Some("1")).await?;
        let settled = settled(fixture).await?;
        fixture.world.kill_operator()?;
        fixture.world.start_operator().await?;
        sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
        let later = revisions(fixture).await?;
        for untouched in ["Deployment champion-v1", "Deployment champion-v2", "Service champion"] {
            ensure!(settled[untouched] == later[untouched], "a new operator wrote the {untouched}");
        }

        // The next operator catches up with changes in between.
        fixture.world.kill_operator()?;
        let away = Instant::now();
        fixture.api::<Service>().delete("champion", &DeleteParams::default()).await?;
        fixture.edit::<Deployment>("champion-v2", json!({ "spec": { "replicas": 1 } })).await?;
        fixture.world.mlflow.delete_alias(&fixture.model, "champion").await?;
        fixture.world.start_operator().await?;
        fixture.audit.service_since(away, "the Service again", |_| true).await?;
        until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
        fixture.until_named("champion", Some("2")).await?;
        let again = |it: &ModelAlias| is_ready(it, change.generation);
        fixture.champion.until_since(away, "Ready again", PATIENCE, again).await?;
        ensure!(selected(fixture).await? == "2", "the Service is not on version 2");
        Ok(())
    });
}

#[test]
fn promise_7_a_new_operator_writes_no_status_if_everything_is_as_desired() {
    run("restart-status", async |fixture| {
        let _alone = fixture.world.keeps_running.lock().await;
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let settled = settled(fixture).await?;
        let restarted = Instant::now();
        fixture.world.kill_operator()?;
        fixture.world.start_operator().await?;
        sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
        for seen in fixture.champion.seen().iter().filter(|seen| seen.at >= restarted) {
            let conditions = status(&seen.object).conditions;
            let reported = |each: &Condition| format!("{}={} {}", each.type_, each.status, each.reason);
            println!("  {:?}", conditions.iter().map(reported).collect::<Vec<_>>());
        }
        let later = revisions(fixture).await?;
        ensure!(settled == later, "a new operator wrote something:\n{settled:#?}\n{later:#?}");
        Ok(())
    });
}

#[test]
fn promise_7_promotions_complete_although_the_operator_is_killed() {
    run("killed", async |fixture| {
        let _alone = fixture.world.keeps_running.lock().await;
        fixture.registered(6).await?;
        fixture.get("version: '1'").await?;
        for (version, after) in ["2", "3", "4", "5", "6"].into_iter().zip([5, 30, 80, 150, 300]) {
            let change = fixture.desired(&format!("version: '{version}'")).await?;
            // Time is the subject here: a different moment each time.
            sleep(Duration::from_millis(after)).await;
            fixture.world.kill_operator()?;
            fixture.world.start_operator().await?;
            fixture.champion.ready(change, PATIENCE).await?;
            ensure!(selected(fixture).await? == version, "the Service is not on version {version}");
        }
        fixture.until_named("champion", Some("6")).await
    });
}
