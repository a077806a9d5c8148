//! One owner for each alias.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams};
use laurel::api::{ModelAlias, condition::Reason};

use crate::{
    fixture::{PATIENCE, run},
    support::alias::{Alias, message},
};

#[test]
fn promise_11_the_newer_of_two_owners_reports_conflict_and_takes_over_after_the_older() {
    run("conflict", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        tokio::time::sleep(Duration::from_secs(1)).await; // Objects know their age in seconds.

        let newer = Alias::observe(&fixture.world.cluster, &fixture.namespace, "newer");
        fixture
            .apply(
                "
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {name: newer}
spec:
  modelRef: {name: model}
  alias: champion
  version: '2'
  serving: {image: registry.example/serving:1}
  rollout: {smokeTest: {mode: Disabled}}
",
            )
            .await?;
        let change = newer.accepted().await?;
        let refused = newer.reason(change, Reason::Conflict, PATIENCE).await?;
        let said = message(&refused.object);
        let owner = format!("belongs to the older ModelAlias {}/champion", fixture.namespace);
        ensure!(said.contains(&owner), "{said}");
        let deployments = fixture.api::<Deployment>().list_metadata(&ListParams::default()).await?;
        ensure!(deployments.items.len() == 1, "the newer one runs something");
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias was moved");

        fixture.api::<ModelAlias>().delete("champion", &DeleteParams::default()).await?;
        newer.ready(change, PATIENCE).await?;
        fixture.until_named("champion", Some("2")).await
    });
}
