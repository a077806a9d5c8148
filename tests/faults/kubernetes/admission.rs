//! An admission policy changes what Laurel writes, or somebody else writes the same object over and over:
//! Laurel keeps to its fields and fights nobody.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, calm, case, run_all};
use crate::{
    fixture::Fixture,
    simulated::look::{selected, until_sizes},
    wire::Exchange,
};

/// A policy on what is written in the namespace of a fixture, in force until it is withdrawn.
struct Policy {
    policies: [Api<DynamicObject>; 2],
    name: String,
}

impl Policy {
    /// `resource` with its group is changed as the CEL expression says.
    async fn enact(fixture: &Fixture, group: &str, resource: &str, expression: &str) -> Result<Self> {
        let kinds = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];
        let policies = kinds.map(|kind| {
            let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            Api::all_with(fixture.cluster.client.clone(), &ApiResource::from_gvk(&kind))
        });
        let policy = Self { policies, name: format!("{}.laurel.test", fixture.namespace) };
        let rules = json!([{
            "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
        }]);
        let ours = json!({ "matchLabels": { "kubernetes.io/metadata.name": fixture.namespace } });
        let specs = [
            json!({
                "matchConstraints": { "namespaceSelector": ours, "resourceRules": rules },
                "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                "mutations": [{
                    "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression },
                }],
            }),
            json!({ "policyName": policy.name }),
        ];
        for ((api, kind), spec) in policy.policies.iter().zip(kinds).zip(specs) {
            let object = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": { "name": policy.name, "labels": { "laurel.dev/throwaway": "faults-test" } }, "spec": spec,
            });
            api.patch(&policy.name, &PatchParams::apply("kubectl"), &Patch::Apply(object)).await?;
        }
        Ok(policy)
    }

    async fn withdraw(&self) -> Result<()> {
        for api in &self.policies {
            api.delete(&self.name, &DeleteParams::default()).await?;
        }
        Ok(())
    }

    /// Withdraws those of runs that ended without doing so.
    async fn sweep(&self) -> Result<()> {
        for api in &self.policies {
            let left = ListParams::default().labels("laurel.dev/throwaway=faults-test");
            for old in api.list_metadata(&left).await? {
                let run = old.name_any();
                let run =
                    run.trim_end_matches(".laurel.test").rsplit('-').next().unwrap_or_default().to_owned();
                if !std::path::Path::new("/proc").join(run).exists() {
                    api.delete(&old.name_any(), &DeleteParams::default()).await?;
                }
            }
        }
        Ok(())
    }
}

/// Waits until the policy is in force: by writes of the test's own, of an object that nobody else looks at.
async fn in_force(fixture: &Fixture, probe: &str, changed: impl Fn(&Value) -> bool) -> Result<()> {
    let manifest: Value = serde_yaml::from_str(probe)?;
    let kind = manifest["kind"].as_str().unwrap_or_default();
    let group = manifest["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = group.split_once('/').unwrap_or(("", group));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> =
        Api::namespaced_with(fixture.cluster.client.clone(), &fixture.namespace, &resource);
    let began = Instant::now();
    loop {
        let dry = PatchParams::apply("kubectl").dry_run();
        let written = api.patch("probe", &dry, &Patch::Apply(&manifest)).await?;
        if changed(&serde_json::to_value(written)?) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the policy does not come into force");
        sleep(Duration::from_millis(200)).await;
    }
}

/// A promotion, a rollback and rest, while everything that Laurel writes is changed.
async fn goes_on(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    for version in ["1", "2", "1"] {
        let began = Instant::now();
        fixture.get(&format!("version: '{version}'")).await?;
        ensure!(selected(fixture).await? == version, "traffic is not on version {version}");
        let writes = |exchange: &Exchange| exchange.write.is_some() && !exchange.path.contains("/status?");
        calm(fixture, began, writes)?;
    }
    fixture.until_named("champion", Some("1")).await?;
    until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
    fixture.until_quiet().await?;
    let quiet = fixture.journal.count();
    fixture.operator.restart().await?;
    fixture.until_quiet().await?;
    ensure!(
        fixture.journal.count() == quiet,
        "another operator wrote:\n{}",
        fixture.journal.writes_since(fixture.began)
    );
    Ok(())
}

/// A policy gives every Service session affinity and an annotation.
async fn service_policy(fixture: &Fixture) -> Result<()> {
    let expression = "Object{metadata: Object.metadata{annotations: {'example.org/seen': 'yes'}}, \
                      spec: Object.spec{sessionAffinity: 'ClientIP'}}";
    let policy = Policy::enact(fixture, "", "services", expression).await?;
    policy.sweep().await?;
    let probe = "{apiVersion: v1, kind: Service, metadata: {name: probe}, spec: {ports: [{port: 80}]}}";
    in_force(fixture, probe, |service| service["spec"]["sessionAffinity"] == "ClientIP").await?;
    let went = goes_on(fixture).await;
    policy.withdraw().await?;
    went?;
    let service: Service = fixture.api().get("champion").await?;
    let affinity = service.spec.context("no spec")?.session_affinity;
    ensure!(affinity.as_deref() == Some("ClientIP"), "the policy's field was taken back");
    Ok(())
}

/// A policy rewrites every image to a mirror and adds a label, as many do.
async fn deployment_policy(fixture: &Fixture) -> Result<()> {
    let expression = "Object{metadata: Object.metadata{labels: {'example.org/team': 'risk'}}, spec: \
                      Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
                      object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers{name: \
                      c.name, image: c.image.startsWith('mirror.example/') ? c.image : 'mirror.example/' + \
                      c.image})}}}}";
    let policy = Policy::enact(fixture, "apps", "deployments", expression).await?;
    let probe = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: probe}
spec:
  selector: {matchLabels: {app: probe}}
  template: {metadata: {labels: {app: probe}}, spec: {containers: [{name: model, image: 'a/b:1'}]}}
";
    let mirrored = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "mirror.example/a/b:1"
    };
    in_force(fixture, probe, mirrored).await?;
    let went = goes_on(fixture).await;
    policy.withdraw().await?;
    went?;
    for deployment in fixture.api::<Deployment>().list(&ListParams::default()).await? {
        let pod = deployment.spec.clone().and_then(|spec| spec.template.spec).context("no pod")?;
        let image = pod.containers[0].image.clone().unwrap_or_default();
        ensure!(image.starts_with("mirror.example/"), "{} runs {image}", deployment.name_any());
        ensure!(deployment.metadata.generation == Some(1), "{} was written anew", deployment.name_any());
    }
    Ok(())
}

/// Another controller goes on writing the Service back to the warm version, as soon as it sees it elsewhere.
async fn fought_over(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    let services: Api<Service> = fixture.api();
    let began = Instant::now();
    let mut writes = 0;
    while began.elapsed() < LASTING {
        if selected(fixture).await? == "2" {
            let theirs = json!({ "spec": { "selector": { "laurel.dev/version": "1" } } });
            let written = services.patch("champion", &PatchParams::default(), &Patch::Merge(theirs)).await?;
            fixture.audit.excuse(&written);
            writes += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    let ours = calm(fixture, began, |exchange| exchange.path.contains("/services/champion?"))?;
    println!("  they wrote {writes} times, Laurel {ours} times");
    // The other one has stopped.
    let over = Instant::now();
    while selected(fixture).await? != "2" {
        ensure!(over.elapsed() < PATIENCE, "the Service is not back on version 2");
        sleep(Duration::from_millis(50)).await;
    }
    fixture.until_quiet().await
}

#[test]
fn promise_7_writes_of_an_admission_policy_or_another_client_cause_no_endless_writes() {
    run_all([
        case("a-service", async |fixture| service_policy(fixture).await),
        case("a-deployment", async |fixture| deployment_policy(fixture).await),
        case("a-fight", async |fixture| fought_over(fixture).await),
    ]);
}
