//! Stages of older MLflow servers, where they are asked to be aliases.

use anyhow::{Result, ensure};
use laurel::api::{ModelAlias, condition::Reason};
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::selected,
    support::alias::{is_ready, version},
};

/// Waits until each version is in a stage.
async fn stages(fixture: &Fixture, wanted: [(&str, &str); 2]) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut seen = Vec::new();
        for (version, _) in wanted {
            seen.push((version, fixture.world.mlflow.stage(&fixture.model, version).await?));
        }
        if seen.iter().map(|(version, stage)| (*version, stage.as_str())).eq(wanted) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the stages are {seen:?} and not {wanted:?}");
        sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn registry(fixture: &Fixture, more: &str) -> Result<()> {
    let url = fixture.world.mlflow.url();
    let manifest = format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: old}}
spec: {{mlflow: {{url: '{url}'{more}}}, pollInterval: 5s}}
"
    );
    fixture.apply(&manifest).await
}

#[test]
fn a_stage_is_followed_and_moved_like_an_alias() {
    run("stages", async |fixture| {
        fixture.registered(2).await?;
        registry(fixture, "").await?;
        fixture.describe_model("registryRef: {name: old}").await?;
        fixture.world.mlflow.transition_stage(&fixture.model, "1", "Production").await?;
        let change = fixture.desired("{alias: Production, follow: {registry: {}}}").await?;
        fixture.champion.reason(change, Reason::AliasNotFound, PATIENCE).await?;
        registry(fixture, ", stages: AsAliases").await?;
        fixture.champion.ready(change, PATIENCE).await?;
        ensure!(selected(fixture).await? == "1", "the Service is not on version 1");

        // Both are in the stage; the newer one is what MLflow takes for it.
        let moved = Instant::now();
        fixture.world.mlflow.transition_stage(&fixture.model, "2", "Production").await?;
        let follows = |it: &ModelAlias| is_ready(it, 1) && version(it) == "2";
        fixture.champion.until_since(moved, "Ready with version 2", PATIENCE, follows).await?;

        fixture.get("{alias: Production, version: '1', follow: null}").await?;
        ensure!(selected(fixture).await? == "1", "the Service is not on version 1");
        stages(fixture, [("1", "Production"), ("2", "Archived")]).await?;
        ensure!(fixture.named("Production").await?.is_none(), "an alias was set beside the stage");
        Ok(())
    });
}
