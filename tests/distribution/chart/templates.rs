//! The rendered chart.

use std::collections::BTreeMap;

use clap::{CommandFactory, Parser};
use laurel::{
    cli::{Cli, Command},
    options::{LogFormat, RunOptions, WebhookScheme},
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::tools::{ALL_VALUES, NAMESPACE, Objects, documents, helm, printed, read};

const CRD: &str = "CustomResourceDefinition";

/// The three installations that the tests check.
fn installs() -> [Objects; 3] {
    [&[] as &[&str], &["--set", "scope=namespace"], &["--values", ALL_VALUES]].map(Objects::of_chart)
}

#[test]
fn the_image_is_built_with_the_pinned_compiler() {
    let pinned = read("rust-toolchain.toml");
    let channel =
        pinned.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"')).unwrap();
    let (minor, _patch) = channel.rsplit_once('.').unwrap();
    assert!(read("Dockerfile").contains(&format!("\nFROM rust:{minor}-")), "Dockerfile, rust-toolchain.toml");
}

#[test]
fn lint_finds_nothing() {
    printed(helm(&["lint", "--strict", "charts/laurel"]));
    printed(helm(&["lint", "--strict", "charts/laurel", "--values", ALL_VALUES]));
}

#[test]
fn chart_operator_and_package_have_one_version() {
    let chart = &documents(&read("charts/laurel/Chart.yaml"))[0];
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_install_brings_exactly_these_objects() {
    let [cluster, namespace, all] = installs();
    assert_eq!(
        cluster.kinds(),
        [
            "ClusterRole",
            "ClusterRoleBinding",
            CRD,
            CRD,
            CRD,
            CRD,
            CRD,
            "Deployment",
            "PodDisruptionBudget",
            "Role",
            "RoleBinding",
            "ServiceAccount"
        ]
    );
    assert_eq!(
        namespace.kinds(),
        [
            CRD,
            CRD,
            CRD,
            CRD,
            CRD,
            "Deployment",
            "PodDisruptionBudget",
            "Role",
            "Role",
            "RoleBinding",
            "RoleBinding",
            "ServiceAccount"
        ]
    );
    let policy = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];
    assert_eq!(
        all.kinds(),
        ["ClusterModelRegistry", "Deployment", policy[0], policy[1], "Service", "Service"]
    );
}

#[test]
fn every_namespaced_object_names_its_namespace() {
    for object in installs().iter().flat_map(|install| &install.0) {
        let kind = object["kind"].as_str().unwrap();
        let expected = if kind.starts_with("Cluster") || kind.starts_with("MutatingAdmission") || kind == CRD
        {
            Value::Null
        } else {
            NAMESPACE.into()
        };
        assert_eq!(object["metadata"]["namespace"], expected, "{kind}");
    }
}

#[test]
fn one_operator_acts_and_another_one_stands_by() {
    let [cluster, ..] = installs();
    let deployment = &cluster.one("Deployment")["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"], json!({ "maxUnavailable": 0, "maxSurge": 1 }));
    let pod = cluster.pod_spec();
    let env = pod["containers"][0]["env"].as_array().unwrap();
    for (name, field) in [("LAUREL_LEASE_NAMESPACE", "metadata.namespace"), ("POD_NAME", "metadata.name")] {
        let expected = json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } });
        assert!(env.contains(&expected), "{name}");
    }
    let selector = &deployment["selector"];
    let budget = &cluster.one("PodDisruptionBudget")["spec"];
    assert_eq!((&budget["selector"], &budget["maxUnavailable"]), (selector, &json!(1)));
    assert_eq!(&pod["topologySpreadConstraints"][0]["labelSelector"], selector);
    let alone = Objects::of_chart(&["--set", "replicas=1"]);
    assert!(!alone.kinds().contains(&"PodDisruptionBudget"), "a budget for one pod protects nothing");
}

#[test]
fn the_pod_passes_the_restricted_pod_security_standard() {
    for install in installs() {
        let pod = install.pod_spec();
        assert_eq!(
            pod["securityContext"],
            json!({
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            })
        );
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        assert_eq!(
            containers[0]["securityContext"],
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            })
        );
        for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert_eq!(pod[field], Value::Null, "{field}");
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            let kinds: Vec<_> = volume.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(kinds, ["name", "secret"], "{volume}");
        }
        assert!(containers[0]["ports"].as_array().unwrap().iter().all(|port| port["hostPort"].is_null()));
    }
}

#[test]
fn the_probes_ask_where_the_operator_answers() {
    let [cluster, ..] = installs();
    let container = &cluster.pod_spec()["containers"][0];
    let get = |path| json!({ "path": path, "port": "http" });
    assert_eq!(container["livenessProbe"]["httpGet"], get("/healthz"));
    assert_eq!(container["readinessProbe"]["httpGet"], get("/readyz"));
    let port = u16::try_from(container["ports"][0]["containerPort"].as_u64().unwrap()).unwrap();
    assert_eq!(port, options(&cluster).http_address.port());
}

/// Parses the operator's options from its pod's arguments and environment.
fn options(install: &Objects) -> RunOptions {
    let container = &install.pod_spec()["containers"][0];
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let mut words = vec!["laurel".to_owned()];
    words.extend(container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()));
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        if !name.starts_with("LAUREL_") {
            continue;
        }
        let option = run
            .get_arguments()
            .find(|argument| argument.get_env().is_some_and(|env| env == name))
            .unwrap_or_else(|| panic!("the operator reads no variable {name}"));
        let value = if variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace" {
            NAMESPACE
        } else {
            variable["value"].as_str().unwrap_or_else(|| panic!("{name} has no text as its value"))
        };
        words.push(format!("--{}={value}", option.get_long().unwrap()));
    }
    match Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}")).command {
        Command::Run(options) => *options,
        other => panic!("{words:?} does not run the operator: {other:?}"),
    }
}

#[test]
fn by_default_all_namespaces_are_watched_and_there_is_no_registry() {
    let [cluster, ..] = installs();
    let options = options(&cluster);
    assert_eq!(options.namespace, None);
    assert_eq!(options.log_format, LogFormat::Json);
    assert_eq!(options.webhook_address, None);
    assert_eq!(cluster.pod_spec()["volumes"], Value::Null);
    assert!(!options.trust_changed_by, "the annotation is not trusted without the policy");
}

#[test]
fn values_reach_the_operator() {
    let [_, namespace, all] = installs();
    assert_eq!(options(&namespace).namespace.as_deref(), Some(NAMESPACE));
    let options = options(&all);
    assert_eq!(options.namespace, None);
    assert_eq!(options.log_format, LogFormat::Text);
    assert!(options.trust_changed_by);
    assert_eq!(options.webhook_address.unwrap().to_string(), "0.0.0.0:9444");
    assert_eq!(options.webhook_scheme, WebhookScheme::Http);
}

/// Returns the object that the chart renders from the values of the default registry.
fn registry(arguments: &[&str]) -> Value {
    let install = Objects::of_chart(arguments);
    let mut objects = install
        .0
        .into_iter()
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("ModelRegistry")));
    objects.next().expect("no registry")
}

#[test]
fn the_default_registry_is_an_object() {
    let url = ["--set", "registry.url=http://mlflow.mlops.svc:5000"];
    let cluster = registry(&url);
    assert_eq!(cluster["kind"], "ClusterModelRegistry");
    assert_eq!(cluster["metadata"]["name"], "mlflow");
    assert_eq!(cluster["metadata"]["annotations"]["laurel.dev/default"], "true");
    let namespace = registry(&[&url[..], &["--set", "scope=namespace"]].concat());
    assert_eq!(namespace["kind"], "ModelRegistry");
    assert_eq!(namespace["metadata"]["namespace"], NAMESPACE);
    assert_eq!(namespace["spec"], cluster["spec"]);
    for object in [cluster, namespace, registry(&["--values", ALL_VALUES])] {
        crate::chart::samples::assert_valid(&object);
    }
}

#[test]
fn values_reach_the_registry() {
    let all = registry(&["--values", ALL_VALUES]);
    let values = &documents(&read(ALL_VALUES))[0]["registry"];
    assert_eq!(all["metadata"]["name"], values["name"]);
    for field in ["url", "workspace", "stages"] {
        assert_eq!(all["spec"]["mlflow"][field], values[field], "{field}");
    }
    for field in
        ["auth", "tls", "pollInterval", "requestTimeout", "limits", "webhook", "serving", "allowedNamespaces"]
    {
        assert_eq!(all["spec"][field], values[field], "{field}");
    }
}

/// Helm looks up every kind before it installs anything, including the CRDs.
#[test]
fn the_registry_follows_the_crds_that_the_release_brings_and_is_adopted_later() {
    let url = ["--set", "registry.url=http://mlflow"];
    let is_hook = |object: &Value| !object["metadata"]["annotations"]["helm.sh/hook"].is_null();
    let first = registry(&url);
    assert!(is_hook(&first));
    let annotations = &first["metadata"]["annotations"];
    assert_eq!(annotations["meta.helm.sh/release-name"], "laurel");
    assert_eq!(annotations["meta.helm.sh/release-namespace"], NAMESPACE);
    assert_eq!(first["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    let known = ["--api-versions", "laurel.dev/v1alpha1/ClusterModelRegistry"];
    assert!(!is_hook(&registry(&[&url[..], &known].concat())));
    assert!(!is_hook(&registry(&[&url[..], &["--set", "crds.install=false"]].concat())));
}

/// Returns the Secrets that are mounted into the operator's container, by folder.
fn mounted(install: &Objects) -> BTreeMap<String, String> {
    let pod = install.pod_spec();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let secret = |name: &Value| {
        let mut volumes = pod["volumes"].as_array().unwrap().iter();
        text(&volumes.find(|volume| volume["name"] == *name).unwrap()["secret"]["secretName"])
    };
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
    mounts.iter().map(|mount| (text(&mount["mountPath"]), secret(&mount["name"]))).collect()
}

#[test]
fn the_endpoint_for_webhooks_finds_its_certificate_where_it_is_mounted() {
    let set = "webhook.enabled=true,webhook.tls.secretName=cert";
    let install = Objects::of_chart(&["--set", set]);
    let options = options(&install);
    let folder = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let certificate = folder(&options.webhook_tls_dir);
    assert_eq!(mounted(&install), BTreeMap::from([(certificate, "cert".to_owned())]));
    assert_eq!(options.webhook_scheme, WebhookScheme::Https);
    let [_, _, all] = installs();
    assert_eq!(all.pod_spec()["volumes"], Value::Null, "plain HTTP needs no certificate");
}

#[test]
fn the_service_for_webhooks_leads_to_the_endpoint() {
    let [_, _, all] = installs();
    let service = service(&all, "webhook");
    assert_eq!(service["spec"]["selector"], all.one("Deployment")["spec"]["selector"]["matchLabels"]);
    assert_eq!(service["spec"]["ports"], json!([{ "name": "http", "port": 443, "targetPort": "webhook" }]));
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["metadata"]["annotations"], json!({ "example.com/internal": "true" }));
    let ports = all.pod_spec()["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.contains(&json!({ "name": "webhook", "containerPort": 9444 })), "{ports:?}");
    let notes = notes(&["--values", ALL_VALUES]);
    assert!(
        notes.contains("http://victors-crown-webhook.laurel-system.svc:443/webhooks/NAMESPACE/NAME"),
        "{notes}"
    );
}

fn service<'a>(install: &'a Objects, purpose: &str) -> &'a Value {
    let is_it = |service: &&Value| service["metadata"]["name"].as_str().unwrap().ends_with(purpose);
    install.all("Service").find(is_it).unwrap()
}

#[test]
fn values_reach_the_deployment() {
    let [_, _, all] = installs();
    let values = &documents(&read(ALL_VALUES))[0];
    let deployment = all.one("Deployment");
    assert_eq!(deployment["metadata"]["name"], values["fullnameOverride"]);
    assert_eq!(deployment["spec"]["replicas"], values["replicas"]);
    assert_eq!(deployment["spec"]["template"]["metadata"]["annotations"], values["podAnnotations"]);

    let pod = all.pod_spec();
    for field in ["imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity"] {
        assert_eq!(pod[field], values[field], "{field}");
    }
    let spread = &values["topologySpreadConstraints"][0];
    assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], spread["topologyKey"]);
    assert_eq!(pod["serviceAccountName"], values["serviceAccount"]["name"]);
    let container = &pod["containers"][0];
    assert_eq!(container["imagePullPolicy"], values["image"]["pullPolicy"]);
    assert_eq!(container["resources"], values["resources"]);
    for variable in values["extraEnv"].as_array().unwrap() {
        assert!(container["env"].as_array().unwrap().contains(variable), "{variable}");
    }
}

#[test]
fn values_reach_the_service_account() {
    let install =
        Objects::of_chart(&["--set", "serviceAccount.annotations.role=reader,serviceAccount.name=crown"]);
    assert_eq!(install.one("ServiceAccount")["metadata"]["annotations"], json!({ "role": "reader" }));
    assert_eq!(install.one("ServiceAccount")["metadata"]["name"], "crown");
    assert_eq!(install.one("ClusterRoleBinding")["subjects"][0]["name"], "crown");
    assert_eq!(install.pod_spec()["serviceAccountName"], "crown");
}

#[test]
fn nothing_but_the_release_and_the_chart_name_selects_the_pod() {
    let [cluster, _, all] = installs();
    for (install, name) in [(&cluster, "laurel"), (&all, "crown")] {
        let desired = json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/instance": "laurel" });
        let deployment = &install.one("Deployment")["spec"];
        assert_eq!(deployment["selector"]["matchLabels"], desired);
        let labels = deployment["template"]["metadata"]["labels"].as_object().unwrap();
        assert!(desired.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)));
    }
    assert_eq!(all.one("Deployment")["spec"]["template"]["metadata"]["labels"]["team"], "mlops");
}

#[test]
fn the_metrics_service_leads_to_the_operator() {
    let [_, _, all] = installs();
    let service = service(&all, "metrics");
    assert_eq!(service["spec"]["selector"], all.one("Deployment")["spec"]["selector"]["matchLabels"]);
    assert_eq!(service["spec"]["ports"], json!([{ "name": "http", "port": 8080, "targetPort": "http" }]));
    assert_eq!(service["metadata"]["annotations"], json!({ "prometheus.io/scrape": "true" }));
}

#[test]
fn a_digest_takes_precedence_over_a_tag() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let cases = BTreeMap::from([
        (String::new(), concat!("localhost/laurel:", env!("CARGO_PKG_VERSION")).to_owned()),
        ("image.tag=next".into(), "localhost/laurel:next".into()),
        (format!("image.tag=next,image.digest={digest}"), format!("localhost/laurel@{digest}")),
    ]);
    for (set, image) in cases {
        let install = Objects::of_chart(&["--set", &set]);
        assert_eq!(install.pod_spec()["containers"][0]["image"], *image, "{set:?}");
    }
}

/// Returns the notes that `helm install` prints.
fn notes(arguments: &[&str]) -> String {
    let fixed = ["install", "laurel", "charts/laurel", "--namespace", NAMESPACE, "--dry-run=client"];
    let printed = printed(helm(&[&fixed, arguments].concat()));
    printed.split_once("\nNOTES:\n").expect("no notes").1.to_owned()
}

#[test]
fn notes_warn_of_what_is_missing() {
    let bare = notes(&[]);
    assert!(bare.contains("WARNING: this release installs no default registry"), "{bare}");
    assert!(bare.contains("kubectl -n laurel-system rollout status deployment/laurel"), "{bare}");
    let pasted = bare.split_once("<<EOF\n").unwrap().1.split_once("\nEOF\n").unwrap().0;
    super::samples::assert_valid(&documents(pasted)[0]);

    let url = "http://mlflow.mlops.svc:5000";
    let with_registry = notes(&["--set", &format!("registry.url={url}")]);
    assert!(!with_registry.contains("WARNING"), "{with_registry}");
    assert!(with_registry.contains(url), "{with_registry}");
    assert!(notes(&["--set", "replicas=0"]).contains("WARNING: replicas is 0"));
}
