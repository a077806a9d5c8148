//! The MLflow backend against a real tracking server, to confirm the assumptions of the wire tests.
//!
//! ```sh
//! tests/scripts/with-mlflow --server 2.9 cargo test --test registry_live
//! ```
//!
//! The script starts the server and describes it. Where a server lacks a feature, the tests expect what
//! Laurel reports instead. They create models whose names begin with `laurel-` and a number, and delete
//! them again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its tests do")]
#![expect(clippy::disallowed_methods, reason = "the environment describes the server")]

use std::collections::{BTreeMap, BTreeSet};

use laurel::{
    api::{
        model_registry::Stages,
        names::{AliasName, ModelName, Version},
    },
    registry::{
        InputExample, Registry, RegistryError, VersionState,
        mlflow::{Connection, Credentials, MlflowRegistry},
    },
};
use pretty_assertions::assert_eq;

use crate::{
    server::{ADMIN, Server, basic},
    upload::Upload,
};

mod promotion;
mod server;
mod upload;
mod webhooks;

/// Maximum size of an input example.
const LIMIT: usize = 1 << 20;

fn connection() -> Connection {
    Server::get().connection()
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
    assert_eq!(registry().probe().await.unwrap(), Server::get().reported());
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
    let upload = Upload::new();
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
    let upload = Upload::new();
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
    let upload = Upload::new();
    for number in 1..=11 {
        upload.version(&name, &format!("s3://nowhere/{number}")).await;
    }
    for (limit, expected) in [(1, vec![11]), (3, vec![11, 10, 9]), (100, (1..=11).rev().collect())] {
        let found = registry.newest_versions(&name, limit).await.unwrap();
        let numbers: Vec<_> = found.iter().map(|facts| facts.version).collect();
        assert_eq!(numbers, expected.into_iter().map(v).collect::<Vec<_>>());
    }
    let other = unique("versions");
    make(&registry, &other).await;
    upload.version(&other, "s3://nowhere/1").await;
    let both = BTreeSet::from([name.clone(), other.clone()]);
    let found = registry.newest_versions_of(&both, 10).await.unwrap();
    // Older servers have no lists of names, and so nothing is known.
    let counts: Vec<usize> = both.iter().filter_map(|name| found.get(name)).map(Vec::len).collect();
    assert!(
        found.is_empty() || (found[&name].len(), found[&other].len()) == (11, 1),
        "{counts:?} versions were found"
    );
    registry.delete_model(&other).await.unwrap();
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
    let upload = Upload::new();
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
    let upload = Upload::new();
    let body = r#"{"inputs": [[1.0, NaN]]}"#;
    let with = upload.model(&name, 1, &[("MLmodel", "a: 1"), ("serving_input_example.json", body)]).await;
    upload.model(&name, 2, &[("MLmodel", "a: 1")]).await;
    let example = registry.input_example(&name, v(1), LIMIT).await.unwrap();
    assert_eq!(example, Some(InputExample::Body(body.as_bytes().to_vec())));
    assert_eq!(registry.version(&name, v(1)).await.unwrap().unwrap().model_uri.as_str(), with);
    assert_eq!(registry.input_example(&name, v(2), LIMIT).await.unwrap(), None);
    let error = registry.input_example(&name, v(3), LIMIT).await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { .. }), "{error}");
    upload.version(&name, "hf://nobody/nothing").await;
    let error = registry.input_example(&name, v(3), LIMIT).await.unwrap_err();
    match &error {
        // Below a prefix, only the server's own artifact store can be read.
        RegistryError::NotARegistry { detail, .. } if Server::get().prefix.is_some() => {
            assert!(detail.contains("with --static-prefix, MLflow serves artifacts only below"), "{detail}");
        }
        RegistryError::ServerFailed { status: 500, .. } => {}
        _ => panic!("{error}"),
    }
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
    let probed = MlflowRegistry::new(Connection { url, ..connection() }).unwrap().probe().await;
    if !Server::get().checks_hosts() {
        assert_eq!(probed.unwrap(), Server::get().reported());
        return;
    }
    assert_eq!(probed.unwrap_err(), RegistryError::HostRefused { host: format!("[::ffff:7f00:1]:{port}") });
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

/// On a server without workspaces, each of them is missing. An old one ignores the header that names it.
#[tokio::test]
async fn a_missing_workspace_is_not_a_missing_model() {
    let server = Server::get();
    let absent = unique("absent");
    let connection = Connection { workspace: Some("nowhere".to_owned()), ..server.connection() };
    let registry = MlflowRegistry::new(connection).unwrap();
    for result in [
        registry.model(&absent).await.map(drop),
        registry.models(&BTreeSet::from([absent.clone()])).await.map(drop),
        registry.version(&absent, v(1)).await.map(drop),
        registry.newest_versions(&absent, 1).await.map(drop),
        registry.input_example(&absent, v(1), LIMIT).await.map(drop),
        registry.create_model(&absent, "", &BTreeMap::new()).await,
        registry.set_alias(&absent, &"champion".parse().unwrap(), v(1)).await,
        registry.delete_model(&absent).await,
        registry.probe().await.map(drop),
    ] {
        let error = result.unwrap_err();
        let RegistryError::WorkspaceRefused { workspace, detail } = &error else { panic!("{error}") };
        assert_eq!(workspace, "nowhere");
        assert_eq!(detail.contains("has no workspaces"), server.workspace.is_none(), "{detail}");
    }
    assert_eq!(self::registry().model(&absent).await.unwrap(), None);
}

#[tokio::test]
async fn the_models_of_another_workspace_are_not_seen() {
    let server = Server::get();
    let other = server.workspace.as_ref().map(|_| "default".to_owned());
    let other = MlflowRegistry::new(Connection { workspace: other, ..server.connection() }).unwrap();
    let (registry, name) = (registry(), unique("workspace"));
    make(&registry, &name).await;
    let names = BTreeSet::from([name.clone()]);
    // Without workspaces, both are the same.
    let is_seen = server.workspace.is_none();
    assert_eq!(other.model(&name).await.unwrap().is_some(), is_seen);
    assert_eq!(other.models(&names).await.unwrap().contains_key(&name), is_seen);
    registry.delete_model(&name).await.unwrap();
}

#[tokio::test]
async fn credentials_are_required_where_the_server_checks_them() {
    let server = Server::get();
    let ask = |credentials| MlflowRegistry::new(Connection { credentials, ..server.connection() }).unwrap();
    let token = || Some(Credentials::Bearer("token".into()));
    for credentials in [None, Some(basic(ADMIN, "wrong")), token()] {
        let is_token = matches!(credentials, Some(Credentials::Bearer(_)));
        let answer = ask(credentials).model(&unique("x")).await;
        if server.password.is_none() {
            assert_eq!(answer.unwrap(), None);
            continue;
        }
        match answer.unwrap_err() {
            RegistryError::Unauthorized { .. } => {}
            // MLflow 3.17 with auth_cache_ttl_seconds fails at a token.
            RegistryError::ServerFailed { status: 500, .. } if is_token => {}
            error => panic!("{error}"),
        }
    }
    assert_eq!(registry().probe().await.unwrap(), server.reported());
}
