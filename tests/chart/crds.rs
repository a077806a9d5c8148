//! The CRDs: generated, the same everywhere, upgraded with the chart and kept when it goes.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use pretty_assertions::assert_eq;
use serde_json::Value;

use crate::tools::{Objects, documents, read, yaml_files};

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
fn the_chart_upgrades_them_and_keeps_them_when_it_goes() {
    let install = Objects::of_chart(&[]);
    let mut expected = laurel::api::custom_resource_definitions();
    for crd in &mut expected {
        let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
        crd.metadata.annotations.get_or_insert_default().extend([keep]);
    }
    expected.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
    // Read into the API's type, because Helm writes 20 for 20.0.
    let rendered: Vec<CustomResourceDefinition> = install
        .all("CustomResourceDefinition")
        .map(|crd| serde_json::from_value(crd.clone()).unwrap())
        .collect();
    assert_eq!(rendered, expected);
}

#[test]
fn they_can_be_left_to_somebody_else() {
    let install = Objects::of_chart(&["--set", "crds.install=false"]);
    assert_eq!(install.all("CustomResourceDefinition").count(), 0);
}
