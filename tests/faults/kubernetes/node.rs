//! A node is lost, with its pods.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use serde_json::json;
use tokio::time::Instant;

use super::{PATIENCE, calm, case, run_all};
use crate::{
    fixture::Fixture,
    simulated::look::{selected, until_sizes},
    support::alias::{has, holds, is_ready, message, status, version},
};

/// The label and the taint of a fixture's nodes.
const LABEL: &str = "kwok.laurel.test/fixture";

/// Simulated nodes of one fixture, where no other pods run. Removed by [`Nodes::remove`], or by a later run.
struct Nodes {
    api: Api<Node>,
    fixture: String,
}

impl Nodes {
    async fn of(fixture: &Fixture, names: &[&str]) -> Result<Self> {
        let nodes =
            Self { api: Api::all(fixture.cluster.client.clone()), fixture: fixture.namespace.clone() };
        for left in nodes.api.list_metadata(&ListParams::default().labels(LABEL)).await? {
            let run = left.labels()[LABEL].rsplit('-').next().unwrap_or_default().to_owned();
            if !std::path::Path::new("/proc").join(run).exists() {
                nodes.remove(&left.name_any()).await?;
            }
        }
        for name in names {
            nodes.add(name).await?;
        }
        Ok(nodes)
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.fixture)
    }

    async fn add(&self, name: &str) -> Result<()> {
        let name = self.name(name);
        let room = json!({ "cpu": "1k", "memory": "4Ti", "pods": "100", "ephemeral-storage": "4Ti" });
        let node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": { "kwok.x-k8s.io/node": "fake" },
                "labels": { LABEL: self.fixture, "kubernetes.io/hostname": name },
            },
            "spec": { "taints": [{ "key": LABEL, "value": self.fixture, "effect": "NoSchedule" }] },
            "status": { "capacity": room, "allocatable": room },
        }))?;
        self.api.create(&PostParams::default(), &node).await?;
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self.api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }

    /// Deletes the node's object and its pods, as the cluster does some time after a machine is gone.
    async fn lose(&self, fixture: &Fixture, name: &str) -> Result<usize> {
        let name = self.name(name);
        self.remove(&name).await?;
        let pods = fixture.api::<Pod>();
        let there = pods.list(&ListParams::default().fields(&format!("spec.nodeName={name}"))).await?.items;
        for pod in &there {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(there.len())
    }

    /// Settings whose pods run only on these nodes, spread over them.
    fn template(&self, more: &str) -> String {
        let fixture = &self.fixture;
        format!(
            "
rollout: {{progressDeadline: 60s}}
serving:
  template:
    spec:
      nodeSelector: {{{LABEL}: {fixture}}}
      tolerations: [{{key: {LABEL}, operator: Exists}}]
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {{matchLabels: {{laurel.dev/model-alias: champion}}}}
{more}
"
        )
    }
}

/// One of two nodes is lost: the pod on the other one answers, and the lost one is replaced there.
async fn one_of_two(fixture: &Fixture, nodes: &Nodes) -> Result<()> {
    let change = fixture.get(&nodes.template("version: '1'")).await?;
    fixture.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    let taken = nodes.lose(fixture, "a").await?;
    ensure!(taken == 1, "{taken} pods were on the node");
    let again = |it: &ModelAlias| is_ready(it, change.generation) && status(it).ready_replicas == Some(2);
    fixture.pods.until_since(began, "another pod", PATIENCE).await?;
    fixture.champion.until_since(began, "Ready again", PATIENCE, again).await?;
    let ready = fixture.pods.counts_since(began).iter().map(|count| count.ready).min();
    ensure!(ready == Some(1), "at least {ready:?} pods were ready");
    for seen in fixture.champion.seen().iter().filter(|seen| seen.at >= began) {
        ensure!(holds(&seen.object, ConditionType::Serving), "it did not serve: {:?}", status(&seen.object));
    }
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.rejected.is_empty() && last.history.len() == 1, "{last:?}");
    ensure!(selected(fixture).await? == "1", "traffic moved");
    calm(fixture, began, |_| true)?;
    fixture.until_quiet().await
}

/// The only node of the serving version is lost while the previous version is warm elsewhere: that one takes
/// over at once. The version did not fail by itself, so it is not rejected, and traffic returns when the node
/// is back.
async fn the_only_one(fixture: &Fixture, nodes: &Nodes) -> Result<()> {
    fixture.get("version: '1'").await?;
    fixture.get(&nodes.template("version: '2'")).await?;
    fixture.until_named("champion", Some("2")).await?;
    let began = Instant::now();
    let taken = nodes.lose(fixture, "a").await?;
    ensure!(taken == 2, "{taken} pods were on the node");
    let fell_back = |it: &ModelAlias| version(it) == "1" && has(it, Reason::Unschedulable);
    let seen = fixture.champion.until_since(began, "version 1 takes over", PATIENCE, fell_back).await?;
    println!("  reported {:?} after the node was lost", seen.at - began);
    ensure!(status(&seen.object).rejected.is_empty(), "it was rejected: {}", message(&seen.object));
    ensure!(selected(fixture).await? == "1", "traffic is not on version 1");
    fixture.until_named("champion", Some("1")).await?;
    until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
    let back = Instant::now();
    nodes.add("a").await?;
    let serves = |it: &ModelAlias| version(it) == "2" && holds(it, ConditionType::Ready);
    fixture.champion.until_since(back, "version 2 again, by itself", PATIENCE, serves).await?;
    fixture.until_named("champion", Some("2")).await?;
    fixture.until_quiet().await
}

/// The same without a warm version: it reports that no node has room for its pods, and serves again when one
/// does.
async fn nothing_else(fixture: &Fixture, nodes: &Nodes) -> Result<()> {
    let change = fixture.get(&nodes.template("version: '1'")).await?;
    fixture.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    nodes.lose(fixture, "a").await?;
    let reported = |it: &ModelAlias| has(it, Reason::Unschedulable) && !holds(it, ConditionType::Serving);
    let seen =
        fixture.champion.until_since(began, "reported as unschedulable", PATIENCE, reported).await?.object;
    ensure!(message(&seen).contains("nodeSelector"), "{}", message(&seen));
    ensure!(selected(fixture).await? == "1", "traffic moved");
    nodes.add("a").await?;
    let again = |it: &ModelAlias| is_ready(it, change.generation);
    fixture.champion.until_since(Instant::now(), "Ready again", PATIENCE, again).await?;
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.rejected.is_empty(), "the only version was rejected: {last:?}");
    fixture.until_quiet().await
}

async fn with_nodes(
    fixture: &Fixture,
    names: &[&str],
    story: impl AsyncFnOnce(&Fixture, &Nodes) -> Result<()>,
) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    let nodes = Nodes::of(fixture, names).await?;
    let result = story(fixture, &nodes).await;
    for name in names {
        nodes.remove(&nodes.name(name)).await?;
    }
    result
}

#[test]
fn promise_1_a_lost_node_affects_only_its_pods() {
    run_all([
        case("o-one", async |fixture| with_nodes(fixture, &["a", "b"], one_of_two).await),
        case("o-only", async |fixture| with_nodes(fixture, &["a"], the_only_one).await),
        case("o-nothing", async |fixture| with_nodes(fixture, &["a"], nothing_else).await),
    ]);
}
