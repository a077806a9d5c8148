//! What others do to our objects: which of it is taken back, and which of it is theirs.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, Namespace, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{
        apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy},
    core::NamespaceResourceScope,
};
use laurel::{api::ModelAlias, render::labels};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::settled,
};

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

/// Templates with volumes, sidecars, every kind of list that is merged by keys, and fields that Kubernetes
/// owns as a whole.
const SERVING: [&str; 2] = [
    "
version: '1'
serving:
  runtime: custom
  env: [{name: A, value: a}, {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  resources: {limits: {memory: 1Gi}, requests: {cpu: 10m, memory: 1Gi}}
  template:
    spec:
      affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {
        matchExpressions: [{key: disk, operator: Exists}]}}]}}
      initContainers: [{name: first, image: registry.example/first:1, restartPolicy: Always, securityContext: {
        allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
      imagePullSecrets: [{name: pull}]
      tolerations: [{key: gpu, operator: Exists}]
      volumes: [{name: data, emptyDir: {sizeLimit: 1Gi}}, {name: conf, configMap: {name: c, optional: true,
        items: [{key: k, path: p}]}}, {name: token, projected: {sources: [{serviceAccountToken: {path: t}}]}}]
      containers:
      - name: model
        args: [serve]
        command: [python]
        ports: [{containerPort: 9090, name: metrics}]
        volumeMounts: [{name: data, mountPath: /data}]
        readinessProbe: {httpGet: {path: /ready, port: http, httpHeaders: [{name: a, value: b}]}}
      - {name: sidecar, image: registry.example/side:1, envFrom: [{configMapRef: {name: c, optional: true}}],
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
",
    "{version: '1', serving: {templateOmit: [spec.topologySpreadConstraints], template: {spec: {nodeSelector: {}, \
     securityContext: {supplementalGroups: [1], sysctls: []}}}}}",
];

/// Whether the API server listed the applied fields as Laurel expected: then it has not corrected what it
/// expects.
fn is_listed_as_expected(deployment: &Deployment) -> bool {
    let is_written_alone = |entry: &ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| fields.0.to_string()).unwrap_or_default();
        entry.operation.as_deref() == Some("Update") && fields.contains(labels::OWNED_FIELDS)
    };
    deployment.annotations().contains_key(labels::OWNED_FIELDS)
        && !deployment.managed_fields().iter().any(is_written_alone)
}

#[test]
fn a_field_that_somebody_removes_is_put_back_and_nothing_is_written_otherwise() {
    run("drift-removed", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let deployments = fixture.api::<Deployment>();
        for serving in SERVING {
            fixture.get(serving).await?;
            let applied = deployments.get("champion-v1").await?;
            ensure!(is_listed_as_expected(&applied), "{:?}", applied.managed_fields());
            let before = settled(fixture).await?;
            ensure!(settled(fixture).await? == before, "it is written again and again");
        }
        fixture.get(SERVING[0]).await?;
        let template = deployments.get("champion-v1").await?.spec.unwrap_or_default().template;
        let removals: [&[&str]; 5] = [
            &["containers/0/readinessProbe"],
            &["containers/0/resources/limits/memory"],
            &["containers/0/env/0"],
            &["containers/1"],
            &[
                "containers/0/securityContext/allowPrivilegeEscalation",
                "containers/0/args",
                "containers/0/volumeMounts/1",
                "containers/0/lifecycle",
                "initContainers",
                "topologySpreadConstraints/0",
                "tolerations",
                "volumes/2/configMap/items",
            ],
        ];
        for fields in removals {
            let removal = |field| json!({ "op": "remove", "path": format!("/spec/template/spec/{field}") });
            let patch: Value = fields.iter().map(removal).collect();
            fixture
                .kubectl(&["patch", "deployment", "champion-v1", "--type=json", "-p", &patch.to_string()])
                .await?;
            let is_back = |it: &Deployment| it.spec.as_ref().is_some_and(|spec| spec.template == template);
            let what = format!("{fields:?} again");
            let put_back = until::<Deployment>(fixture, "champion-v1", &what, is_back).await?;
            ensure!(is_listed_as_expected(&put_back), "{fields:?}: {:?}", put_back.managed_fields());
        }
        let before = settled(fixture).await?;
        ensure!(settled(fixture).await? == before, "it is written again and again");
        Ok(())
    });
}

/// The message of the condition `Ready`, once it has this in it.
async fn ready_says(fixture: &Fixture, part: &str) -> Result<String> {
    let message = |alias: &ModelAlias| {
        let conditions = alias.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        ready.map(|ready| format!("{}: {}", ready.status, ready.message)).unwrap_or_default()
    };
    let is_said = |alias: &ModelAlias| message(alias).contains(part);
    Ok(message(&until::<ModelAlias>(fixture, "champion", part, is_said).await?))
}

#[test]
fn a_copy_of_a_deployment_is_named_and_does_not_stand_in_for_it() {
    run("drift-copy", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let mut copy = fixture.api::<Deployment>().get("champion-v1").await?;
        copy.metadata = ObjectMeta {
            name: Some("champion-v1-copy".to_owned()),
            labels: copy.metadata.labels,
            annotations: copy.metadata.annotations,
            owner_references: copy.metadata.owner_references,
            ..ObjectMeta::default()
        };
        copy.spec.get_or_insert_default().replicas = Some(0);
        fixture.api::<Deployment>().create(&PostParams::default(), &copy).await?;
        ready_says(fixture, "champion-v1-copy").await?;
        fixture.desired("{version: '1', serving: {replicas: 3}}").await?;
        let has = |size| move |it: &Deployment| it.spec.as_ref().and_then(|spec| spec.replicas) == Some(size);
        until::<Deployment>(fixture, "champion-v1", "the size", has(3)).await?;
        let copy = fixture.api::<Deployment>().get("champion-v1-copy").await?;
        ensure!(has(0)(&copy), "the copy was scaled");
        fixture.api::<Deployment>().delete("champion-v1-copy", &DeleteParams::default()).await?;
        ready_says(fixture, "True: version 1 serves").await.map(drop)
    });
}

/// Rejects writes to one kind of object in the namespace where this expression is false, until it is deleted
/// with the namespace.
pub(crate) async fn forbid(fixture: &Fixture, group: &str, resource: &str, expression: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(fixture.world.cluster.client.clone());
    let uid = namespaces.get(&fixture.namespace).await?.uid();
    let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": fixture.namespace, "uid": uid }]);
    let name = format!("{resource}-{}", fixture.namespace);
    let metadata = json!({ "name": name, "ownerReferences": owner });
    let specs = [
        json!({
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": fixture.namespace } },
                "resourceRules": [{
                    "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": [resource],
                }],
            },
            "validations": [{ "expression": expression, "message": "the platform team says no" }],
        }),
        json!({ "policyName": name, "validationActions": ["Deny"] }),
    ];
    let kinds = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    for (kind, spec) in kinds.into_iter().zip(specs) {
        let manifest = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec,
        });
        fixture.apply_cluster_wide(&manifest).await?;
    }
    Ok(())
}

#[test]
fn a_budget_that_a_policy_rejects_is_reported_and_holds_up_nothing() {
    run("drift-no-budget", async |fixture| {
        forbid(fixture, "policy", "poddisruptionbudgets", "false").await?;
        let budget = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: probe}, spec: {}}";
        let began = Instant::now();
        while fixture.apply(budget).await.is_ok() {
            ensure!(began.elapsed() < PATIENCE, "the policy does not come into force");
            sleep(std::time::Duration::from_millis(200)).await;
        }
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        let message = ready_says(fixture, "not protected from disruption").await?;
        ensure!(
            message.starts_with("True: version 2 serves") && message.contains("team says no"),
            "{message}"
        );
        fixture.event("ApplyRefused").await
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
        orphan(fixture).await?;
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

/// Deletes the ModelAlias and leaves its objects.
async fn orphan(fixture: &Fixture) -> Result<()> {
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    let champion = fixture.api::<ModelAlias>().get("champion").await?;
    fixture.api::<ModelAlias>().delete("champion", &params).await?;
    fixture.gone(&fixture.api::<ModelAlias>(), &champion, PATIENCE).await
}

#[test]
fn what_was_created_for_another_alias_is_not_adopted() {
    run("drift-other-alias", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        orphan(fixture).await?;
        fixture.desired("{version: '1', alias: challenger}").await?;
        let message = ready_says(fixture, "was created for the alias").await?;
        ensure!(message.contains("but spec.alias is \"challenger\""), "{message}");
        let deployment = fixture.api::<Deployment>().get("champion-v1").await?;
        ensure!(deployment.owner_references().is_empty(), "{:?}", deployment.owner_references());
        Ok(())
    });
}

#[test]
fn an_adoption_that_a_policy_rejects_holds_up_no_other_version() {
    run("drift-no-adoption", async |fixture| {
        fixture.registered(3).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        orphan(fixture).await?;
        let rule = "object.metadata.name != 'champion-v1' || !has(object.metadata.ownerReferences)";
        forbid(fixture, "apps", "deployments", rule).await?;
        let deployments = fixture.api::<Deployment>();
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: "n".into(),
            uid: "u".into(),
            ..OwnerReference::default()
        };
        let began = Instant::now();
        let probe = Patch::Merge(json!({ "metadata": { "ownerReferences": [owner] } }));
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        while deployments.patch("champion-v1", &dry, &probe).await.is_ok() {
            ensure!(began.elapsed() < PATIENCE, "the policy does not come into force");
            sleep(std::time::Duration::from_millis(200)).await;
        }
        fixture.desired("version: '3'").await?;
        let selects = |version: &'static str| {
            move |it: &Service| {
                let selector = it.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.and_then(|it| it.get(labels::VERSION)).is_some_and(|it| it == version)
            }
        };
        until(fixture, "champion", "version 3 gets traffic", selects("3")).await?;
        fixture.until_named("champion", Some("3")).await?;
        ready_says(fixture, "the platform team says no").await?;
        ensure!(deployments.get("champion-v1").await?.owner_references().is_empty(), "it was adopted");
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
