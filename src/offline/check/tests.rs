//! Manifests as people write them, and what is said of them.

use pretty_assertions::assert_eq;

use super::*;

fn read(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read("m.yaml", text).unwrap();
    manifests
}

/// Documents with the API version filled in.
fn ours(documents: &[&str]) -> Manifests {
    let document = |document: &&str| format!("---\napiVersion: laurel.dev/v1alpha1\n{document}\n");
    read(&documents.iter().map(document).collect::<String>())
}

fn reported(documents: &[&str]) -> Vec<String> {
    let (findings, _) = check(&ours(documents));
    findings.iter().map(|it| format!("{} {} {}: {}", it.severity, it.object, it.path, it.message)).collect()
}

fn model(name: &str, spec: &str) -> String {
    format!("kind: RegisteredModel\nmetadata: {{name: {name}}}\nspec: {{{spec}}}")
}

fn alias(name: &str, model: &str, spec: &str) -> String {
    format!("kind: ModelAlias\nmetadata: {{name: {name}}}\nspec: {{modelRef: {{name: {model}}}, {spec}}}")
}

#[test]
fn what_belongs_together_has_no_findings() {
    let registry =
        "kind: ModelRegistry\nmetadata: {name: mlflow}\nspec: {mlflow: {url: 'http://localhost:5000'}}";
    let model = model("fraud", "registryRef: {name: mlflow}");
    let alias = alias("a", "fraud", "alias: champion, version: '1'");
    assert_eq!(reported(&[registry, &model, &alias]), [""; 0]);
}

#[test]
fn references_that_lead_nowhere_are_warnings() {
    let found = reported(&[
        &model("other", "registryRef: {name: mlflow}"),
        &alias("a", "fraud", "alias: champion, version: '1'"),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with(r#"warning ModelAlias a spec.modelRef: no RegisteredModel "fraud""#),
        "{found:?}"
    );
    assert!(
        found[1].starts_with(r#"warning RegisteredModel other spec.registryRef: no ModelRegistry "mlflow""#),
        "{found:?}"
    );
}

#[test]
fn a_registry_of_the_cluster_is_found_from_every_namespace() {
    let registry = "kind: ClusterModelRegistry\nmetadata: {name: shared}\nspec: {mlflow: {url: 'http://localhost:5000'}}";
    let model = "kind: RegisteredModel\nmetadata: {name: fraud, namespace: risk}\nspec: {registryRef: {kind: ClusterModelRegistry, name: shared}}";
    assert_eq!(reported(&[registry, model]), [""; 0]);
    let found = reported(&[model]);
    assert!(found.len() == 1 && found[0].contains(r#"no ClusterModelRegistry "shared""#), "{found:?}");
}

#[test]
fn two_that_claim_one_alias_of_one_model_are_a_conflict_by_whatever_name_they_call_it() {
    let models = [model("fraud", ""), model("fraud-eu", "modelName: fraud")];
    let first = alias("a", "fraud", "alias: champion, version: '1'");
    let second = alias("b", "fraud-eu", "alias: prod, version: '1', previousAlias: champion");
    let found = reported(&[&models[0], &models[1], &first, &second]);
    assert_eq!(
        found,
        [
            "error ModelAlias b spec.previousAlias: Conflict: ModelAlias a claims the alias champion of the same model, too; the older one in the cluster keeps it"
        ]
    );
    let elsewhere = "kind: ModelAlias\nmetadata: {name: b, namespace: eu}\nspec: {modelRef: {name: fraud}, alias: champion, version: '1'}";
    let found = reported(&[&models[0], &first, elsewhere]);
    assert!(found.iter().all(|it| it.starts_with("warning")), "another namespace, another model: {found:?}");
}

#[test]
fn the_same_object_twice_is_told_of() {
    let found = reported(&[&model("fraud", ""), &model("fraud", "description: again")]);
    assert_eq!(
        found,
        [
            "error RegisteredModel fraud metadata.name: a second object of this kind and name; the first is in m.yaml"
        ]
    );
}

#[test]
fn a_url_that_kubernetes_takes_and_nobody_can_connect_to_is_told_of() {
    let found =
        reported(&["kind: ModelRegistry\nmetadata: {name: mlflow}\nspec: {mlflow: {url: 'http://h:99999'}}"]);
    assert!(found.len() == 1 && found[0].contains("nobody can connect"), "{found:?}");
}
