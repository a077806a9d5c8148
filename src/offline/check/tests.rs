//! Manifests as people write them, and the findings about them.

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
fn complete_manifests_have_no_findings() {
    let registry =
        "kind: ModelRegistry\nmetadata: {name: mlflow}\nspec: {mlflow: {url: 'http://localhost:5000'}}";
    let model = model("fraud", "registryRef: {name: mlflow}");
    let alias = alias("a", "fraud", "alias: champion, version: '1'");
    assert_eq!(reported(&[registry, &model, &alias]), [""; 0]);
}

#[test]
fn references_to_objects_outside_the_manifests_are_warnings() {
    let found = reported(&[
        &model("other", "registryRef: {name: mlflow}"),
        &alias("a", "fraud", "alias: champion, version: '1'"),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with(
            r#"warning ModelAlias a spec.modelRef: these manifests have no RegisteredModel "fraud""#
        ),
        "{found:?}"
    );
    assert!(
        found[1].starts_with(
            "warning RegisteredModel other spec.registryRef: these manifests have no ModelRegistry \"mlflow\""
        ),
        "{found:?}"
    );
}

#[test]
fn a_cluster_registry_is_found_from_every_namespace() {
    let registry = "kind: ClusterModelRegistry\nmetadata: {name: shared}\nspec: {mlflow: {url: \
         'http://localhost:5000'}}";
    let model = "kind: RegisteredModel\nmetadata: {name: fraud, namespace: risk}\nspec: {registryRef: \
         {kind: ClusterModelRegistry, name: shared}}";
    assert_eq!(reported(&[registry, model]), [""; 0]);
    let found = reported(&[model]);
    assert!(found.len() == 1 && found[0].contains(r#"no ClusterModelRegistry "shared""#), "{found:?}");
}

#[test]
fn two_claims_of_one_alias_of_one_model_are_a_conflict_under_any_object_name() {
    let models = [model("fraud", ""), model("fraud-eu", "modelName: fraud")];
    let first = alias("a", "fraud", "alias: champion, version: '1'");
    let second = alias("b", "fraud-eu", "alias: prod, version: '1', previousAlias: champion");
    let found = reported(&[&models[0], &models[1], &first, &second]);
    assert_eq!(
        found,
        ["error ModelAlias b spec.previousAlias: Conflict: ModelAlias a also claims the alias champion of \
             this model; the older object in the cluster keeps it"]
    );
    let elsewhere = "kind: ModelAlias\nmetadata: {name: b, namespace: eu}\nspec: {modelRef: {name: fraud}, \
         alias: champion, version: '1'}";
    let found = reported(&[&models[0], &first, elsewhere]);
    assert!(found.iter().all(|it| it.starts_with("warning")), "another namespace, another model: {found:?}");
}

#[test]
fn a_duplicate_object_is_an_error() {
    let found = reported(&[&model("fraud", ""), &model("fraud", "description: again")]);
    assert_eq!(
        found,
        ["error RegisteredModel fraud metadata.name: duplicate of an object with this kind and name in \
             m.yaml"]
    );
}

#[test]
fn a_url_that_kubernetes_accepts_but_no_client_can_connect_to_is_an_error() {
    let found =
        reported(&["kind: ModelRegistry\nmetadata: {name: mlflow}\nspec: {mlflow: {url: 'http://h:99999'}}"]);
    assert!(found.len() == 1 && found[0].contains("no client can connect"), "{found:?}");
}
