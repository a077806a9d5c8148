//! The record in the registry's tags, and what `laurel history` makes of it.

use anyhow::{Result, ensure};
use laurel::api::model_alias::Recorded;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::{
        alias,
        mlflow::SERVICE,
        service::{Way, way_to},
    },
};

async fn history(fixture: &Fixture, mlflow: &Way, more: &[&str]) -> Result<String> {
    let url = format!("http://{}{}", mlflow.target.address, mlflow.target.path_prefix);
    let mut laurel = Command::new(env!("CARGO_BIN_EXE_laurel"));
    laurel.args(["history", &fixture.model, "--registry", &url]).args(more);
    let output = laurel.output().await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_audit_log_shows_what_was_live_who_requested_it_and_why() {
    run("record", 3, async |fixture| {
        fixture.good_versions(2).await?;
        fixture.get(json!({ "version": "1" })).await?;
        fixture.get(json!({ "version": "2" })).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let recorded = |malias: &_| {
            let history = alias::status(malias).history;
            history.len() == 3 && history.iter().all(|entry| entry.recorded == Recorded::Written)
        };
        let seen = fixture.champion.until("three entries, recorded", PATIENCE, recorded).await?;
        let by = alias::status(&seen.object).history[0].requested_by.clone();
        // The cluster's admin, as the API server stamped it: the chart brought the policy.
        ensure!(by != "unknown" && by != "laurel", "by {by}");

        let facts = fixture.mlflow.version_facts((&fixture.model, "1")).await?;
        let tags = facts["tags"].as_array().cloned().unwrap_or_default();
        let tag = |key: &str| tags.iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].clone());
        ensure!(tag("laurel.promoted_by") == Some(json!(by)), "{tags:?}");
        ensure!(tag("laurel.promoted_from") == Some(json!("2")), "{tags:?}");

        let (namespace, service) = SERVICE;
        let mlflow = way_to(&fixture.cluster, namespace, service).await?;
        let before = history(fixture, &mlflow, &[]).await?;
        println!("{before}");
        fixture.kubectl(&["delete", "modelalias/champion", "registeredmodel/model"], None).await?;
        ensure!(history(fixture, &mlflow, &[]).await? == before, "it tells otherwise without the objects");
        let reported: Value = serde_json::from_str(&history(fixture, &mlflow, &["-o", "json"]).await?)?;
        let versions: Vec<_> =
            reported["entries"].as_array().into_iter().flatten().map(|it| &it["version"]).collect();
        ensure!(versions == ["1", "2", "1"], "{reported}");
        Ok(())
    });
}
