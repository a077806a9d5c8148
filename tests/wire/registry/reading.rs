//! Models and versions are read with few requests, and only responses about the requested objects are
//! accepted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use laurel::{
    api::names::{AliasName, ModelName},
    registry::{RegisteredModelFacts, Registry, RegistryError, VersionFacts, VersionState},
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, matchers::any};

use super::support::{
    API, Exactly, absent, alias, answer, error_message, fraud, fraud_version, in_workspace, model, ok, page,
    registry, version, with_workspaces,
};

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<ModelName> {
    names.into_iter().map(model).collect()
}

fn listing(filter: &str) -> Exactly {
    Exactly::get("registered-models/search").query("filter", filter).query("max_results", "1000")
}

fn versions(filter: &str, limit: &str) -> Exactly {
    Exactly::get("model-versions/search")
        .query("filter", filter)
        .query("order_by", "version_number DESC")
        .query("max_results", limit)
}

fn named(name: &str) -> Value {
    json!({ "name": name, "creation_timestamp": 1, "last_updated_timestamp": 2 })
}

fn fraud_facts() -> RegisteredModelFacts {
    RegisteredModelFacts {
        name: model("fraud"),
        created_at: Timestamp::from_millisecond(1_795_308_495_013).unwrap(),
        updated_at: Timestamp::from_millisecond(1_795_308_510_322).unwrap(),
        description: "Card fraud".to_owned(),
        tags: BTreeMap::from([("owner".to_owned(), "risk".to_owned())]),
        aliases: BTreeMap::from([(alias("challenger"), version(2)), (alias("champion"), version(3))]),
    }
}

fn fraud_version_facts(number: u32) -> VersionFacts {
    VersionFacts {
        version: version(number),
        created_at: Timestamp::from_millisecond(1_795_308_509_570).unwrap(),
        state: VersionState::Ready,
        model_uri: "models:/m-bc7c332e91bc4c47a6ab921f8590913a".parse().unwrap(),
        run_id: Some("e6c3fcacdb9e4a30a34fecb9ecea333f".to_owned()),
        description: format!("version {number}"),
        tags: BTreeMap::from([("validation_status".to_owned(), "approved".to_owned())]),
    }
}

#[tokio::test]
async fn models_are_read_in_one_request_and_a_missing_name_stays_missing() {
    let server = MockServer::start().await;
    let body = json!({ "registered_models": [fraud(), named("FRAUD"), named("not-asked-for")] });
    answer(&server, listing(r"name IN ('fraud','gone','it\x27s')"), ok(&body)).await;
    let found = registry(&server.uri()).models(&names(["fraud", "gone", "it's"])).await.unwrap();
    assert_eq!(found, BTreeMap::from([(model("fraud"), fraud_facts())]));
}

#[tokio::test]
async fn no_names_cause_no_request() {
    let found = registry("http://127.0.0.1:9").models(&BTreeSet::new()).await.unwrap();
    assert_eq!(found, BTreeMap::new());
}

#[tokio::test]
async fn all_pages_are_read() {
    let server = MockServer::start().await;
    let filter = "name IN ('a','b')";
    let first = json!({ "registered_models": [named("a")], "next_page_token": "eyJvZmZzZXQiOiAxfQ==" });
    answer(
        &server,
        listing(filter).query("page_token", "eyJvZmZzZXQiOiAxfQ=="),
        ok(&json!({ "registered_models": [named("b")] })),
    )
    .await;
    answer(&server, listing(filter), ok(&first)).await;
    let found = registry(&server.uri()).models(&names(["a", "b"])).await.unwrap();
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), names(["a", "b"]));
}

#[tokio::test]
async fn pages_that_repeat_end() {
    let server = MockServer::start().await;
    let circle = ok(&json!({ "next_page_token": "same" }));
    Mock::given(any()).respond_with(circle).expect(2).mount(&server).await;
    let error = registry(&server.uri()).models(&names(["a"])).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotARegistry { detail, .. } if detail.contains("repeat")),
        "{error}"
    );
}

#[tokio::test]
async fn endless_pages_end() {
    let server = MockServer::start().await;
    let endless = |request: &Request| ok(&json!({ "next_page_token": format!("{}x", request.url) }));
    Mock::given(any()).respond_with(endless).expect(20).mount(&server).await;
    let error = registry(&server.uri()).newest_versions(&model("a"), 5).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotARegistry { detail, .. } if detail.contains("pages")),
        "{error}"
    );
}

#[tokio::test]
async fn many_names_are_requested_in_chunks() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ok(&json!({}))).mount(&server).await;
    let many: BTreeSet<ModelName> = (0..150).map(|i| model(&format!("{} {i}", "ü".repeat(40)))).collect();
    assert_eq!(registry(&server.uri()).models(&many).await.unwrap(), BTreeMap::new());
    let requests = server.received_requests().await.unwrap();
    assert!(requests.len() > 2, "{}", requests.len());
    let longest = requests.iter().map(|request| request.url.as_str().len()).max().unwrap();
    assert!(longest < 4000, "{longest}");
}

#[tokio::test]
async fn a_rejected_filter_hides_no_model() {
    let server = MockServer::start().await;
    let refused = error_message(400, "INVALID_PARAMETER_VALUE", "Invalid clause(s) in filter string");
    answer(&server, listing("name IN ('fraud','gone','private')"), refused).await;
    let get = |name| Exactly::get("registered-models/get").query("name", name);
    answer(&server, get("fraud"), ok(&json!({ "registered_model": fraud() }))).await;
    answer(&server, get("gone"), absent("Registered Model with name=gone")).await;
    answer(&server, get("private"), page(403, "text/html", "Permission denied")).await;
    let found = registry(&server.uri()).models(&names(["fraud", "gone", "private"])).await.unwrap();
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), names(["fraud"]));
}

#[tokio::test]
async fn a_server_that_cannot_list_by_name_is_asked_for_a_list_once() {
    let server = MockServer::start().await;
    let detail = "Only the 'run_id' attribute supports comparison with a list of quoted string values.";
    let refused = error_message(400, "INVALID_PARAMETER_VALUE", detail);
    answer(&server, listing("name IN ('fraud','gone')"), refused).await;
    let get = |name| Exactly::get("registered-models/get").query("name", name);
    let model = ok(&json!({ "registered_model": fraud() }));
    Mock::given(get("fraud")).respond_with(model).expect(3).mount(&server).await;
    let gone = absent("Registered Model with name=gone");
    Mock::given(get("gone")).respond_with(gone).expect(3).mount(&server).await;
    let registry = registry(&server.uri());
    for _ in 0..3 {
        let found = registry.models(&names(["fraud", "gone"])).await.unwrap();
        assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), names(["fraud"]));
    }
}

#[tokio::test]
async fn a_prompt_is_left_out_also_by_a_server_that_cannot_list_by_name() {
    let server = MockServer::start().await;
    let detail = "Only the 'run_id' attribute supports comparison with a list of quoted string values.";
    let refused = error_message(400, "INVALID_PARAMETER_VALUE", detail);
    answer(&server, listing("name IN ('greeting')"), refused).await;
    let mut prompt = named("greeting");
    prompt["tags"] = json!([{ "key": "mlflow.prompt.is_prompt", "value": "true" }]);
    let get = Exactly::get("registered-models/get").query("name", "greeting");
    answer(&server, get, ok(&json!({ "registered_model": prompt }))).await;
    assert_eq!(registry(&server.uri()).models(&names(["greeting"])).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn versions_are_listed_whatever_the_name_by_a_server_that_cannot_list_by_name() {
    // MLflow 2.9 to 3.8 answer 400 to `name IN (…)`, and unescape nothing inside quotes.
    let server = MockServer::start().await;
    let odd = "it's \"C\\x\"";
    let (mut ours, mut similar) = (fraud_version(2), fraud_version(7));
    ours["name"] = json!(odd);
    similar["name"] = json!("it's -C-x-");
    let page = ok(&json!({ "model_versions": [similar, ours] }));
    answer(&server, versions(r#"name LIKE "it's _C_x_""#, "5"), page).await;
    let found = registry(&server.uri()).newest_versions(&model(odd), 5).await.unwrap();
    assert_eq!(found.iter().map(|facts| facts.version).collect::<Vec<_>>(), [version(2)]);
}

#[tokio::test]
async fn a_server_that_rejects_every_name_is_an_error() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(page(403, "text/html", "Permission denied")).mount(&server).await;
    let error = registry(&server.uri()).models(&names(["a", "b"])).await.unwrap_err();
    assert!(matches!(error, RegistryError::Forbidden { .. }), "{error}");
    server.reset().await;
    let refused = error_message(400, "BAD_REQUEST", "no");
    Mock::given(any()).respond_with(refused).expect(3).mount(&server).await;
    let error = registry(&server.uri()).models(&names(["a", "b"])).await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn a_model_is_read_by_its_name_whatever_the_name() {
    for name in ["fraud", "Fraud (cards) ü", "a&b=c?d#e", "100%", "a+b", "it's \"it\""] {
        let server = MockServer::start().await;
        let body = json!({ "registered_model": named(name) });
        answer(&server, Exactly::get("registered-models/get").query("name", name), ok(&body)).await;
        let facts = registry(&server.uri()).model(&model(name)).await.unwrap().unwrap();
        assert_eq!(facts.name, model(name));
        assert_eq!(facts.aliases, BTreeMap::<AliasName, _>::new());
    }
}

#[tokio::test]
async fn a_model_is_read_with_all_its_facts() {
    let server = MockServer::start().await;
    let request = Exactly::get("registered-models/get").query("name", "fraud");
    answer(&server, request, ok(&json!({ "registered_model": fraud() }))).await;
    assert_eq!(registry(&server.uri()).model(&model("fraud")).await.unwrap(), Some(fraud_facts()));
}

#[tokio::test]
async fn a_response_about_something_else_is_invalid() {
    let server = MockServer::start().await;
    let other = json!({ "registered_model": named("Fraud"), "model_version": fraud_version(4) });
    Mock::given(any()).respond_with(ok(&other)).mount(&server).await;
    let registry = registry(&server.uri());
    let errors = [
        registry.model(&model("fraud")).await.unwrap_err(),
        registry.version(&model("fraud"), version(3)).await.unwrap_err(),
        registry.version(&model("Fraud"), version(4)).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, RegistryError::NotARegistry { detail, .. } if detail.contains("requested ")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_prompt_is_not_a_model() {
    let server = MockServer::start().await;
    let mut prompt = named("greeting");
    prompt["tags"] = json!([{ "key": "mlflow.prompt.is_prompt", "value": "true" }]);
    Mock::given(any()).respond_with(ok(&json!({ "registered_model": prompt }))).mount(&server).await;
    let error = registry(&server.uri()).model(&model("greeting")).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Rejected { detail } if detail.contains("prompt")), "{error}");
}

#[tokio::test]
async fn a_version_is_read_with_all_its_facts() {
    let server = MockServer::start().await;
    let request = |number| Exactly::get("model-versions/get").query("name", "fraud").query("version", number);
    answer(&server, request("3"), ok(&json!({ "model_version": fraud_version(3) }))).await;
    answer(&server, request("9"), absent("Model Version (name=fraud, version=9)")).await;
    let registry = registry(&server.uri());
    assert_eq!(registry.version(&model("fraud"), version(3)).await.unwrap(), Some(fraud_version_facts(3)));
    assert_eq!(registry.version(&model("fraud"), version(9)).await.unwrap(), None);
}

#[tokio::test]
async fn the_newest_versions_come_first_and_once() {
    let server = MockServer::start().await;
    let filter = "name = 'fraud'";
    let mut strange = fraud_version(5);
    strange["version"] = json!("4000000000");
    // Version 5 was created between the two pages, so the second one begins with the end of the first.
    let first =
        json!({ "model_versions": [fraud_version(4), strange, fraud_version(3)], "next_page_token": "t" });
    let second = json!({ "model_versions": [fraud_version(3), fraud_version(2), fraud_version(1)] });
    answer(&server, versions(filter, "3").query("page_token", "t"), ok(&second)).await;
    answer(&server, versions(filter, "3"), ok(&first)).await;
    let found = registry(&server.uri()).newest_versions(&model("fraud"), 3).await.unwrap();
    assert_eq!(found, [4, 3, 2].map(fraud_version_facts));
}

fn versions_of_many(filter: &str) -> Exactly {
    Exactly::get("model-versions/search")
        .query("filter", filter)
        .query("order_by", "name ASC")
        .query("order_by", "version_number DESC")
        .query("max_results", "1000")
}

fn version_of(name: &str, number: u32) -> Value {
    let mut version = fraud_version(number);
    version["name"] = json!(name);
    version
}

/// A model that the page may not show in full is asked for again, with those that it does not show at all.
#[tokio::test]
async fn the_versions_of_many_models_are_read_together() {
    let server = MockServer::start().await;
    let all = [version_of("a", 2), version_of("a", 1), version_of("A", 1), version_of("b", 9)];
    let first = json!({ "model_versions": all, "next_page_token": "t" });
    let rest = [version_of("b", 9), version_of("b", 8), version_of("b", 7), version_of("c", 1)];
    let second = json!({ "model_versions": rest, "next_page_token": "t" });
    let third = json!({ "model_versions": [version_of("c", 3), version_of("c", 1)], "next_page_token": "" });
    answer(&server, versions_of_many("name IN ('a','b','c','empty')"), ok(&first)).await;
    answer(&server, versions_of_many("name IN ('b','c','empty')"), ok(&second)).await;
    answer(&server, versions_of_many("name IN ('c','empty')"), ok(&third)).await;
    let found =
        registry(&server.uri()).newest_versions_of(&names(["a", "b", "c", "empty"]), 2).await.unwrap();
    let numbers = |name| found[&model(name)].iter().map(|it| it.version).collect::<Vec<_>>();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), names(["a", "b", "c"]));
    assert_eq!(numbers("a"), [2, 1].map(version));
    assert_eq!(numbers("b"), [9, 8, 7].map(version));
    assert_eq!(numbers("c"), [3, 1].map(version));
}

#[tokio::test]
async fn a_page_without_an_answer_about_any_model_ends_a_read_of_many() {
    let server = MockServer::start().await;
    let page = json!({ "model_versions": [version_of("A", 1)], "next_page_token": "t" });
    answer(&server, versions_of_many("name IN ('a')"), ok(&page)).await;
    let found = registry(&server.uri()).newest_versions_of(&names(["a"]), 2).await.unwrap();
    assert_eq!(found, BTreeMap::new());
}

#[tokio::test]
async fn of_a_server_without_lists_of_names_nothing_is_known_and_it_is_not_asked_again() {
    let server = MockServer::start().await;
    let detail = "Only the 'run_id' attribute supports comparison with a list of quoted string values.";
    let refused = error_message(400, "INVALID_PARAMETER_VALUE", detail);
    answer(&server, versions_of_many("name IN ('a','b')"), refused).await;
    let registry = registry(&server.uri());
    for _ in 0..2 {
        assert_eq!(registry.newest_versions_of(&names(["a", "b"]), 2).await.unwrap(), BTreeMap::new());
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn zero_versions_cause_no_request() {
    let registry = registry("http://127.0.0.1:9");
    assert_eq!(registry.newest_versions(&model("fraud"), 0).await.unwrap(), []);
    assert_eq!(registry.newest_versions_of(&names(["fraud"]), 0).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn a_path_prefix_is_kept() {
    for suffix in ["/ml/flow", "/ml/flow/", "/ml/flow//"] {
        let server = MockServer::start().await;
        let get = Exactly::new("GET", "/ml/flow/api/2.0/mlflow/registered-models/get").query("name", "fraud");
        answer(&server, get, ok(&json!({ "registered_model": fraud() }))).await;
        let url = format!("{}{suffix}", server.uri());
        assert!(registry(&url).model(&model("fraud")).await.unwrap().is_some(), "{suffix}");
    }
}

#[tokio::test]
async fn a_probe_reads_the_registry_and_the_version_if_possible() {
    let table = [
        (page(200, "text/html; charset=utf-8", "3.17.2\n"), Some("3.17.2")),
        (page(200, "text/html", "<html>Welcome</html>"), None),
        (page(401, "text/html", "You are not authenticated"), None),
        (page(404, "text/html", ""), None),
    ];
    for (reported, expected) in table {
        let server = MockServer::start().await;
        let search = Exactly::get("registered-models/search").query("max_results", "1");
        answer(&server, search, ok(&json!({}))).await;
        answer(&server, Exactly::new("GET", "/version"), reported).await;
        assert_eq!(registry(&server.uri()).probe().await.unwrap().as_deref(), expected);
    }
}

#[tokio::test]
async fn the_workspace_is_sent_only_if_configured() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ok(&json!({ "registered_model": fraud() }))).mount(&server).await;
    registry(&server.uri()).model(&model("fraud")).await.unwrap();
    with_workspaces(&server).await;
    let team = in_workspace(&server.uri(), "team-a");
    for _ in 0..2 {
        team.model(&model("fraud")).await.unwrap();
    }
    let requests = server.received_requests().await.unwrap();
    let sent = |request: &Request| {
        let workspace = request.headers.get("X-MLFLOW-WORKSPACE");
        (request.url.path().to_owned(), workspace.map(|it| it.to_str().unwrap().to_owned()))
    };
    let (get, info) = (format!("{API}/registered-models/get"), "/api/3.0/mlflow/server-info".to_owned());
    let team_a = || Some("team-a".to_owned());
    let expected = [(get.clone(), None), (info, team_a()), (get.clone(), team_a()), (get, team_a())];
    assert_eq!(
        requests.iter().map(sent).collect::<Vec<_>>(),
        expected,
        "whether there are any is asked once"
    );
}

#[tokio::test]
async fn a_missing_workspace_is_not_a_missing_model() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(absent("Workspace 'team-a'")).mount(&server).await;
    let registry = in_workspace(&server.uri(), "team-a");
    let fraud = model("fraud");
    let errors = [
        registry.model(&fraud).await.unwrap_err(),
        registry.version(&fraud, version(1)).await.unwrap_err(),
        registry.input_example(&fraud, version(1), 1 << 20).await.unwrap_err(),
        registry.models(&names(["fraud"])).await.unwrap_err(),
        registry.newest_versions(&fraud, 1).await.unwrap_err(),
        registry.probe().await.unwrap_err(),
        registry.delete_model(&fraud).await.unwrap_err(),
        registry.delete_alias(&fraud, &alias("champion")).await.unwrap_err(),
        registry.set_alias(&fraud, &alias("champion"), version(1)).await.unwrap_err(),
        registry.create_model(&fraud, "", &BTreeMap::new()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, RegistryError::WorkspaceRefused { workspace, .. } if workspace == "team-a"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_missing_model_in_a_workspace_is_missing() {
    let server = MockServer::start().await;
    with_workspaces(&server).await;
    let get = Exactly::get("registered-models/get").query("name", "fraud");
    answer(&server, get, absent("Registered Model with name=fraud")).await;
    answer(&server, Exactly::get("registered-models/search").query("max_results", "1"), ok(&json!({}))).await;
    assert_eq!(in_workspace(&server.uri(), "team-a").model(&model("fraud")).await.unwrap(), None);
}
