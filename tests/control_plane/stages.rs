//! Stages of older MLflow servers, where they are asked to be aliases.

use anyhow::{Result, ensure};
use laurel::api::{ModelAlias, condition::Reason};
use tokio::time::{Instant, sleep};

use crate::{
    scene::{PATIENCE, Scene, play},
    simulated::look::selected,
    support::alias::{is_ready, version},
};

/// Waits until each version is in a stage.
async fn stages(scene: &Scene, wanted: [(&str, &str); 2]) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut seen = Vec::new();
        for (version, _) in wanted {
            seen.push((version, scene.world.mlflow.stage(&scene.model, version).await?));
        }
        if seen.iter().map(|(version, stage)| (*version, stage.as_str())).eq(wanted) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the stages are {seen:?} and not {wanted:?}");
        sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn registry(scene: &Scene, more: &str) -> Result<()> {
    let url = scene.world.mlflow.url();
    let manifest = format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: old}}
spec: {{mlflow: {{url: '{url}'{more}}}, pollInterval: 5s}}
"
    );
    scene.apply(&manifest).await
}

#[test]
fn a_stage_is_followed_and_moved_as_an_alias_is() {
    play("stages", async |scene| {
        scene.registered(2).await?;
        registry(scene, "").await?;
        scene.describe_model("registryRef: {name: old}").await?;
        scene.world.mlflow.transition_stage(&scene.model, "1", "Production").await?;
        let change = scene.desired("{alias: Production, follow: {registry: {}}}").await?;
        scene.champion.reason(change, Reason::AliasNotFound, PATIENCE).await?;
        registry(scene, ", stages: AsAliases").await?;
        scene.champion.ready(change, PATIENCE).await?;
        ensure!(selected(scene).await? == "1", "the Service is not on version 1");

        // Both are in the stage; the newer one is what MLflow takes for it.
        let moved = Instant::now();
        scene.world.mlflow.transition_stage(&scene.model, "2", "Production").await?;
        let follows = |it: &ModelAlias| is_ready(it, 1) && version(it) == "2";
        scene.champion.until_since(moved, "Ready with version 2", PATIENCE, follows).await?;

        scene.get("{alias: Production, version: '1', follow: null}").await?;
        ensure!(selected(scene).await? == "1", "the Service is not on version 1");
        stages(scene, [("1", "Production"), ("2", "Archived")]).await?;
        ensure!(scene.named("Production").await?.is_none(), "an alias was set beside the stage");
        Ok(())
    });
}
