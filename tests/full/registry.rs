//! The alias in MLflow and the serving version: which follows which, and what happens while MLflow is
//! unreachable.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, api::ListParams};
use laurel::api::{ModelRegistry, condition::Reason};
use serde_json::json;
use tokio::time::{Instant, interval, timeout};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::{alias, mlflow::SERVICE, watch::Watch},
};

/// Several times the poll interval of the tests.
const A_FEW_POLLS: Duration = Duration::from_secs(20);

/// How long kube-proxy may take to send a client's requests where the Service points.
const PROGRAMMED: Duration = Duration::from_secs(1);

#[test]
fn promise_4_the_alias_moves_only_after_the_version_serves_and_is_corrected_when_moved_by_hand() {
    run("alias", 3, async |fixture| {
        fixture.good_versions(2).await?;
        let desired = |version| json!({ "version": version, "previousAlias": "previous" });
        fixture.get(desired("1")).await?;
        ensure!(named(fixture, "champion").await? == "1", "the alias is not set");
        let clients = fixture.clients().await?;

        let change = fixture.desired(desired("2")).await?;
        let moved = alias_names(fixture, "champion", "2", PATIENCE).await?;
        let service = ["get", "service", "champion", "-o", r"jsonpath={.spec.selector.laurel\.dev/version}"];
        let selected = fixture.kubectl(&service, None).await?;
        ensure!(selected == "2", "the alias moved while the Service selected version {selected}");
        fixture.champion.ready(change, PATIENCE).await?;
        clients.until_answered_by(change.accepted, "2").await;
        let served =
            clients.since(change.accepted).first_answer_by("2").context("version 2 never answered")?;
        ensure!(
            served < moved + PROGRAMMED,
            "the alias moved {:?} before a client was answered by version 2",
            served - moved
        );
        ensure!(
            named(fixture, "previous").await? == "1",
            "previousAlias is not on the version that served before"
        );

        fixture.mlflow.set_alias(&fixture.model, "champion", "1").await?;
        alias_names(fixture, "champion", "2", A_FEW_POLLS).await.context("drift is not corrected")?;
        fixture.mlflow.delete_alias(&fixture.model, "champion").await?;
        alias_names(fixture, "champion", "2", A_FEW_POLLS)
            .await
            .context("a deleted alias is not set again")?;
        clients.stay_on(moved + Duration::from_secs(1), "2").await?;
        clients.leave().await.map(drop)
    });
}

#[test]
fn promise_6_an_alias_moved_in_mlflow_is_followed_and_a_rejected_version_stays_rejected() {
    run("follow", 3, async |fixture| {
        fixture.good_versions(2).await?;
        let crashing = fixture.mlflow.version_from_nowhere(&fixture.model).await?;
        fixture.mlflow.set_alias(&fixture.model, "champion", "1").await?;
        let follow = json!({ "follow": { "registry": {} }, "rollout": { "progressDeadline": "30s" } });
        let change = fixture.get(follow).await?;
        let clients = fixture.clients().await?;

        let asked = Instant::now();
        fixture.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        let followed = fixture
            .champion
            .until("Ready with version 2", PATIENCE, |malias| {
                alias::is_ready(malias, change.generation) && alias::version(malias) == "2"
            })
            .await?;
        println!("  followed {:?} after the alias was moved in MLflow", followed.at - asked);

        let first = rejected(fixture, &crashing).await?;
        ensure!(named(fixture, "champion").await? == "2", "the alias is not put back on what serves");
        tokio::time::sleep_until(Instant::now() + A_FEW_POLLS).await; // Time itself is the subject.
        let again = fixture.pods.started_since(first);
        ensure!(again.is_empty(), "the rejected version was retried by itself: {again:?}");
        ensure!(named(fixture, "champion").await? == "2", "the alias was moved again by itself");

        let asked = Instant::now();
        fixture.mlflow.set_alias(&fixture.model, "champion", &crashing).await?;
        fixture.pods.until_since(asked, "it is retried on request", PATIENCE).await?;
        let thought_better = Instant::now();
        fixture.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        fixture
            .champion
            .until_since(thought_better, "Ready again", PATIENCE, |malias| {
                alias::is_ready(malias, change.generation)
            })
            .await?;
        clients.stay_on(first, "2").await?;
        clients.leave().await.map(drop)
    });
}

/// Requests a version by the alias and waits until it is rejected and the alias is put back. Returns when.
async fn rejected(fixture: &Fixture, version: &str) -> Result<Instant> {
    let asked = Instant::now();
    fixture.mlflow.set_alias(&fixture.model, "champion", version).await?;
    let is_it =
        |malias: &_| alias::status(malias).rejected.iter().any(|each| each.version.to_string() == version);
    fixture.champion.until_since(asked, "the version is rejected", PATIENCE, is_it).await?;
    alias_names(fixture, "champion", "2", A_FEW_POLLS).await
}

#[test]
fn promises_3_and_9_without_the_registry_serving_continues_and_deletion_does_not_hang() {
    run("away", 2, async |fixture| {
        fixture.good_versions(2).await?;
        let line = Line::to_mlflow(fixture).await?;
        fixture.name_registry(&line.url).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let cut = Instant::now();
        line.cut(fixture).await?;
        let registries: Api<ModelRegistry> =
            Api::namespaced(fixture.cluster.client.clone(), &fixture.namespace);
        Watch::of(registries, "mlflow")
            .until("the ModelRegistry reports it", PATIENCE, |seen| {
                let conditions = seen.object.status.as_ref().map(|status| &status.conditions);
                conditions.is_some_and(|all| all.iter().any(|each| each.reason == "RegistryUnreachable"))
            })
            .await?;
        let change = fixture.desired(json!({ "version": "2" })).await?;
        fixture.champion.reason(change, Reason::RegistryUnreachable, PATIENCE).await?;
        ensure!(fixture.pods.started_since(cut).is_empty(), "pods were started without the registry");
        clients.stay_on(cut, "1").await?;
        clients.leave().await?;

        let deleted = Instant::now();
        fixture.cluster.terminate_namespace(&fixture.namespace).await?;
        println!("  the namespace was gone after {:?}", deleted.elapsed());
        Ok(())
    });
}

/// A connection from this namespace to MLflow that can be cut without affecting other tests.
struct Line {
    url: String,
}

impl Line {
    async fn to_mlflow(fixture: &Fixture) -> Result<Self> {
        let client = fixture.cluster.client.clone();
        let (namespace, service) = SERVICE;
        let of_mlflow = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&of_mlflow).await?;
        let address =
            slices.items.iter().flat_map(|slice| &slice.endpoints).flat_map(|each| &each.addresses).next();
        let address = address.context("MLflow has no endpoint")?;
        let port = json!([{ "name": "http", "port": 5000 }]);
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "line" }, "spec": { "ports": port } },
            { "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
              "metadata": { "name": "line", "labels": { "kubernetes.io/service-name": "line" } },
              "addressType": "IPv4", "ports": port, "endpoints": [{ "addresses": [address] }] },
        ] });
        fixture.apply(&objects.to_string()).await?;
        let line = Api::<Service>::namespaced(client, &fixture.namespace).get("line").await?;
        let ip = line.spec.and_then(|spec| spec.cluster_ip).context("a Service has an IP")?;
        Ok(Self { url: format!("http://{ip}:5000") })
    }

    async fn cut(&self, fixture: &Fixture) -> Result<()> {
        fixture.kubectl(&["delete", "endpointslice", "line"], None).await.map(drop)
    }
}

async fn named(fixture: &Fixture, alias: &str) -> Result<String> {
    Ok(fixture.mlflow.alias(&fixture.model, alias).await?.unwrap_or_default())
}

/// Waits until the alias names a version. Returns when that was first seen.
async fn alias_names(fixture: &Fixture, alias: &str, version: &str, deadline: Duration) -> Result<Instant> {
    let mut looks = interval(Duration::from_millis(100));
    let found = async {
        loop {
            looks.tick().await;
            if named(fixture, alias).await? == version {
                return Ok(Instant::now());
            }
        }
    };
    timeout(deadline, found).await.with_context(|| format!("@{alias} does not name version {version}"))?
}
