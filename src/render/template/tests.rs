//! Merging, by example.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, PodSpec},
};
use pretty_assertions::assert_eq;
use serde_json::Value;

use crate::render::{
    Applicable, InvalidTemplate, deployment,
    fixture::{Fixture, model_uri, version},
    mounts_meter, validate,
};

pub(super) fn render(fixture: &Fixture) -> Result<Deployment, InvalidTemplate> {
    applied(fixture).map(|applied| applied.object)
}

fn applied(fixture: &Fixture) -> Result<Applicable<Deployment>, InvalidTemplate> {
    let rendered = deployment(&fixture.rendering(), version(4), &model_uri(), 1, Timestamp::UNIX_EPOCH);
    assert_eq!(validate(&fixture.rendering()), rendered.clone().map(drop), "validate and rendering agree");
    rendered
}

/// Returns the pod template as sent to the API server.
fn sent(template: &str) -> Value {
    let applied = serde_json::to_value(applied(&with(yaml(template))).unwrap()).unwrap();
    applied["spec"]["template"].clone()
}

/// Returns the fixture with these paths in `templateOmit`.
fn omitting(paths: &[&str], template: &str) -> Fixture {
    let mut fixture = Fixture::serving(template);
    let serving = fixture.spec.serving.as_mut().unwrap();
    serving.template_omit = paths.iter().map(|path| (*path).to_owned()).collect();
    fixture
}

/// Returns the fixture with this as `serving.template`.
pub(super) fn with(template: Value) -> Fixture {
    let mut fixture = Fixture::serving("");
    fixture.spec.serving.as_mut().unwrap().template = Some(template);
    fixture
}

fn yaml(template: &str) -> Value {
    serde_yaml::from_str(template).unwrap()
}

fn pod(template: &str) -> PodSpec {
    let deployment = render(&with(yaml(template))).unwrap();
    deployment.spec.unwrap().template.spec.unwrap()
}

fn model(container: &str) -> Container {
    let pod = pod(&format!("spec: {{containers: [{{name: model, {container}}}]}}"));
    pod.containers.into_iter().find(|container| container.name == "model").unwrap()
}

/// Asserts the path of each error.
fn errors(fixture: &Fixture) -> Vec<String> {
    let invalid = render(fixture).expect_err("rendering should fail");
    invalid.0.into_iter().map(|error| error.path).collect()
}

fn rejected(template: &str, paths: &[&str]) {
    let paths: Vec<_> = paths.iter().map(|path| format!("serving.template{path}")).collect();
    assert_eq!(errors(&with(yaml(template))), paths, "{template}");
}

#[test]
fn adds_and_changes() {
    let pod = pod("
metadata: {labels: {team: risk}, annotations: {sidecar.istio.io/inject: 'false'}}
spec:
  nodeSelector: {pool: gpu}
  terminationGracePeriodSeconds: 300
  securityContext: {fsGroup: 1000}
  initContainers: [{name: warm, image: warm:1}]
  containers:
  - name: model
    env: [{name: TZ, value: UTC}, {name: HOME, value: /work}]
    volumeMounts: [{name: cache, mountPath: /cache}]
  - {name: proxy, image: proxy:1}
  volumes: [{name: cache, emptyDir: {}}]");
    let names: Vec<_> = pod.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["model", "proxy"]);
    assert_eq!(pod.volumes.unwrap().len(), 3);
    assert_eq!(pod.containers[0].volume_mounts.as_ref().unwrap().len(), 3);
    assert_eq!(pod.termination_grace_period_seconds, Some(300));
    let security = pod.security_context.unwrap();
    assert_eq!((security.fs_group, security.run_as_non_root), (Some(1000), Some(true)));
    let env = pod.containers[0].env.as_ref().unwrap();
    assert_eq!(env.iter().filter(|variable| variable.name == "HOME").count(), 1);
}

#[test]
fn a_list_without_keys_is_replaced() {
    let model = model("command: [opentelemetry-instrument, uvicorn]");
    assert_eq!(model.command.unwrap(), ["opentelemetry-instrument", "uvicorn"]);
}

#[test]
fn an_alternative_replaces_the_rendered_one() {
    let readiness = model("readinessProbe: {exec: {command: ['true']}}").readiness_probe.unwrap();
    assert!(readiness.exec.is_some() && readiness.http_get.is_none());
    assert_eq!(readiness.period_seconds, Some(2), "the rest of the probe stays");

    let pre_stop =
        model("lifecycle: {preStop: {exec: {command: [wait]}}}").lifecycle.unwrap().pre_stop.unwrap();
    assert!(pre_stop.exec.is_some() && pre_stop.sleep.is_none());

    let home = model("env: [{name: HOME, valueFrom: {configMapKeyRef: {name: c, key: k}}}]").env.unwrap();
    assert!(home.iter().find(|variable| variable.name == "HOME").unwrap().value.is_none());

    let volumes =
        pod("spec: {volumes: [{name: tmp, persistentVolumeClaim: {claimName: c}}]}").volumes.unwrap();
    assert!(volumes[0].persistent_volume_claim.is_some() && volumes[0].empty_dir.is_none());
}

#[test]
fn ports_with_different_protocols_are_different() {
    let ports = model("ports: [{containerPort: 8080, protocol: UDP, name: quic}]").ports.unwrap();
    assert_eq!(ports.len(), 3);
}

#[test]
fn null_removes() {
    assert_eq!(model("livenessProbe: null").liveness_probe, None);
    let security = pod("spec: {securityContext: {runAsUser: null}}").security_context.unwrap();
    assert_eq!((security.run_as_user, security.run_as_non_root), (None, Some(true)));
}

/// Editors, `kubectl` and Helm leave these behind; they have no meaning.
#[test]
fn harmless_leftovers_are_ignored() {
    let plain = sent("{}");
    for leftover in [
        "metadata: {}",
        "metadata: null",
        "metadata: {creationTimestamp: null, labels: null, annotations: null}",
        "spec: null",
        "spec: {}",
        "status: {}",
        "spec: {affinity: null, nodeSelector: null, volumes: [], initContainers: null}",
        "spec: {affinity: {nodeAffinity: null}}",
        "spec: {containers: [{name: model, resources: null, workingDir: null}]}",
    ] {
        let mut sent = sent(leftover);
        for (field, empty) in [("affinity", Value::from(serde_json::Map::new()))] {
            if sent["spec"][field] == empty {
                sent["spec"].as_object_mut().unwrap().remove(field);
            }
        }
        let settings = plain["metadata"]["annotations"]["laurel.dev/settings"].clone();
        sent["metadata"]["annotations"]["laurel.dev/settings"] = settings;
        assert_eq!(sent, plain, "{leftover}");
    }
}

/// The cluster may be newer than the types that Laurel is compiled with. The API server rejects unknown
/// fields.
#[test]
fn unknown_fields_are_passed_on() {
    let sent = sent(
        "{spec: {hostnameOverride: crown, containers: [{name: x, image: i, livenessProbe: {httpGet: {pth: \
         /}}},
          {name: model, restartPolicyRules: [{action: Restart}]}]}}",
    );
    let containers = &sent["spec"]["containers"];
    assert_eq!(sent["spec"]["hostnameOverride"], "crown");
    assert_eq!(containers[0]["name"], "model");
    assert_eq!(containers[0]["restartPolicyRules"][0]["action"], "Restart");
    assert!(containers[0]["image"].is_string(), "what Laurel renders is still there");
    assert_eq!(containers[1]["livenessProbe"]["httpGet"]["pth"], "/");
}

#[test]
fn a_null_in_an_unknown_field_is_an_error() {
    rejected(
        "spec: {containers: [{name: model, livenesProbe: null}]}",
        &[".spec.containers[0].livenesProbe"],
    );
    rejected("metadata: {labels: {a: b}, lables: null}", &[".metadata.lables"]);
}

/// Unlike a null in the template, which `kubectl apply` drops.
#[test]
fn a_path_removes_what_is_rendered() {
    let omitted = |paths: &[&str]| {
        let deployment = render(&omitting(paths, "")).unwrap();
        deployment.spec.unwrap().template.spec.unwrap()
    };
    let pod = omitted(&["spec.containers[model].livenessProbe", "spec.securityContext.runAsUser"]);
    assert_eq!(pod.containers[0].liveness_probe, None);
    assert!(pod.containers[0].startup_probe.is_some());
    let security = pod.security_context.unwrap();
    assert_eq!((security.run_as_user, security.run_as_non_root), (None, Some(true)));
    let pod = omitted(&["spec.volumes[tmp]", "spec.containers[model].volumeMounts[/tmp]"]);
    assert!(pod.volumes.iter().flatten().all(|volume| volume.name != "tmp"));
    assert!(pod.containers[0].volume_mounts.iter().flatten().all(|mount| mount.mount_path != "/tmp"));
    let pod = omitted(&["spec.containers[model].env[HOME]", r#"spec["enableServiceLinks"]"#]);
    assert!(pod.containers[0].env.iter().flatten().all(|variable| variable.name != "HOME"));
    assert_eq!(pod.enable_service_links, None);
}

#[test]
fn the_meter_can_be_omitted() {
    let paths = [
        "spec.volumes[laurel-meter]",
        "spec.containers[model].volumeMounts[/etc/laurel/meter]",
        "spec.containers[model].ports[9464]",
    ];
    let with_meter = render(&omitting(&[], "")).unwrap();
    assert!(mounts_meter(&with_meter));
    let without = render(&omitting(&paths, "")).unwrap();
    assert!(!mounts_meter(&without));
    let pod = without.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.volumes.unwrap().len(), 1);
    assert_eq!(pod.containers[0].volume_mounts.as_ref().unwrap().len(), 1);
    assert_eq!(pod.containers[0].ports.as_ref().unwrap().len(), 1);
}

#[test]
fn an_omitted_field_can_be_set_again() {
    let probe =
        "template: {spec: {containers: [{name: model, readinessProbe: {exec: {command: ['true']}}}]}}";
    let pod = render(&omitting(&["spec.containers[model].readinessProbe"], probe)).unwrap();
    let readiness = pod.spec.unwrap().template.spec.unwrap().containers[0].readiness_probe.clone().unwrap();
    assert!(readiness.exec.is_some() && readiness.http_get.is_none());
    assert_eq!(readiness.period_seconds, None, "nothing is merged with what was left out");
}

#[test]
fn a_path_that_matches_nothing_is_rejected() {
    for path in [
        "spec.containers[model].livenesProbe",
        "spec.containers[other].livenessProbe",
        "spec.containers.model",
        "spec.affinity",
        "spec.containers[model].command[0]",
        "specs",
        "spec..containers",
        "spec.containers[model",
        "",
    ] {
        let errors = errors(&omitting(&["spec.containers[model].livenessProbe", path], ""));
        assert_eq!(errors, ["serving.templateOmit[1]"], "{path}");
    }
}

#[test]
fn a_path_cannot_remove_what_laurel_needs() {
    for path in [
        "spec.containers[model]",
        "spec.containers[model].readinessProbe",
        "spec.containers[model].ports",
        "spec.containers[model].env[MODEL_URI]",
        r#"metadata.labels["laurel.dev/version"]"#,
        "metadata",
        "spec",
    ] {
        let errors = errors(&omitting(&[path], ""));
        assert_eq!(errors, ["serving.templateOmit"], "{path}");
    }
}

#[test]
fn a_wrong_type_is_reported_with_its_path() {
    rejected("spec: {terminationGracePeriodSeconds: long}", &[".spec.terminationGracePeriodSeconds"]);
    rejected("spec: {containers: {name: model}}", &[".spec.containers"]);
    rejected(
        "spec: {containers: [{name: ok}, {name: model, args: [a, 1]}]}",
        &[".spec.containers[1].args[1]"],
    );
    rejected("metadata: {labels: {a.b/c: 1}}", &[".metadata.labels[\"a.b/c\"]"]);
    rejected("[]", &[""]);
    rejected("spec: {containers: [null]}", &[".spec.containers[0]"]);
}

#[test]
fn items_need_a_unique_key() {
    rejected("spec: {containers: [{image: x}]}", &[".spec.containers[0]"]);
    rejected("spec: {containers: [{name: a}, {name: a}]}", &[".spec.containers[1]"]);
    rejected(
        "spec: {containers: [{name: a, env: [{name: A}, {name: A}, {value: b}]}]}",
        &[".spec.containers[0].env[1]", ".spec.containers[0].env[2]"],
    );
}

#[test]
fn variables_that_name_the_version_or_are_of_the_meter_cannot_be_changed() {
    rejected("metadata: {labels: {laurel.dev/version: '5'}}", &[".metadata.labels[\"laurel.dev/version\"]"]);
    rejected("metadata: {annotations: {laurel.dev/x: ''}}", &[".metadata.annotations[\"laurel.dev/x\"]"]);
    pod("metadata: {labels: null, annotations: null}");
    rejected("metadata: {name: x}", &[".metadata.name"]);
    for variable in ["MODEL_NAME", "MODEL_VERSION", "MODEL_ALIAS", "MODEL_URI", "__pyfunc_model_path__"] {
        let template =
            format!("spec: {{containers: [{{name: model, env: [{{name: {variable}, value: x}}]}}]}}");
        rejected(&template, &[".spec.containers[0].env[0].name"]);
        let fixture = Fixture::serving(&format!("env: [{{name: A}}, {{name: {variable}, value: x}}]"));
        assert_eq!(errors(&fixture), ["serving.env[1].name"]);
    }
    for variable in ["LAUREL_METRICS_PORT", "LAUREL_PREDICTIONS"] {
        let env = format!("env: [{{name: {variable}, value: x}}]");
        for runtime in ["mlflow", "mlserver"] {
            let fixture = Fixture::serving(&format!("runtime: {runtime}\n{env}"));
            assert_eq!(errors(&fixture), ["serving.env[0].name"]);
        }
        rejected(
            &format!("spec: {{containers: [{{name: model, {env}}}]}}"),
            &[".spec.containers[0].env[0].name"],
        );
    }
    rejected("spec: {containers: [{name: model, env: null}]}", &[".spec.containers"]);
    rejected(
        "spec: {containers: [{name: model, env: [{name: MODEL_URI, value: null}]}]}",
        &[".spec.containers[0].env[0].name"],
    );
}

#[test]
fn labels_that_the_service_selects_cannot_be_changed() {
    rejected(
        "spec: {containers: [{name: model, ports: [{containerPort: 8080, name: web}]}]}",
        &[".spec.containers"],
    );
    rejected(
        "spec: {containers: [{name: model, ports: [{containerPort: 9090, name: http}]}]}",
        &[".spec.containers"],
    );
    rejected("spec: {containers: [{name: model, ports: null}]}", &[".spec.containers"]);
    rejected("spec: {containers: null}", &[".spec.containers"]);
    rejected("spec: {containers: [{name: model, readinessProbe: null}]}", &[".spec.containers"]);
    rejected("spec: {restartPolicy: Never}", &[".spec.restartPolicy"]);
}

#[test]
fn fields_that_would_be_ignored_are_rejected() {
    rejected(
        "spec: {containers: [{name: model, envFrom: [{secretRef: {name: s}}]}]}",
        &[".spec.containers[0].envFrom"],
    );
    let fixture = Fixture::serving(
        "keepAlive: Enabled\ntemplate: {spec: {containers: [{name: model, command: [serve]}]}}",
    );
    assert_eq!(errors(&fixture), ["serving.template.spec.containers[0].command"]);
    let fixture = Fixture::serving(
        "metrics: {predictions: Numbers}\ntemplate: {spec: {containers: [{name: model, command: [serve]}]}}",
    );
    assert_eq!(errors(&fixture), ["serving.template.spec.containers[0].command"]);
    assert_eq!(errors(&Fixture::serving("env: [{name: A}, {name: A}]")), ["serving.env[1].name"]);
}

#[test]
fn a_custom_server_needs_a_readiness_probe() {
    let message = render(&Fixture::serving("runtime: custom")).unwrap_err().to_string();
    assert_eq!(
        message,
        "serving.template.spec.containers: runtime custom needs a readinessProbe on the container model, so \
         that traffic reaches only a server that can answer; add it"
    );
}

#[test]
fn messages_name_the_path_and_the_next_step() {
    insta::assert_snapshot!(
        render(&omitting(&["spec.containers[model].livenesProbe", "spec.containers[model].ports"], ""))
            .unwrap_err()
    );
    insta::assert_snapshot!(render(&with(yaml("spec: {priority: high}"))).unwrap_err());
}
