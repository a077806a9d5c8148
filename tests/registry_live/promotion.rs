//! What a promotion reads and writes: candidates with their metrics and tags, the alias, the audit log.

use std::collections::{BTreeMap, BTreeSet};

use laurel::{
    api::names::AliasName,
    registry::{Registry, VersionFacts},
};
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::{make, registry, unique, upload::Upload, v};

#[tokio::test]
async fn candidates_are_found_with_their_metrics_and_tags_and_a_promotion_is_recorded() {
    let (registry, name) = (registry(), unique("promotion"));
    make(&registry, &name).await;
    let upload = Upload::new();
    let values = [json!(0.9), json!("NaN"), json!(0.8)];
    let mut runs = Vec::new();
    for value in values {
        runs.push(upload.version_of_run(&name, &[("auc", value)]).await);
    }
    upload.version(&name, "s3://nowhere/model").await;
    registry.set_version_tag(&name, v(1), "semver", "2.1.0").await.unwrap();

    let found = registry.newest_versions(&name, 10).await.unwrap();
    let of = |number: u32| found.iter().find(|facts| facts.version == v(number)).unwrap();
    assert_eq!(found.iter().map(|facts| facts.version).collect::<Vec<_>>(), [v(4), v(3), v(2), v(1)]);
    assert_eq!(of(1).tags, BTreeMap::from([("semver".to_owned(), "2.1.0".to_owned())]));
    assert_eq!(of(4).run_id, None);
    let mut numbers = Vec::new();
    for (number, run) in (1..).zip(&runs) {
        assert_eq!(of(number).run_id.as_ref(), Some(run));
        let metrics = registry.metrics(run).await.unwrap().unwrap();
        numbers.push(metrics["auc"].number());
    }
    assert_eq!(numbers, [Some(0.9), None, Some(0.8)], "NaN is not a number");
    assert_eq!(registry.metrics("0123456789abcdef0123456789abcdef").await.unwrap(), None);

    // The tags of the audit log, on the version and with every character that they have.
    let entry = r#"{"at":"2026-11-29T05:00:00Z","by":"ü <a@b>","cause":"Spec"}"#;
    let champion: AliasName = "champion".parse().unwrap();
    registry.set_alias(&name, &champion, v(1)).await.unwrap();
    registry.set_version_tag(&name, v(1), "laurel.dev/champion.1", entry).await.unwrap();
    registry.set_version_tag(&name, v(1), "laurel.dev/champion.2", "x").await.unwrap();
    registry.delete_version_tag(&name, v(1), "laurel.dev/champion.2").await.unwrap();
    registry.delete_version_tag(&name, v(1), "laurel.dev/champion.2").await.unwrap();
    let VersionFacts { tags, .. } = registry.version(&name, v(1)).await.unwrap().unwrap();
    let expected = [("laurel.dev/champion.1", entry), ("semver", "2.1.0")];
    assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());

    let listed = registry.models(&BTreeSet::from([name.clone(), unique("missing")])).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[&name].aliases, BTreeMap::from([(champion, v(1))]));
    registry.delete_model(&name).await.unwrap();
}
