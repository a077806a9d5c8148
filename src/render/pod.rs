//! The pod template of one version, before the user's template is merged over it.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, KeyToPath, Lifecycle,
        LifecycleHandler, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, SecretVolumeSource,
        SecurityContext, SleepAction, TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::Value;

use super::{
    HTTP, METRICS, Rendering, labels, meter,
    runtime::{self, Server},
    server::{GRACEFUL_SHUTDOWN, variable},
};
use crate::api::{
    model_alias::Serving,
    model_registry::CaReference,
    names::{ModelUri, Version},
};

/// The name of the serving container.
pub(super) const MODEL: &str = "model";
/// The variables that name the version of a pod. Only Laurel may set them.
pub(super) const IDENTITY: [&str; 4] = ["MODEL_NAME", "MODEL_VERSION", "MODEL_ALIAS", "MODEL_URI"];

/// The mount path of the registry's certificate authority.
const CA_DIRECTORY: &str = "/etc/laurel/registry-ca";
const CA_FILE: &str = "ca.crt";

/// The user `nonroot` of distroless images; other images need no entry for it. The group is left to the
/// runtime, which uses 0: images made for arbitrary users give their files to that group.
const NON_ROOT: i64 = 65532;

/// Seconds for which a terminating pod keeps answering, until every node has removed its endpoint. Then the
/// server closes its listener.
const PRE_STOP: i64 = 5;
/// Seconds after which the pod is killed: the two above, and some for the process to exit.
const GRACE_PERIOD: i64 = PRE_STOP + GRACEFUL_SHUTDOWN + 5;

/// What the pods of a version are spread over where there is room.
const SPREAD_OVER: [&str; 2] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];

/// Returns the pod template of `version`, which loads `model_uri`.
pub(super) fn template(r: &Rendering, version: Version, model_uri: &ModelUri) -> PodTemplateSpec {
    let volumes = [Some(tmp_volume()), r.registry.ca.as_ref().map(ca_volume), meter::volume(r.serving)];
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::version_labels(r, version)),
            annotations: Some(labels::version_annotations(r, model_uri)),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container(r, runtime::server(r, version, model_uri), version, model_uri)],
            volumes: Some(volumes.into_iter().flatten().collect()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(NON_ROOT),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_PERIOD),
            topology_spread_constraints: Some(SPREAD_OVER.map(|key| spread(r, version, key)).to_vec()),
            ..PodSpec::default()
        }),
    }
}

/// Spreads the pods of a version, but lets a pod start where it cannot be.
fn spread(r: &Rendering, version: Version, topology_key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(labels::selector(r.name, Some(version))),
            match_expressions: None,
        }),
        ..TopologySpreadConstraint::default()
    }
}

/// Returns the template of an arbitrary version, for validation: an error in one is an error in all.
pub(super) fn any_version(r: &Rendering) -> PodTemplateSpec {
    let version = Version::new(1).expect("1 is a version");
    let model_uri = "models:/m-0".parse().expect("it has a scheme and no white space");
    template(r, version, &model_uri)
}

fn container(r: &Rendering, server: Server, version: Version, model_uri: &ModelUri) -> Container {
    let ours = identity(r, version, model_uri).into_iter().chain(surroundings(r)).chain(server.env);
    let env_from = [r.registry.env_from.as_slice(), r.serving.env_from.as_slice()].concat();
    let mounts = [Some(tmp_mount()), r.registry.ca.as_ref().map(ca_mount), meter::mount(r.serving)];
    Container {
        name: MODEL.to_owned(),
        image: Some(r.serving.image.clone()),
        command: server.command,
        ports: Some(ports(r.serving)),
        env: Some(overridden(ours, &r.serving.env)),
        env_from: (!env_from.is_empty()).then_some(env_from),
        resources: r.serving.resources.clone(),
        startup_probe: server.probes.startup,
        readiness_probe: server.probes.readiness,
        liveness_probe: server.probes.liveness,
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: PRE_STOP }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        // The last log lines of a server that exits while loading show why; this brings them into the
        // ModelAlias's condition.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts.into_iter().flatten().collect()),
        ..Container::default()
    }
}

/// Returns the ports of the server and of its metrics. Names are unique in a container: a port of the template
/// that is called `metrics` keeps that name, so that what scraped it before still does.
fn ports(serving: &Serving) -> Vec<ContainerPort> {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let metrics = meter::metrics_port(serving).filter(|_| !names_port(serving, METRICS));
    [port(HTTP, serving.port)].into_iter().chain(metrics.map(|number| port(METRICS, number))).collect()
}

/// Whether the user's template has a port of this name in the container `model`.
fn names_port(serving: &Serving, name: &str) -> bool {
    let containers = serving.template.iter().flat_map(|template| items(&template["spec"]["containers"]));
    let model = containers.filter(|container| container["name"] == MODEL);
    model.flat_map(|container| items(&container["ports"])).any(|port| port["name"] == name)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Returns the variables that name the version, for the server and any code in the image.
fn identity(r: &Rendering, version: Version, model_uri: &ModelUri) -> [EnvVar; 4] {
    let values = [r.model.as_str(), &version.to_string(), r.alias.as_str(), model_uri.as_str()];
    std::array::from_fn(|index| variable(IDENTITY[index], values[index]))
}

/// Returns the variables that every runtime needs.
fn surroundings(r: &Rendering) -> Vec<EnvVar> {
    let mut env = vec![
        variable("HOME", "/tmp"),
        variable("MLFLOW_TRACKING_URI", r.registry.tracking_uri.as_str().trim_end_matches('/')),
    ];
    if let Some(workspace) = &r.registry.workspace {
        env.push(variable("MLFLOW_WORKSPACE", workspace));
    }
    if r.registry.ca.is_some() {
        env.push(variable("MLFLOW_TRACKING_SERVER_CERT_PATH", &format!("{CA_DIRECTORY}/{CA_FILE}")));
    }
    env
}

/// Returns `ours` without variables that `theirs` overrides, then `theirs` in order: a variable may refer to
/// earlier ones.
fn overridden(ours: impl Iterator<Item = EnvVar>, theirs: &[EnvVar]) -> Vec<EnvVar> {
    ours.filter(|our| theirs.iter().all(|their| their.name != our.name))
        .chain(theirs.iter().cloned())
        .collect()
}

fn tmp_volume() -> Volume {
    Volume { name: "tmp".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn tmp_mount() -> VolumeMount {
    VolumeMount { name: "tmp".to_owned(), mount_path: "/tmp".to_owned(), ..VolumeMount::default() }
}

fn ca_volume(ca: &CaReference) -> Volume {
    Volume {
        name: "registry-ca".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(ca.name.clone()),
            items: Some(vec![KeyToPath { key: ca.key.clone(), path: CA_FILE.to_owned(), mode: None }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn ca_mount(_: &CaReference) -> VolumeMount {
    VolumeMount {
        name: "registry-ca".to_owned(),
        mount_path: CA_DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
