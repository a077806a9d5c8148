//! The record in the registry's tags, and what `laurel history` makes of it.

use anyhow::{Result, ensure};
use laurel::api::model_alias::Recorded;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    scene::{PATIENCE, Scene, play},
    support::{
        alias,
        mlflow::SERVICE,
        service::{Way, way_to},
    },
};

async fn history(scene: &Scene, mlflow: &Way, more: &[&str]) -> Result<String> {
    let url = format!("http://{}{}", mlflow.target.address, mlflow.target.path_prefix);
    let mut laurel = Command::new(env!("CARGO_BIN_EXE_laurel"));
    laurel.args(["history", &scene.model, "--registry", &url]).args(more);
    let output = laurel.output().await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_registry_tells_what_was_live_who_asked_and_why_also_when_the_cluster_has_forgotten() {
    play("record", 3, async |scene| {
        scene.good_versions(2).await?;
        scene.get(json!({ "version": "1" })).await?;
        scene.get(json!({ "version": "2" })).await?;
        scene.get(json!({ "version": "1" })).await?;
        let recorded = |malias: &_| {
            let history = alias::status(malias).history;
            history.len() == 3 && history.iter().all(|entry| entry.recorded == Recorded::Written)
        };
        let seen = scene.champion.until("three entries, recorded", PATIENCE, recorded).await?;
        let by = alias::status(&seen.object).history[0].requested_by.clone();
        // The cluster's admin, as the API server stamped it: the chart brought the policy.
        ensure!(by != "unknown" && by != "laurel", "by {by}");

        let facts = scene.mlflow.version_facts((&scene.model, "1")).await?;
        let tags = facts["tags"].as_array().cloned().unwrap_or_default();
        let tag = |key: &str| tags.iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].clone());
        ensure!(tag("laurel.promoted_by") == Some(json!(by)), "{tags:?}");
        ensure!(tag("laurel.promoted_from") == Some(json!("2")), "{tags:?}");

        let (namespace, service) = SERVICE;
        let mlflow = way_to(&scene.cluster, namespace, service).await?;
        let before = history(scene, &mlflow, &[]).await?;
        println!("{before}");
        scene.kubectl(&["delete", "modelalias/champion", "registeredmodel/model"], None).await?;
        ensure!(history(scene, &mlflow, &[]).await? == before, "it tells otherwise without the objects");
        let reported: Value = serde_json::from_str(&history(scene, &mlflow, &["-o", "json"]).await?)?;
        let versions: Vec<_> =
            reported["entries"].as_array().into_iter().flatten().map(|it| &it["version"]).collect();
        ensure!(versions == ["1", "2", "1"], "{reported}");
        Ok(())
    });
}
