//! What others do to our objects: which of it is taken back, and which of it is theirs.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, PropagationPolicy},
    core::NamespaceResourceScope,
};
use laurel::{api::ModelAlias, render::labels};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fixture::{Fixture, PATIENCE, run};

/// Waits until an object is as it should be.
async fn until<K>(fixture: &Fixture, name: &str, what: &str, is: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let began = Instant::now();
    loop {
        let object = fixture.api::<K>().get_opt(name).await?;
        if let Some(object) = object.clone().filter(|object| is(object)) {
            println!("  {what}: after {:?}", began.elapsed());
            return Ok(object);
        }
        ensure!(began.elapsed() < PATIENCE, "{what}: {object:?}");
        sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn model(deployment: &Deployment) -> Container {
    let template = deployment.spec.clone().unwrap_or_default().template;
    template.spec.unwrap_or_default().containers.into_iter().next().unwrap_or_default()
}

fn has_variable(container: &Container, name: &str) -> bool {
    container.env.iter().flatten().any(|variable| variable.name == name)
}

#[test]
fn a_target_port_that_somebody_changes_is_put_right() {
    run("drift-target", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let port = json!({ "name": "http", "port": 8080, "protocol": "TCP", "targetPort": 9999 });
        fixture.edit::<Service>("champion", json!({ "spec": { "ports": [port] } })).await?;
        let is_right = |service: &Service| {
            let ports = service.spec.clone().and_then(|spec| spec.ports).unwrap_or_default();
            ports.len() == 1
                && ports[0]
                    .target_port
                    .as_ref()
                    .is_some_and(|port| *port == IntOrString::String("http".into()))
        };
        until::<Service>(fixture, "champion", "the target port", is_right).await.map(drop)
    });
}

#[test]
fn a_service_that_somebody_makes_a_load_balancer_stays_one() {
    run("drift-type", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        let edit = json!({
            "metadata": { "annotations": { "lb.example/internal": "true" } },
            "spec": {
                "type": "LoadBalancer",
                "ports": [
                    { "name": "metrics", "port": 9090, "protocol": "TCP", "targetPort": 9090 },
                    { "name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http", "appProtocol": "http" },
                ],
            },
        });
        fixture.edit::<Service>("champion", edit).await?;
        fixture.get("version: '2'").await?;
        let service = fixture.api::<Service>().get("champion").await?;
        let spec = service.spec.clone().unwrap_or_default();
        ensure!(spec.type_.as_deref() == Some("LoadBalancer"), "its type is {:?}", spec.type_);
        let names: Vec<_> = spec.ports.iter().flatten().filter_map(|port| port.name.clone()).collect();
        ensure!(names.len() == 2 && names.contains(&"metrics".to_owned()), "its ports are {names:?}");
        ensure!(service.annotations().contains_key("lb.example/internal"), "the annotation is gone");
        Ok(())
    });
}

#[test]
fn what_somebody_changes_in_a_pod_template_is_taken_back() {
    run("drift-template", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        // Version 1 is warm, version 2 serves.
        for name in ["champion-v2", "champion-v1"] {
            let deployment = format!("deployment/{name}");
            fixture.kubectl(&["set", "env", &deployment, "DEBUG=1", "HOME=/root"]).await?;
            fixture.kubectl(&["set", "resources", &deployment, "--limits=memory=1Gi"]).await?;
            let is_right = |it: &Deployment| {
                let container = model(it);
                let home = container.env.iter().flatten().find(|variable| variable.name == "HOME");
                !has_variable(&container, "DEBUG")
                    && home.and_then(|home| home.value.as_deref()) == Some("/tmp")
                    && container.resources.is_none_or(|it| it.limits.is_none_or(|limits| limits.is_empty()))
            };
            until::<Deployment>(fixture, name, &format!("the template of {name}"), is_right).await?;
        }
        fixture.kubectl(&["rollout", "restart", "deployment/champion-v2"]).await?;
        fixture.get("{version: '2', serving: {env: [{name: NEW, value: '1'}]}}").await?;
        let deployment = fixture.api::<Deployment>().get("champion-v2").await?;
        let metadata = deployment.spec.clone().unwrap_or_default().template.metadata.unwrap_or_default();
        let is_kept =
            metadata.annotations.unwrap_or_default().contains_key("kubectl.kubernetes.io/restartedAt");
        ensure!(is_kept && has_variable(&model(&deployment), "NEW"), "the restart was taken back");
        Ok(())
    });
}

#[test]
fn what_serves_has_a_disruption_budget_that_follows_traffic_and_comes_back() {
    run("drift-budget", async |fixture| {
        fixture.registered(2).await?;
        let protects = |version: &'static str| {
            move |budget: &PodDisruptionBudget| {
                let spec = budget.spec.clone().unwrap_or_default();
                let selected = spec.selector.and_then(|selector| selector.match_labels).unwrap_or_default();
                selected.get(labels::VERSION).is_some_and(|selected| selected == version)
                    && spec.max_unavailable == Some(IntOrString::Int(1))
            }
        };
        for version in ["1", "2"] {
            fixture.get(&format!("version: '{version}'")).await?;
            let what = format!("a budget for version {version}");
            until(fixture, "champion", &what, protects(version)).await?;
        }
        fixture.edit::<PodDisruptionBudget>("champion", json!({ "spec": { "maxUnavailable": 0 } })).await?;
        until(fixture, "champion", "the budget as it was", protects("2")).await?;
        fixture.api::<PodDisruptionBudget>().delete("champion", &DeleteParams::default()).await?;
        until(fixture, "champion", "the budget again", protects("2")).await.map(drop)
    });
}

#[test]
fn a_disruption_budget_of_somebody_else_stays_the_only_one() {
    run("drift-their-budget", async |fixture| {
        let theirs = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: theirs}
spec: {minAvailable: 1, selector: {matchLabels: {laurel.dev/model-alias: champion}}}
";
        fixture.apply(theirs).await?;
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        ensure!(fixture.api::<PodDisruptionBudget>().get_opt("champion").await?.is_none(), "there are two");
        Ok(())
    });
}

#[test]
fn a_modelalias_made_anew_finds_its_objects_again() {
    run("drift-restore", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        let before = fixture.api::<Deployment>().get("champion-v2").await?;
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
        let champion = fixture.api::<ModelAlias>().get("champion").await?;
        fixture.api::<ModelAlias>().delete("champion", &params).await?;
        fixture.gone(&fixture.api::<ModelAlias>(), &champion, PATIENCE).await?;
        fixture.get("version: '2'").await?;
        let uid = fixture.api::<ModelAlias>().get("champion").await?.uid().unwrap_or_default();
        let is_owned = |owners: &[_]| {
            let mut owners = owners.iter();
            owners.any(|owner: &OwnerReference| owner.uid == uid)
        };
        let after = until::<Deployment>(fixture, "champion-v2", "the Deployment", |it| {
            is_owned(it.owner_references())
        })
        .await?;
        until::<Service>(fixture, "champion", "the Service", |it| is_owned(it.owner_references())).await?;
        ensure!(after.uid() == before.uid(), "it was made anew");
        ensure!(model(&after) == model(&before), "its pods were started again");
        Ok(())
    });
}

#[test]
fn a_previous_alias_that_is_removed_or_renamed_leaves_the_registry() {
    run("drift-previous", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("{version: '1', previousAlias: previous}").await?;
        fixture.get("{version: '2', previousAlias: previous}").await?;
        fixture.until_named("previous", Some("1")).await?;
        fixture.get("{version: '2', previousAlias: before}").await?;
        fixture.until_named("before", Some("1")).await?;
        fixture.until_named("previous", None).await?;
        fixture.get("version: '2'").await?;
        fixture.until_named("before", None).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias moved");
        Ok(())
    });
}
