//! Tests of whole rendered objects.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, PodSpec, SecurityContext},
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{
    Selection, ServiceRendering, deployment, endpoint,
    fixture::{Fixture, model_uri, version},
    http_route, labels, meter, metrics_port, mounts_meter, service, validate, version_service,
};
use crate::{
    api::{names::hex, traffic::TrafficSpec},
    decide::Shares,
};

fn deploy(fixture: &Fixture) -> Deployment {
    deployment(&fixture.rendering(), version(4), &model_uri(), 2, Timestamp::UNIX_EPOCH).unwrap().object
}

fn pod(deployment: &Deployment) -> &PodSpec {
    deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn model(deployment: &Deployment) -> &Container {
    &pod(deployment).containers[0]
}

/// Returns the variables of the container `model` that have a plain value.
fn env(deployment: &Deployment) -> BTreeMap<&str, &str> {
    let env = model(deployment).env.iter().flatten();
    env.filter_map(|variable| Some((variable.name.as_str(), variable.value.as_deref()?))).collect()
}

const CUSTOM: &str = "
runtime: custom
template:
  spec:
    containers:
    - name: model
      readinessProbe: {httpGet: {path: /ready, port: http}}";

#[test]
fn snapshot_of_mlflow() {
    insta::assert_yaml_snapshot!(deploy(&Fixture::serving("replicas: 2")));
}

#[test]
fn snapshot_of_mlserver() {
    insta::assert_yaml_snapshot!(deploy(&Fixture::serving("runtime: mlserver\nport: 9000")));
}

#[test]
fn snapshot_of_custom() {
    insta::assert_yaml_snapshot!(deploy(&Fixture::serving(CUSTOM)));
}

#[test]
fn snapshot_of_a_registry_with_everything() {
    let fixture = Fixture::serving("envFrom: [{configMapRef: {name: tuning}}]").with_registry(|registry| {
        registry.tracking_uri = "https://mlflow.example/tracking/".parse().unwrap();
        registry.workspace = Some("team-a".into());
        registry.ca = Some(serde_yaml::from_str("{name: corp-ca}").unwrap());
        registry.env_from = serde_yaml::from_str("[{secretRef: {name: artifact-store}}]").unwrap();
    });
    insta::assert_yaml_snapshot!(model(&deploy(&fixture)));
    insta::assert_yaml_snapshot!(pod(&deploy(&fixture)).volumes);
}

#[test]
fn snapshot_of_the_service() {
    insta::assert_yaml_snapshot!(service(
        &Fixture::serving("").rendering().service(),
        Selection::One(version(4))
    ));
}

#[test]
fn a_shared_service_selects_every_version() {
    let service = service(&Fixture::serving("").rendering().service(), Selection::Shared);
    let selector = service.spec.unwrap().selector.unwrap();
    assert_eq!(selector, [(labels::MODEL_ALIAS.to_owned(), "fraud-champion".to_owned())].into());
}

#[test]
fn the_endpoint_names_the_service_and_its_port() {
    let fixture = Fixture::serving("port: 9000");
    assert_eq!(endpoint(&fixture.rendering().service()), "http://fraud-champion.risk.svc:9000/invocations");
}

#[test]
fn another_port_changes_neither_the_route_nor_the_services_that_it_names() {
    let traffic: TrafficSpec = serde_yaml::from_str("gateway: {parentRefs: [{name: public}]}").unwrap();
    let routed = |serving: &str| {
        let fixture = Fixture::serving(serving);
        let rendering = fixture.rendering();
        let rendering = ServiceRendering { traffic: Some(&traffic), ..rendering.service() };
        let route = http_route(&rendering, &Shares::led_by(version(4), [version(3)])).unwrap();
        (route.spec, version_service(&rendering, version(4)).spec)
    };
    let (route, service) = routed("port: 9000");
    assert_eq!((&route, &service), (&routed("port: 8080").0, &routed("port: 8080").1));
    let ports = service.unwrap().ports.unwrap();
    assert!(route.rules[0].backend_refs.iter().all(|backend| backend.port == Some(ports[0].port)));
}

#[test]
fn connections_stay_open_only_on_request() {
    for runtime in ["mlflow", "mlserver"] {
        let closes = |keep_alive: &str| {
            let fixture = Fixture::serving(&format!("runtime: {runtime}\n{keep_alive}"));
            let command = model(&deploy(&fixture)).command.clone().unwrap();
            assert!(command.iter().any(|argument| argument.ends_with("Model-Version:4")));
            command.iter().any(|argument| argument.ends_with("Connection:close"))
        };
        assert!(closes(""));
        assert!(closes("keepAlive: Disabled"));
        assert!(!closes("keepAlive: Enabled"));
    }
}

#[test]
fn user_variables_override_ours_and_come_after_them() {
    let fixture = Fixture::serving("env: [{name: A, value: a}, {name: HOME, value: /home}]");
    let deployment = deploy(&fixture);
    let names: Vec<_> = model(&deployment).env.iter().flatten().map(|variable| &variable.name).collect();
    assert_eq!(names.iter().filter(|name| **name == "HOME").count(), 1);
    assert!(names.ends_with(&[&"A".to_owned(), &"HOME".to_owned()]));
    assert_eq!(env(&deployment)["HOME"], "/home");
}

#[test]
fn a_name_that_looks_like_a_reference_is_taken_literally() {
    let mut fixture = Fixture::serving("");
    fixture.model = "$(HOME) $".parse().unwrap();
    assert_eq!(env(&deploy(&fixture))["MODEL_NAME"], "$$(HOME) $$");
}

#[test]
fn kubernetes_expands_nothing_in_a_command() {
    for runtime in ["mlflow", "mlserver"] {
        let deployment = deploy(&Fixture::serving(&format!("runtime: {runtime}")));
        let command = model(&deployment).command.clone().unwrap();
        assert!(command.iter().all(|argument| !argument.contains('$')), "{command:?}");
    }
}

#[test]
fn pods_of_the_rendered_runtimes_count_with_a_meter_that_they_do_not_need() {
    let program = meter("risk").data.unwrap().remove("laurel_meter.py").unwrap();
    let digest = hex(&Sha256::digest(program), 64);
    for (runtime, python, port, expected) in
        [("mlflow", "python3", 8080, "9464"), ("mlserver", "python", 9464, "9465")]
    {
        let fixture =
            Fixture::serving(&format!("runtime: {runtime}\nport: {port}\nmetrics: {{predictions: Numbers}}"));
        let deployment = deploy(&fixture);
        let (env, container) = (env(&deployment), model(&deployment));
        assert_eq!((env["LAUREL_METRICS_PORT"], env["LAUREL_PREDICTIONS"]), (expected, "Numbers"));
        assert_eq!(ports(&deployment), [("http", port), ("metrics", expected.parse().unwrap())]);
        let command = container.command.as_ref().unwrap();
        assert_eq!((&command[..2], &command[3]), (&[python.to_owned(), "-c".to_owned()][..], &digest));

        let mut volumes = pod(&deployment).volumes.iter().flatten();
        let volume = volumes.find_map(|volume| Some((&volume.name, volume.config_map.as_ref()?)));
        let (volume, source) = volume.unwrap();
        assert_eq!((Some(&source.name), source.optional), (meter("risk").metadata.name.as_ref(), Some(true)));
        let mut mounts = container.volume_mounts.iter().flatten();
        let mount = mounts.find(|mount| mount.name == *volume).unwrap();
        assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/etc/laurel/meter", Some(true)));
        assert!(mounts_meter(&deployment));
    }
    for (metrics, expected) in
        [("{}", "Classes"), ("{predictions: Classes}", "Classes"), ("{predictions: Disabled}", "Off")]
    {
        let deployment = deploy(&Fixture::serving(&format!("metrics: {metrics}")));
        assert_eq!(env(&deployment)["LAUREL_PREDICTIONS"], expected);
    }
    assert_eq!(env(&deploy(&Fixture::serving("")))["LAUREL_PREDICTIONS"], "Classes");
}

/// Returns the ports of the container `model`.
fn ports(deployment: &Deployment) -> Vec<(&str, i32)> {
    let ports = model(deployment).ports.iter().flatten();
    ports.map(|port| (port.name.as_deref().unwrap_or_default(), port.container_port)).collect()
}

#[test]
fn a_custom_server_counts_by_itself_or_not_at_all() {
    let silent = deploy(&Fixture::serving(CUSTOM));
    assert_eq!(ports(&silent), [("http", 8080)]);
    let counts = deploy(&Fixture::serving(&format!("metrics: {{port: 9090, path: /stats}}{CUSTOM}")));
    assert_eq!(ports(&counts), [("http", 8080), ("metrics", 9090)]);
    for deployment in [silent, counts] {
        assert!(!mounts_meter(&deployment));
        assert!(env(&deployment).keys().all(|variable| !variable.starts_with("LAUREL_")));
    }
}

#[test]
fn the_port_of_the_metrics_is_never_the_one_of_the_server() {
    let port = |serving: &str| metrics_port(Fixture::serving(serving).spec.serving.as_ref().unwrap());
    for runtime in ["mlflow", "mlserver"] {
        assert_eq!(port(&format!("runtime: {runtime}")), Some(9464));
        assert_eq!(port(&format!("runtime: {runtime}\nport: 9464")), Some(9465));
    }
    assert_eq!(port("runtime: custom"), None);
    assert_eq!(port("runtime: custom\nmetrics: {port: 9090}"), Some(9090));
}

/// Two ports of one name in a container are not valid, and what scrapes theirs must go on finding it.
#[test]
fn a_port_of_the_template_that_is_called_metrics_keeps_its_name() {
    let port = |fields: &str| {
        let ports = format!("ports: [{{containerPort: 9090, {fields}}}]");
        let fixture = Fixture::serving(&format!(
            "template: {{spec: {{containers: [{{name: model, {ports}}}, {{name: proxy, image: i, ports: \
             [{{containerPort: 1, name: metrics}}]}}]}}}}"
        ));
        let deployment = deploy(&fixture);
        assert_eq!(env(&deployment)["LAUREL_METRICS_PORT"], "9464");
        ports_of(&deployment)
    };
    assert_eq!(port("name: metrics"), [("http".to_owned(), 8080), ("metrics".to_owned(), 9090)]);
    assert_eq!(port("name: own").last().unwrap().0, "own");
    assert_eq!(port("name: own").len(), 3, "a port of another container is another port");
}

fn ports_of(deployment: &Deployment) -> Vec<(String, i32)> {
    ports(deployment).into_iter().map(|(name, port)| (name.to_owned(), port)).collect()
}

#[test]
fn the_meter_is_one_unchanging_object_of_a_namespace() {
    let meter = meter("risk");
    let metadata = &meter.metadata;
    let name = metadata.name.as_deref().unwrap();
    let hash = name.strip_prefix("laurel-meter-").unwrap();
    assert!(hash.len() == 8 && hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    assert_eq!((metadata.namespace.as_deref(), &metadata.owner_references), (Some("risk"), &None));
    assert_eq!(metadata.labels.as_ref().unwrap()[labels::MANAGED_BY], labels::MANAGER);
    assert_eq!(meter.immutable, Some(true));
    let files: Vec<_> = meter.data.iter().flatten().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["laurel_meter.py"], "the module is imported by this name");
}

#[test]
fn a_pod_has_time_to_drain() {
    let deployment = deploy(&Fixture::serving(""));
    let grace = pod(&deployment).termination_grace_period_seconds.unwrap();
    let lifecycle = model(&deployment).lifecycle.clone().unwrap();
    let pre_stop = lifecycle.pre_stop.unwrap().sleep.unwrap().seconds;
    let command = model(&deployment).command.clone().unwrap();
    let shutdown = command.iter().find_map(|a| a.strip_prefix("--timeout-graceful-shutdown=")).unwrap();
    assert!(grace > pre_stop + shutdown.parse::<i64>().unwrap());
}

/// Returns the rules of the Pod Security Standard `restricted` that a rendered pod breaks.
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>
fn breaches(pod: &PodSpec) -> Vec<&'static str> {
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let contexts = || {
        let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
        containers.map(|container| container.security_context.clone().unwrap_or_default())
    };
    let every = |holds: fn(SecurityContext) -> bool| contexts().all(holds);
    let volumes = || pod.volumes.iter().flatten();
    let rules = [
        (
            "host namespaces",
            [pod.host_network, pod.host_pid, pod.host_ipc].iter().all(|host| *host != Some(true)),
        ),
        (
            "volume types",
            volumes().all(|volume| {
                volume.empty_dir.is_some() || volume.secret.is_some() || volume.config_map.is_some()
            }),
        ),
        ("privileged", every(|context| context.privileged != Some(true))),
        ("privilege escalation", every(|context| context.allow_privilege_escalation == Some(false))),
        (
            "capabilities",
            every(|context| {
                let capabilities = context.capabilities.unwrap_or_default();
                capabilities.drop == Some(vec!["ALL".to_owned()]) && capabilities.add.is_none()
            }),
        ),
        ("running as non-root", of_pod.run_as_non_root == Some(true)),
        ("non-root user", of_pod.run_as_user != Some(0) && every(|context| context.run_as_user != Some(0))),
        ("seccomp", of_pod.seccomp_profile.is_some_and(|profile| profile.type_ == "RuntimeDefault")),
    ];
    rules.into_iter().filter(|(_, holds)| !holds).map(|(rule, _)| rule).collect()
}

#[test]
fn pods_are_restricted() {
    let ca = |registry: &mut super::RegistryForPods| {
        registry.ca = Some(serde_yaml::from_str("{name: corp-ca}").unwrap());
    };
    for serving in ["", "runtime: mlserver", CUSTOM] {
        let deployment = deploy(&Fixture::serving(serving).with_registry(ca));
        assert_eq!(breaches(pod(&deployment)), [""; 0]);
        assert_eq!(pod(&deployment).automount_service_account_token, Some(false));
        let context = model(&deployment).security_context.as_ref().unwrap();
        assert_eq!(context.read_only_root_filesystem, Some(true));
    }
    let relaxed = "template: {spec: {securityContext: {runAsNonRoot: false}}}";
    assert_eq!(breaches(pod(&deploy(&Fixture::serving(relaxed)))), ["running as non-root"]);
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.len() <= 63
        && value.starts_with(edge)
        && value.ends_with(edge)
        && value.chars().all(|c| edge(c) || "-_.".contains(c))
}

proptest! {
    #[test]
    fn rendering_is_deterministic_and_selects_its_own_pods(
        model in "[^/:]{0,100}[^/:\\s][^/:]{0,100}",
        number in 1..=999_999_999_u32,
        replicas in any::<u32>(),
    ) {
        let mut fixture = Fixture::serving("");
        fixture.model = model.parse().unwrap();
        let r = fixture.rendering();
        let render = || deployment(&r, version(number), &model_uri(), replicas, Timestamp::UNIX_EPOCH).unwrap();
        prop_assert_eq!(render(), render());
        prop_assert!(validate(&r).is_ok());

        let spec = render().object.spec.unwrap();
        let selector = spec.selector.match_labels.unwrap();
        let metadata = spec.template.metadata.unwrap();
        let labels = metadata.labels.unwrap();
        prop_assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
        prop_assert!(labels.values().all(|value| is_label_value(value)), "{:?}", labels);
        prop_assert_eq!(&metadata.annotations.unwrap()[labels::MODEL_NAME], &model);
        let selected = service(&r.service(), Selection::One(version(number))).spec.unwrap().selector.unwrap();
        prop_assert_eq!(selected, selector);
    }
}
