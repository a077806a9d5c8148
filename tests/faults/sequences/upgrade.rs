//! Another operator takes over: it continues a rollout in progress, and restarts no model.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use laurel::render::labels;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{pods_of, reached, rest, settle};
use crate::{
    fixture::Fixture,
    kubernetes::{PATIENCE, case, run_all},
    simulated::look::{selected, until_sizes},
    wire::{Rule, Violation},
};

fn desired(version: &str, strategy: &str) -> String {
    format!(
        "
version: '{version}'
rollout: {{strategy: {strategy}}}
serving: {{template: {{metadata: {{annotations: {{kwok.laurel.test/ready-after: 600ms}}}}}}}}
"
    )
}

/// Time limit for an operator to exit.
const ENDS: Duration = Duration::from_secs(20);

/// Terminates the operator and starts another one.
async fn upgrade(fixture: &Fixture) -> Result<()> {
    let began = Instant::now();
    let status = fixture.operator.terminate().await?;
    ensure!(status.success(), "it ended with {status}");
    ensure!(began.elapsed() < ENDS, "it took {:?} to exit", began.elapsed());
    fixture.operator.start().await
}

/// At several moments of a promotion.
async fn in_mid_rollout(fixture: &Fixture, strategy: &str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    let change = fixture.desired(&desired("1", strategy)).await?;
    reached(fixture, change, "1").await?;
    for (round, after) in [0, 100, 400, 900].into_iter().enumerate() {
        let (from, to) = if round % 2 == 0 { ("1", "2") } else { ("2", "1") };
        let pods = pods_of(fixture, from).await?;
        let change = fixture.desired(&desired(to, strategy)).await?;
        sleep(Duration::from_millis(after)).await; // Time itself is the subject: another moment each time.
        upgrade(fixture).await?;
        reached(fixture, change, to).await?;
        if strategy == "BlueGreen" {
            ensure!(pods_of(fixture, from).await? == pods, "pods of version {from} were restarted");
        }
    }
    rest(fixture).await
}

/// Returns each Deployment's pod template, byte for byte, and the existing pods.
async fn made_of(fixture: &Fixture) -> Result<(BTreeMap<String, String>, BTreeMap<String, String>)> {
    let all = ListParams::default();
    let templates = fixture.api::<Deployment>().list(&all).await?.into_iter().map(|deployment| {
        let template = deployment.spec.as_ref().map(|spec| serde_json::to_string(&spec.template));
        Ok((deployment.name_any(), template.transpose()?.unwrap_or_default()))
    });
    let pods = fixture.api::<Pod>().list_metadata(&all).await?;
    let pods = pods.items.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect();
    Ok((templates.collect::<Result<_>>()?, pods))
}

/// At rest, with a serving version, a warm one and one scaled to zero.
async fn at_rest(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(3).await?;
    for version in ["1", "2", "3"] {
        let change = fixture.desired(&format!("{{version: '{version}', previousAlias: previous}}")).await?;
        reached(fixture, change, version).await?;
    }
    until_sizes(fixture, [("1", 0), ("2", 2), ("3", 2)]).await?;
    fixture.until_named("previous", Some("2")).await?;
    rest(fixture).await?;
    let (before, writes) = (made_of(fixture).await?, fixture.journal.count());
    for _ in 0..3 {
        upgrade(fixture).await?;
    }
    rest(fixture).await?;
    ensure!(made_of(fixture).await? == before, "templates or pods have changed");
    ensure!(fixture.journal.count() == writes, "it wrote:\n{}", fixture.journal.writes_since(fixture.began));
    Ok(())
}

/// Templates that an earlier release rendered differently stay as they are, for the serving and the warm
/// version, through a rollback, a change of size and another promotion. Only changed settings replace them.
async fn from_an_earlier_release(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    for version in ["1", "2"] {
        fixture.get(&format!("version: '{version}'")).await?;
    }
    fixture.until_named("champion", Some("2")).await?;
    settle(fixture).await?;
    fixture.operator.kill()?;
    for name in ["champion-v1", "champion-v2"] {
        rendered_otherwise(fixture, name).await?;
    }
    until_rolled_out(fixture).await?;
    let before = made_of(fixture).await?;
    ensure!(before.0.values().all(|template| template.contains("EARLIER_RELEASE")), "{before:?}");
    fixture.operator.start().await?;
    rest(fixture).await?;
    ensure!(made_of(fixture).await? == before, "another release changed it");
    for version in ["1", "2"] {
        fixture.get(&format!("version: '{version}'")).await?;
        ensure!(selected(fixture).await? == version, "traffic is not on version {version}");
        ensure!(made_of(fixture).await? == before, "a rollback or promotion changed it");
    }
    fixture.get("{version: '2', serving: {replicas: 3}}").await?;
    until_sizes(fixture, [("1", 2), ("2", 3)]).await?;
    ensure!(made_of(fixture).await?.0 == before.0, "a change of size changed it");
    fixture.get("{version: '2', serving: {replicas: 3, env: [{name: OTHER, value: settings}]}}").await?;
    let after = made_of(fixture).await?.0;
    ensure!(!after["champion-v2"].contains("EARLIER_RELEASE"), "changed settings did not replace it");
    ensure!(after["champion-v1"] == before.0["champion-v1"], "the warm version was changed");
    Ok(())
}

/// The same fields under the same field manager, plus one variable that an earlier release had set.
async fn rendered_otherwise(fixture: &Fixture, name: &str) -> Result<()> {
    let deployments = fixture.api::<Deployment>();
    let now = serde_json::to_value(deployments.get(name).await?)?;
    let mut ours = json!({ "apiVersion": "apps/v1", "kind": "Deployment" });
    for part in ["name", "namespace", "labels", "annotations", "ownerReferences"] {
        ours["metadata"][part] = now["metadata"][part].clone();
    }
    // The digest of the fields that were applied is not of those below; an earlier release wrote none.
    let annotations = ours["metadata"]["annotations"].as_object_mut().context("no annotations")?;
    annotations.remove(labels::OWNED_FIELDS).context("Laurel writes no digest of its fields")?;
    ours["spec"] = now["spec"].clone();
    let container = ours.pointer_mut("/spec/template/spec/containers/0").context("no container")?;
    container["env"]
        .as_array_mut()
        .context("no variables")?
        .push(json!({ "name": "EARLIER_RELEASE", "value": "0.0.9" }));
    let applied = PatchParams::apply("laurel").force();
    deployments.patch(name, &applied, &Patch::Apply(ours)).await?;
    Ok(())
}

async fn until_rolled_out(fixture: &Fixture) -> Result<()> {
    let began = Instant::now();
    loop {
        let deployments = fixture.api::<Deployment>().list(&ListParams::default()).await?;
        let complete = |deployment: &Deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            status.observed_generation == deployment.metadata.generation
                && [status.updated_replicas, status.replicas, status.available_replicas] == [Some(2); 3]
        };
        let gone: Value =
            serde_json::to_value(fixture.api::<Pod>().list_metadata(&ListParams::default()).await?)?;
        if deployments.iter().all(complete) && gone["items"].as_array().is_some_and(|pods| pods.len() == 4) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the pods do not become ready");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A server hangs while the operator is terminated.
async fn ends_while_a_server_hangs(fixture: &Fixture, registry: bool) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    settle(fixture).await?;
    let hangs = if registry {
        fixture.registry.place(Rule::always(Violation::Hang))
    } else {
        fixture.kubernetes.place(Rule::writes(Violation::Hang))
    };
    let change = fixture.desired("version: '2'").await?;
    hangs.until_struck(1, PATIENCE).await?;
    let began = Instant::now();
    let status = fixture.operator.terminate().await?;
    println!("  ended after {:?}", began.elapsed());
    ensure!(status.success() && began.elapsed() < ENDS, "it ended with {status} after {:?}", began.elapsed());
    fixture.registry.lift_all();
    fixture.kubernetes.lift_all();
    fixture.operator.start().await?;
    reached(fixture, change, "2").await?;
    rest(fixture).await
}

#[test]
fn promise_8_another_operator_continues_where_the_last_one_was_and_restarts_no_model() {
    run_all([
        case("e-blue-green", async |fixture| in_mid_rollout(fixture, "BlueGreen").await),
        case("e-rolling", async |fixture| in_mid_rollout(fixture, "Rolling").await),
        case("e-rest", async |fixture| at_rest(fixture).await),
        case("e-earlier", async |fixture| from_an_earlier_release(fixture).await),
        case("e-hang-registry", async |fixture| ends_while_a_server_hangs(fixture, true).await),
        case("e-hang-cluster", async |fixture| ends_while_a_server_hangs(fixture, false).await),
    ]);
}
