//! Promotion and rollback, and quiet afterwards.

use std::time::Duration;

use anyhow::{Context, ensure};
use laurel::api::model_alias::Outcome;
use tokio::time::Instant;

use crate::{
    fixture::{PATIENCE, run},
    simulated::look::{revisions, selected, settled, sizes, until_sizes},
    support::alias::{is_ready, status, version},
};

#[test]
fn promises_1_4_and_5_versions_are_promoted_in_turn_and_rolled_back_without_a_new_pod() {
    run("promotion", async |fixture| {
        fixture.registered(3).await?;
        for version in ["1", "2", "3"] {
            fixture.get(&format!("{{version: '{version}', previousAlias: previous}}")).await?;
            ensure!(selected(fixture).await? == version, "the Service is not on version {version}");
            fixture.until_named("champion", Some(version)).await?;
        }
        fixture.until_named("previous", Some("2")).await?;
        until_sizes(fixture, [("1", 0), ("2", 2), ("3", 2)])
            .await
            .context("version 1 is scaled to zero, 2 is warm")?;

        let before = Instant::now();
        let change = fixture.get("{version: '2', previousAlias: previous}").await?;
        let rolled_back = fixture
            .champion
            .until("version 2", PATIENCE, |malias| {
                is_ready(malias, change.generation) && version(malias) == "2"
            })
            .await?;
        println!("  rolled back {:?} after the change was accepted", rolled_back.at - change.accepted);
        ensure!(selected(fixture).await? == "2", "the Service is not back on version 2");
        let started = fixture.pods.started_since(before);
        ensure!(started.is_empty(), "a rollback started pods: {started:?}");
        fixture.until_named("champion", Some("2")).await?;
        fixture.until_named("previous", Some("3")).await?;
        ensure!(sizes(fixture).await?.len() == 3, "one Deployment for each version");

        let status = status(&fixture.champion.last().context("the ModelAlias is gone")?);
        let reported: Vec<(String, Option<String>, Outcome)> = status
            .history
            .iter()
            .map(|entry| (entry.version.to_string(), entry.from.map(|from| from.to_string()), entry.outcome))
            .collect();
        let entry = |version: &str, from: &str, outcome| (version.to_owned(), Some(from.to_owned()), outcome);
        let wanted = [
            entry("2", "3", Outcome::RolledBack),
            entry("3", "2", Outcome::Promoted),
            entry("2", "1", Outcome::Promoted),
            ("1".to_owned(), None, Outcome::Promoted),
        ];
        ensure!(reported == wanted, "{reported:?}");
        ensure!(
            status.previous_version.map(|version| version.to_string()).as_deref() == Some("3"),
            "{status:?}"
        );
        ensure!(fixture.audit.verdict().await? >= 4, "the audit saw fewer writes than there were");
        Ok(())
    });
}

#[test]
fn kubectl_get_and_describe_show_what_serves() {
    run("kubectl", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let table = fixture.kubectl(&["get", "malias"]).await?;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let header = ["NAME", "MODEL", "ALIAS", "VERSION", "TARGET", "READY", "STATUS", "AGE"];
        ensure!(lines[0] == header, "{table}");
        ensure!(
            lines[1][..7] == ["champion", &fixture.model, "champion", "1", "1", "True", "Serving"],
            "{table}"
        );
        let table = fixture.kubectl(&["get", "rmodel"]).await?;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(lines[0] == ["NAME", "MODEL", "LATEST", "READY", "STATUS", "AGE"], "{table}");
        ensure!(lines[1][..5] == ["model", &fixture.model, "1", "True", "ModelSynced"], "{table}");
        for words in ["Starting", "Promoted"] {
            fixture.event(words).await?;
        }
        let description = fixture.kubectl(&["describe", "malias", "champion"]).await?;
        for words in ["starting version 1 with 2 pods", "version 1 serves now; requested by spec.version"] {
            ensure!(description.contains(words), "{words:?} is not in\n{description}");
        }
        let category = fixture.kubectl(&["get", "laurel", "-o", "name"]).await?;
        ensure!(category.contains("modelalias.laurel.dev/champion"), "{category}");
        Ok(())
    });
}

/// A little more than two poll intervals of the registry.
const TWO_POLLS: Duration = Duration::from_secs(11);

#[test]
fn promise_7_at_rest_nothing_is_written() {
    run("quiet", async |fixture| {
        let _no_restart = fixture.world.keeps_running.lock().await;
        fixture.registered(2).await?;
        fixture.get("{version: '1', previousAlias: previous}").await?;
        fixture.get("{version: '2', previousAlias: previous}").await?;
        fixture.until_named("previous", Some("1")).await?;
        let settled = settled(fixture).await?;
        tokio::time::sleep(TWO_POLLS).await; // Time itself is the subject.
        let later = revisions(fixture).await?;
        ensure!(settled == later, "something was written at rest:\n{settled:#?}\n{later:#?}");
        ensure!(settled.len() == 5, "{settled:#?}");
        Ok(())
    });
}
