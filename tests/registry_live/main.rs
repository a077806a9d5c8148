//! The MLflow backend against a real tracking server, to confirm the assumptions of the wire tests.
//!
//! `LAUREL_TEST_MLFLOW_URL` names the server: one without authentication and workspaces that serves
//! artifacts. The tests create models whose names begin with `laurel-` and a number, and delete them again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its tests do")]
#![expect(clippy::disallowed_methods, reason = "the environment names the server")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use laurel::{
    api::{
        model_registry::Stages,
        names::{AliasName, ModelName, Version},
    },
    fence::Fence,
    registry::{
        InputExample, Registry, RegistryError, VersionState,
        limiter::Limiter,
        mlflow::{Connection, Credentials, MlflowRegistry},
    },
};
use pretty_assertions::assert_eq;

use crate::upload::Upload;

mod upload;
mod webhooks;

/// Maximum size of an input example.
const LIMIT: usize = 1 << 20;

/// Returns the value of a required environment variable.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: it names the MLflow server to test against"))
}

fn connection() -> Connection {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Connection {
        url: variable("LAUREL_TEST_MLFLOW_URL").parse().unwrap(),
        workspace: None,
        stages: Stages::Ignore,
        credentials: None,
        ca_pem: None,
        timeout: Duration::from_secs(30),
        fence: Fence::default(),
        limiter: Limiter::default(),
    }
}

fn registry() -> MlflowRegistry {
    MlflowRegistry::new(connection()).unwrap()
}

/// Returns a unique name.
fn unique(suffix: &str) -> ModelName {
    let nanos = jiff::Zoned::now().timestamp().as_nanosecond();
    format!("laurel-{nanos}-{suffix}").parse().unwrap()
}

fn v(number: u32) -> Version {
    Version::new(number).unwrap()
}

async fn make(registry: &MlflowRegistry, name: &ModelName) {
    registry.create_model(name, "", &BTreeMap::new()).await.unwrap();
}

#[tokio::test]
async fn the_server_reports_its_version() {
    let reported = registry().probe().await.unwrap();
    assert!(reported.as_deref().is_some_and(|reported| reported.contains('.')), "{reported:?}");
}

#[tokio::test]
async fn a_model_is_created_and_deleted() {
    let (registry, name) = (registry(), unique("life"));
    assert_eq!(registry.model(&name).await.unwrap(), None);
    assert_eq!(registry.newest_versions(&name, 5).await.unwrap(), []);
    let tags = BTreeMap::from([("owner".to_owned(), "risk".to_owned())]);
    registry.create_model(&name, "first", &tags).await.unwrap();
    registry.create_model(&name, "second", &BTreeMap::new()).await.unwrap();
    let made = registry.model(&name).await.unwrap().unwrap();
    assert_eq!((made.description.as_str(), &made.tags), ("first", &tags));

    registry.set_description(&name, "third").await.unwrap();
    registry.set_model_tag(&name, "a tag/x", "ü").await.unwrap();
    registry.delete_model_tag(&name, "owner").await.unwrap();
    registry.delete_model_tag(&name, "owner").await.unwrap();
    let changed = registry.model(&name).await.unwrap().unwrap();
    assert_eq!(changed.description, "third");
    assert_eq!(changed.tags, BTreeMap::from([("a tag/x".to_owned(), "ü".to_owned())]));
    assert_eq!(changed.created_at, made.created_at);

    registry.delete_model(&name).await.unwrap();
    registry.delete_model(&name).await.unwrap();
    registry.delete_model_tag(&name, "x").await.unwrap();
    assert_eq!(registry.model(&name).await.unwrap(), None);
    let error = registry.set_description(&name, "x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn an_alias_is_set_moved_and_deleted() {
    let (registry, name) = (registry(), unique("alias"));
    let champion: AliasName = "champion".parse().unwrap();
    make(&registry, &name).await;
    let upload = Upload::new(&connection().url);
    upload.version(&name, "s3://nowhere/1").await;
    upload.version(&name, "s3://nowhere/2").await;
    for (number, aliases) in [(1, [("champion", 1)]), (2, [("champion", 2)]), (2, [("champion", 2)])] {
        registry.set_alias(&name, &champion, v(number)).await.unwrap();
        let expected = aliases.map(|(alias, number)| (alias.parse::<AliasName>().unwrap(), v(number)));
        assert_eq!(registry.model(&name).await.unwrap().unwrap().aliases, BTreeMap::from(expected));
    }
    let error = registry.set_alias(&name, &champion, v(9)).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Rejected { detail } if detail.contains("not found")), "{error}");
    registry.delete_alias(&name, &champion).await.unwrap();
    registry.delete_alias(&name, &champion).await.unwrap();
    assert_eq!(registry.model(&name).await.unwrap().unwrap().aliases, BTreeMap::new());
    registry.delete_model(&name).await.unwrap();
    registry.delete_alias(&name, &champion).await.unwrap();
    let error = registry.set_alias(&name, &champion, v(1)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn a_stage_is_an_alias_if_configured() {
    let (ordinary, name) = (registry(), unique("stages"));
    let staged = MlflowRegistry::new(Connection { stages: Stages::AsAliases, ..connection() }).unwrap();
    let (production, champion): (AliasName, AliasName) =
        ("Production".parse().unwrap(), "champion".parse().unwrap());
    make(&ordinary, &name).await;
    let upload = Upload::new(&connection().url);
    upload.version(&name, "s3://nowhere/1").await;
    upload.version(&name, "s3://nowhere/2").await;
    let aliases = async |registry: &MlflowRegistry| registry.model(&name).await.unwrap().unwrap().aliases;
    assert_eq!(aliases(&staged).await, BTreeMap::new());
    for number in [2, 1] {
        staged.set_alias(&name, &production, v(number)).await.unwrap();
        assert_eq!(aliases(&staged).await, BTreeMap::from([(production.clone(), v(number))]));
    }
    let listed = staged.models(&BTreeSet::from([name.clone()])).await.unwrap();
    assert_eq!(listed[&name].aliases, BTreeMap::from([(production.clone(), v(1))]));
    assert_eq!(aliases(&ordinary).await, BTreeMap::new());
    // Aliases with other names are not stages.
    staged.set_alias(&name, &champion, v(2)).await.unwrap();
    assert_eq!(aliases(&ordinary).await, BTreeMap::from([(champion.clone(), v(2))]));
    staged.delete_alias(&name, &production).await.unwrap();
    staged.delete_alias(&name, &production).await.unwrap();
    assert_eq!(aliases(&staged).await, BTreeMap::from([(champion, v(2))]));
    ordinary.delete_model(&name).await.unwrap();
}

#[tokio::test]
async fn versions_come_newest_first() {
    let (registry, name) = (registry(), unique("versions"));
    make(&registry, &name).await;
    let upload = Upload::new(&connection().url);
    for number in 1..=11 {
        upload.version(&name, &format!("s3://nowhere/{number}")).await;
    }
    for (limit, expected) in [(1, vec![11]), (3, vec![11, 10, 9]), (100, (1..=11).rev().collect())] {
        let found = registry.newest_versions(&name, limit).await.unwrap();
        let numbers: Vec<_> = found.iter().map(|facts| facts.version).collect();
        assert_eq!(numbers, expected.into_iter().map(v).collect::<Vec<_>>());
    }
    let facts = registry.version(&name, v(7)).await.unwrap().unwrap();
    assert_eq!((facts.version, facts.state, facts.run_id), (v(7), VersionState::Ready, None));
    assert_eq!(facts.model_uri.as_str(), format!("models:/{name}/7"));
    assert_eq!(registry.version(&name, v(12)).await.unwrap(), None);
    registry.delete_model(&name).await.unwrap();
    assert_eq!(registry.version(&name, v(7)).await.unwrap(), None);
}

#[tokio::test]
async fn any_name_that_mlflow_accepts_is_found_again() {
    let registry = registry();
    let upload = Upload::new(&connection().url);
    let odd = [
        "Fraud (cards) ü",
        "it's",
        "dq\"x",
        "both'\"",
        "back\\slash",
        "end\\",
        "\\'",
        "a,b",
        "tab\tx",
        "nl\nx",
        "%20",
        "100%",
        "a+b",
        "a&b=c",
        "a?b",
        "a#b",
        "a;b--c",
        "trail ",
        "😀",
        "AND",
        "a@b",
        "..",
        "under_score",
        "x\u{7f}y",
        "){",
        "['a']",
    ];
    let mut names: BTreeSet<ModelName> = odd.into_iter().map(unique).collect();
    let long = unique("").to_string();
    names.insert(format!("{long}{}", "ä".repeat(250 - long.len())).parse().unwrap());
    names.insert(format!("{long}{}", "'".repeat(256 - long.len())).parse().unwrap());
    for name in &names {
        make(&registry, name).await;
        upload.version(name, "s3://nowhere/1").await;
    }
    let mut asked = names.clone();
    asked.insert(unique("missing"));
    let found = registry.models(&asked).await.unwrap();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), names);
    for name in &names {
        assert_eq!(registry.model(name).await.unwrap().as_ref(), found.get(name));
        let newest = registry.newest_versions(name, 1).await.unwrap();
        assert_eq!(registry.version(name, v(1)).await.unwrap().as_ref(), newest.first(), "{name:?}");
        registry.delete_model(name).await.unwrap();
        assert_eq!(registry.model(name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_input_example_is_found_if_there_is_one() {
    let (registry, name) = (registry(), unique("example"));
    make(&registry, &name).await;
    let upload = Upload::new(&connection().url);
    let body = r#"{"inputs": [[1.0, NaN]]}"#;
    let with = upload.logged_model(&name, &[("MLmodel", "a: 1"), ("serving_input_example.json", body)]).await;
    upload.logged_model(&name, &[("MLmodel", "a: 1")]).await;
    let example = registry.input_example(&name, v(1), LIMIT).await.unwrap();
    assert_eq!(example, Some(InputExample::Body(body.as_bytes().to_vec())));
    assert_eq!(registry.version(&name, v(1)).await.unwrap().unwrap().model_uri.as_str(), with);
    assert_eq!(registry.input_example(&name, v(2), LIMIT).await.unwrap(), None);
    let error = registry.input_example(&name, v(3), LIMIT).await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { .. }), "{error}");
    upload.version(&name, "hf://nobody/nothing").await;
    let error = registry.input_example(&name, v(3), LIMIT).await.unwrap_err();
    assert!(matches!(error, RegistryError::ServerFailed { status: 500, .. }), "{error}");
    registry.delete_model(&name).await.unwrap();
}

#[tokio::test]
async fn a_prompt_is_not_a_model() {
    let (registry, name) = (registry(), unique("prompt"));
    let tags = BTreeMap::from([("mlflow.prompt.is_prompt".to_owned(), "true".to_owned())]);
    registry.create_model(&name, "", &tags).await.unwrap();
    registry.create_model(&name, "", &BTreeMap::new()).await.unwrap();
    assert_eq!(registry.models(&BTreeSet::from([name.clone()])).await.unwrap(), BTreeMap::new());
    let error = registry.model(&name).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Rejected { detail } if detail.contains("prompt")), "{error}");
    registry.delete_model(&name).await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_reported() {
    let mut url = connection().url;
    // The same address in an unusual notation, which is not in the server's list.
    assert_eq!(url.host_str(), Some("127.0.0.1"), "LAUREL_TEST_MLFLOW_URL has to name 127.0.0.1");
    url.set_host(Some("[::ffff:127.0.0.1]")).unwrap();
    let port = url.port().unwrap();
    let error = MlflowRegistry::new(Connection { url, ..connection() }).unwrap().probe().await.unwrap_err();
    assert_eq!(error, RegistryError::HostRefused { host: format!("[::ffff:7f00:1]:{port}") });
}

#[tokio::test]
async fn a_workspace_is_rejected_by_a_server_without_workspaces() {
    let connection = Connection { workspace: Some("team-a".to_owned()), ..connection() };
    let registry = MlflowRegistry::new(connection).unwrap();
    let error = registry.model(&unique("x")).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::WorkspaceRefused { workspace, .. } if workspace == "team-a"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_path_is_reported() {
    let url = format!("{}/nothing/here", connection().url.as_str().trim_end_matches('/')).parse().unwrap();
    let error = MlflowRegistry::new(Connection { url, ..connection() }).unwrap().probe().await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotARegistry { detail, .. } if detail.contains("404")),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs a server with --enable-workspaces at LAUREL_TEST_MLFLOW_WORKSPACES_URL"]
async fn a_missing_workspace_is_not_a_missing_model() {
    let url = variable("LAUREL_TEST_MLFLOW_WORKSPACES_URL").parse().unwrap();
    let absent = unique("absent");
    let ask = |workspace: &str| {
        let workspace = Some(workspace.to_owned());
        let url = Clone::clone(&url);
        MlflowRegistry::new(Connection { url, workspace, ..connection() }).unwrap()
    };
    assert_eq!(ask("default").model(&absent).await.unwrap(), None);
    for result in [
        ask("nowhere").model(&absent).await.map(drop),
        ask("nowhere").version(&absent, v(1)).await.map(drop),
        ask("nowhere").input_example(&absent, v(1), LIMIT).await.map(drop),
        ask("nowhere").delete_model(&absent).await,
        ask("nowhere").probe().await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, RegistryError::WorkspaceRefused { workspace, .. } if workspace == "nowhere"),
            "{error}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a server with --app-name basic-auth at LAUREL_TEST_MLFLOW_AUTH_URL and its admin's \
     password"]
async fn credentials_are_required_with_authentication() {
    let url: url::Url = variable("LAUREL_TEST_MLFLOW_AUTH_URL").parse().unwrap();
    let ask = |credentials| {
        MlflowRegistry::new(Connection { url: url.clone(), credentials, ..connection() }).unwrap()
    };
    let basic =
        |password: &str| Some(Credentials::Basic { username: "admin".to_owned(), password: password.into() });
    for credentials in [None, basic("wrong"), Some(Credentials::Bearer("token".into()))] {
        let error = ask(credentials).model(&unique("x")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    }
    let admin = ask(basic(&variable("LAUREL_TEST_MLFLOW_AUTH_PASSWORD")));
    assert!(admin.probe().await.unwrap().is_some());
    assert_eq!(admin.model(&unique("x")).await.unwrap(), None);
}
