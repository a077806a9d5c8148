//! The CRDs: generated, identical everywhere, upgraded with the chart and kept on uninstall.

use std::{fs, path::Path, process::Command};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use pretty_assertions::assert_eq;
use serde_json::Value;

use super::tools::{Objects, documents, file, printed, read, yaml_files};

const CHART_FOLDER: &str = "charts/laurel/files/crds";

fn generated() -> Vec<(String, Value)> {
    let mut crds: Vec<_> = laurel::api::custom_resource_definitions()
        .iter()
        .map(|crd| {
            (format!("{}.yaml", crd.metadata.name.as_ref().unwrap()), serde_json::to_value(crd).unwrap())
        })
        .collect();
    crds.sort_by(|left, right| left.0.cmp(&right.0));
    crds
}

#[test]
fn files_are_as_generated() {
    let names: Vec<_> = generated().into_iter().map(|(name, _)| name).collect();
    assert_eq!(yaml_files(CHART_FOLDER), names, "run `make crds`");
    let kustomization = &documents(&read("crds/kustomization.yaml"))[0];
    assert_eq!(kustomization["resources"], Value::from(names.clone()), "crds/kustomization.yaml");
    let mut listed = [names.clone(), vec!["kustomization.yaml".into()]].concat();
    listed.sort();
    assert_eq!(yaml_files("crds"), listed, "run `make crds`");

    for (name, crd) in generated() {
        let text = read(format!("crds/{name}"));
        assert_eq!(documents(&text), [crd], "crds/{name}: run `make crds`");
        assert!(text == read(format!("{CHART_FOLDER}/{name}")), "{CHART_FOLDER}/{name}: run `make crds`");
    }
}

#[test]
fn the_program_writes_a_file_for_each_into_every_directory() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crds-{}", std::process::id()));
    let dirs = [folder.join("new/one"), folder.join("two")];
    let arguments = dirs.iter().flat_map(|dir| ["--output-dir".as_ref(), dir.as_os_str()]);
    let printed = printed(laurel().arg("crds").args(arguments).output().unwrap());
    assert_eq!(printed, "");
    for dir in &dirs {
        assert_eq!(fs::read_dir(dir).unwrap().count(), generated().len());
        for (name, _) in generated() {
            assert!(fs::read_to_string(dir.join(&name)).unwrap() == read(format!("crds/{name}")), "{name}");
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_program_prints_all_or_names_the_file_that_it_cannot_write() {
    let crds: Vec<Value> = documents(&printed(laurel().arg("crds").output().unwrap()));
    let mut names: Vec<_> = crds.iter().map(|crd| crd["metadata"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let files: Vec<_> = generated().into_iter().map(|(name, _)| name.replace(".yaml", "")).collect();
    assert_eq!(names, files);

    let failed = laurel().args(["crds", "--output-dir", "Cargo.toml/crds"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(2));
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(error.starts_with("error: Cargo.toml/crds: "), "{error}");
}

fn laurel() -> Command {
    let mut laurel = Command::new(env!("CARGO_BIN_EXE_laurel"));
    laurel.current_dir(file(""));
    laurel
}

#[test]
fn the_chart_upgrades_them_and_keeps_them_on_uninstall() {
    let install = Objects::of_chart(&[]);
    let mut expected = laurel::api::custom_resource_definitions();
    for crd in &mut expected {
        let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
        crd.metadata.annotations.get_or_insert_default().extend([keep]);
    }
    expected.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
    // Parsed into the API's type, because Helm writes 20 for 20.0.
    let rendered: Vec<CustomResourceDefinition> = install
        .all("CustomResourceDefinition")
        .map(|crd| serde_json::from_value(crd.clone()).unwrap())
        .collect();
    assert_eq!(rendered, expected);
}

#[test]
fn they_can_be_managed_elsewhere() {
    let install = Objects::of_chart(&["--set", "crds.install=false"]);
    assert_eq!(install.all("CustomResourceDefinition").count(), 0);
}

/// A field of a schema: its path, and the schema itself.
type Field<'a> = (String, &'a Value);

/// Returns every field of a schema, including those of lists and maps.
fn fields<'a>(schema: &'a Value, path: &str) -> Vec<Field<'a>> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let named = properties.map(|(name, field)| (format!("{path}.{name}"), field));
    let items = [("[]", &schema["items"]), (".*", &schema["additionalProperties"])];
    let items = items.into_iter().filter(|(_, field)| field.is_object());
    let below: Vec<_> = named.chain(items.map(|(mark, field)| (format!("{path}{mark}"), field))).collect();
    below
        .into_iter()
        .flat_map(|(path, field)| [vec![(path.clone(), field)], fields(field, &path)].concat())
        .collect()
}

/// The CRDs as committed.
fn committed() -> Vec<Value> {
    generated().iter().flat_map(|(name, _)| documents(&read(format!("crds/{name}")))).collect()
}

/// Returns every field in `spec` of each kind, prefixed with the kind.
fn spec_fields(crds: &[Value]) -> Vec<Field<'_>> {
    let versions = crds.iter().flat_map(|crd| {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        crd["spec"]["versions"].as_array().unwrap().iter().map(move |version| (kind, version))
    });
    versions
        .flat_map(|(kind, version)| fields(&version["schema"]["openAPIV3Schema"]["properties"]["spec"], kind))
        .collect()
}

#[test]
fn promise_12_no_reference_leads_to_another_namespace() {
    let crds = committed();
    let cluster = crds.iter().filter(|crd| crd["spec"]["scope"] == "Cluster");
    let cluster: Vec<_> = cluster.map(|crd| &crd["spec"]["names"]["kind"]).collect();
    assert_eq!(cluster, ["ClusterModelRegistry"], "its Secrets are in the operator's namespace");
    let fields = spec_fields(&crds);
    let mut references = Vec::new();
    for (path, schema) in &fields {
        let name = path.rsplit('.').next().unwrap();
        let is_selector = path.starts_with("ClusterModelRegistry.allowedNamespaces");
        // Laurel does not follow it: the Gateway decides which namespaces it accepts routes from.
        let is_parent = path == "ModelAlias.traffic.gateway.parentRefs[].namespace";
        assert!(is_selector || is_parent || !name.to_lowercase().contains("namespace"), "{path}");
        if name.ends_with("Ref") {
            let keys = schema["properties"].as_object().unwrap().keys();
            references.push(format!("{path}: {}", keys.map(String::as_str).collect::<Vec<_>>().join(" ")));
        }
    }
    references.sort();
    assert_eq!(
        references,
        [
            "ClusterModelRegistry.auth.basic.secretRef: name",
            "ClusterModelRegistry.auth.bearer.secretRef: key name",
            "ClusterModelRegistry.serving.envFrom[].configMapRef: name optional",
            "ClusterModelRegistry.serving.envFrom[].secretRef: name optional",
            "ClusterModelRegistry.tls.caSecretRef: key name",
            "ClusterModelRegistry.webhook.secretRef: key name",
            "ModelAlias.modelRef: name",
            "ModelAlias.serving.envFrom[].configMapRef: name optional",
            "ModelAlias.serving.envFrom[].secretRef: name optional",
            "ModelAlias.serving.env[].valueFrom.configMapKeyRef: key name optional",
            "ModelAlias.serving.env[].valueFrom.fieldRef: apiVersion fieldPath",
            "ModelAlias.serving.env[].valueFrom.resourceFieldRef: containerName divisor resource",
            "ModelAlias.serving.env[].valueFrom.secretKeyRef: key name optional",
            "ModelAlias.traffic.challengers[].aliasRef: name",
            "ModelAlias.traffic.routeRef: name rule",
            "ModelExperiment.challengers[].aliasRef: name",
            "ModelExperiment.championRef: name",
            "ModelRegistry.auth.basic.secretRef: name",
            "ModelRegistry.auth.bearer.secretRef: key name",
            "ModelRegistry.serving.envFrom[].configMapRef: name optional",
            "ModelRegistry.serving.envFrom[].secretRef: name optional",
            "ModelRegistry.tls.caSecretRef: key name",
            "ModelRegistry.webhook.secretRef: key name",
            "RegisteredModel.registryRef: kind name",
        ]
    );
    // A field without a schema could name anything. This one is a pod template, which can only name Secrets
    // of its namespace.
    let open = |(path, schema): &Field| {
        (schema["x-kubernetes-preserve-unknown-fields"] == true).then(|| path.clone())
    };
    let open: Vec<_> = fields.iter().filter_map(open).collect();
    assert_eq!(open, ["ModelAlias.follow", "ModelAlias.serving.template"]);
}

/// A name that Laurel puts into a URL is not a path: the API server rejects `../../other/secrets/login`.
#[test]
fn promise_12_a_name_that_laurel_reads_is_a_name() {
    let crds = committed();
    let fields = spec_fields(&crds);
    let references = ["auth.basic.secretRef", "auth.bearer.secretRef", "tls.caSecretRef"];
    let kinds = ["ModelRegistry", "ClusterModelRegistry"];
    for (kind, reference) in kinds.into_iter().flat_map(|kind| references.map(|reference| (kind, reference)))
    {
        let path = format!("{kind}.{reference}.name");
        let (_, schema) = fields.iter().find(|(field, _)| *field == path).unwrap();
        let label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
        assert_eq!(schema["pattern"], format!(r"^{label}(\.{label})*$"), "{path}");
    }
    let (_, schema) = fields.iter().find(|(field, _)| *field == "ModelAlias.traffic.routeRef.name").unwrap();
    assert_eq!(schema["pattern"], r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$");
}
