//! Manifests as people write them, and the findings about them.

use pretty_assertions::assert_eq;

use super::*;

mod experiments;

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

/// A ModelAlias that serves, with these challengers.
fn champion(challengers: &str) -> String {
    let gateway = "gateway: {parentRefs: [{name: public}]}";
    alias(
        "a",
        "fraud",
        &format!(
            "alias: champion, version: '1', serving: {{image: i}}, traffic: {{{gateway}, challengers: \
             [{challengers}]}}"
        ),
    )
}

fn challenger(name: &str, weight: u32) -> String {
    format!("{{aliasRef: {{name: {name}}}, weight: {weight}}}")
}

#[test]
fn challengers_exist_serve_and_have_names_of_their_own() {
    let model = model("fraud", "");
    let with = |challengers: &str, others: &[String]| {
        let mut documents = vec![model.clone(), champion(challengers)];
        documents.extend_from_slice(others);
        reported(&documents.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let rival = |name: &str, serving: &str| {
        alias(name, "fraud", &format!("alias: rival-{name}, version: '2'{serving}"))
    };
    let serving = ", serving: {image: i}";
    assert_eq!(with(&challenger("b", 10), &[rival("b", serving)]), [""; 0]);
    for (challengers, others, part) in [
        (
            challenger("b", 10),
            vec![],
            "warning ModelAlias a spec.traffic.challengers: these manifests have no",
        ),
        (
            challenger("b", 10),
            vec![rival("b", "")],
            "error ModelAlias a spec.traffic.challengers: the challenger",
        ),
        (challenger("a-v2", 10), vec![rival("a-v2", serving)], "rename the challenger"),
        (challenger("a", 10), vec![], "a ModelAlias is no challenger of itself"),
        (challenger("b", 51), vec![rival("b", serving)], "challengers[0].weight"),
        (
            [challenger("b", 30), challenger("c", 21)].join(", "),
            vec![rival("b", serving), rival("c", serving)],
            "at most 50 together",
        ),
        (
            [challenger("b", 5), challenger("b", 6)].join(", "),
            vec![rival("b", serving)],
            "each challenger is listed once",
        ),
        ("{aliasRef: {name: b}}".to_owned(), vec![rival("b", serving)], "exactly one of weight and mirror"),
        ("{aliasRef: {name: b}, mirror: 101}".to_owned(), vec![rival("b", serving)], "challengers[0].mirror"),
        (
            "{aliasRef: {name: b}, mirror: 100}".to_owned(),
            vec![rival("b", "")],
            "error ModelAlias a spec.traffic.challengers: the challenger",
        ),
    ] {
        let found = with(&challengers, &others);
        assert!(found.iter().any(|it| it.contains(part)), "{part:?} is missing: {found:?}");
    }
}

#[test]
fn metrics_are_set_for_the_runtime_that_uses_them() {
    let model = model("fraud", "");
    let with = |serving: &str| {
        let spec = format!("alias: champion, version: '1', serving: {{image: i, {serving}}}");
        reported(&[&model, &alias("a", "fraud", &spec)])
    };
    for valid in [
        "metrics: {}",
        "metrics: {predictions: Classes}",
        "runtime: mlserver, metrics: {predictions: Disabled}",
        "runtime: custom, metrics: {}",
        "runtime: custom, metrics: {port: 9090}",
        "runtime: custom, metrics: {port: 9090, path: /stats, requests: 'http:seconds', statusLabel: code}",
    ] {
        assert_eq!(with(valid), [""; 0], "{valid}");
    }
    for (serving, part) in [
        ("runtime: custom, metrics: {predictions: Classes}", "metrics.predictions is for the runtimes that"),
        ("metrics: {port: 9090}", "metrics.port is for the runtime custom"),
        ("metrics: {requests: seconds}", "need metrics.port, which is for the runtime custom"),
        ("runtime: custom, metrics: {path: /stats}", "need metrics.port, which is for the runtime custom"),
        ("runtime: custom, metrics: {statusLabel: code}", "need metrics.port, which is for the runtime"),
        ("runtime: custom, metrics: {port: 8080}", "metrics.port must differ from serving.port"),
        ("runtime: custom, port: 9090, metrics: {port: 9090}", "metrics.port must differ from serving.port"),
        ("runtime: custom, metrics: {port: 80}", "spec.serving.metrics.port"),
        ("runtime: custom, metrics: {port: 9090, path: stats}", "spec.serving.metrics.path"),
        ("runtime: custom, metrics: {port: 9090, requests: a-b}", "spec.serving.metrics.requests"),
        ("runtime: custom, metrics: {port: 9090, statusLabel: 'a:b'}", "spec.serving.metrics.statusLabel"),
        ("metrics: {predictions: All}", "spec.serving.metrics.predictions"),
    ] {
        let found = with(serving);
        assert!(found.iter().any(|it| it.contains(part)), "{serving}: {part:?} is missing: {found:?}");
    }
}

#[test]
fn a_route_that_is_referred_to_names_the_service() {
    let route = |backends: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: public}}\nspec: \
             {{rules: [{{name: main, backendRefs: [{backends}]}}]}}"
        )
    };
    let with = |reference: &str, routes: &[String]| {
        let traffic = format!("serving: {{image: i}}, traffic: {{routeRef: {{{reference}}}}}");
        let alias = alias("a", "fraud", &format!("alias: champion, version: '1', {traffic}"));
        let mut documents = vec![model("fraud", ""), alias];
        documents.extend_from_slice(routes);
        let mut read = ours(&documents[..2].iter().map(String::as_str).collect::<Vec<_>>());
        for route in &documents[2..] {
            read.read("route.yaml", route).unwrap();
        }
        let (findings, _) = check(&read);
        findings.iter().map(|it| format!("{} {}: {}", it.severity, it.path, it.message)).collect::<Vec<_>>()
    };
    let own = "{name: a, port: 8080}";
    assert_eq!(with("name: public", &[route(own)]), [""; 0]);
    assert_eq!(with("name: public, rule: main", &[route(own)]), [""; 0]);
    for (reference, routes, part) in [
        (
            "name: public",
            vec![],
            "warning spec.traffic.routeRef: these manifests have no HTTPRoute \"public\"",
        ),
        (
            "name: public",
            vec![route("{name: b, port: 1}")],
            "error spec.traffic.routeRef: the HTTPRoute \"public\" has",
        ),
        ("name: public, rule: other", vec![route(own)], "has no rule with the name \"other\""),
        (
            "name: public",
            vec![route(&format!("{own}, {{name: b, port: 1}}"))],
            "to the Service \"b\" as well",
        ),
        ("name: Public", vec![], "error spec.traffic.routeRef.name"),
        (
            "name: public}, gateway: {parentRefs: [{name: g}]",
            vec![route(own)],
            "exactly one of gateway and routeRef",
        ),
    ] {
        let found = with(reference, &routes);
        assert!(found.iter().any(|it| it.contains(part)), "{part:?} is missing: {found:?}");
    }
}

#[test]
fn challengers_need_a_gateway_or_a_route() {
    let text = "alias: champion, version: '1', serving: {image: i}, traffic: {challengers: []}";
    let found = reported(&[&model("fraud", ""), &alias("a", "fraud", text)]);
    assert!(found.len() == 1 && found[0].contains("exactly one of gateway and routeRef is set"), "{found:?}");
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
