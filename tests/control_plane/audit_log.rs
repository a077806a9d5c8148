//! The record: what was live, when, who asked for it and why, in the registry's tags and out of them again.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use laurel::api::{CHANGED_BY_ANNOTATION, ModelAlias, model_alias::Recorded};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::selected,
    support::alias::status,
};

/// As long as the registry may take to be told.
const REPORTED_WITHIN: Duration = Duration::from_mins(1);

/// What `laurel history` prints, with its exit code.
async fn history(fixture: &Fixture, arguments: &[&str]) -> Result<(i32, String)> {
    let mut laurel = Command::new(env!("CARGO_BIN_EXE_laurel"));
    laurel.args(["history", &fixture.model]).args(arguments);
    laurel.env("MLFLOW_TRACKING_URI", fixture.mlflow.url()).stdin(Stdio::null());
    let output = laurel.output().await?;
    let text = String::from_utf8(output.stdout)? + std::str::from_utf8(&output.stderr)?;
    Ok((output.status.code().unwrap_or(-1), text))
}

/// Waits until everything that the status tells of stands in the registry.
async fn until_recorded(fixture: &Fixture, entries: usize) -> Result<ModelAlias> {
    let all = |it: &ModelAlias| {
        let history = status(it).history;
        history.len() == entries && history.iter().all(|entry| entry.recorded == Recorded::Written)
    };
    let seen = fixture.champion.until(&format!("{entries} entries, recorded"), REPORTED_WITHIN, all).await?;
    Ok(seen.object)
}

async fn tags(fixture: &Fixture, version: &str) -> Result<BTreeMap<String, String>> {
    fixture.mlflow.version_tags(&fixture.model, version).await
}

/// The tags for a person, without the log and without times.
fn facts(tags: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let facts = tags.iter().filter(|(key, _)| key.starts_with("laurel.") && !key.starts_with("laurel.log."));
    facts
        .map(|(key, value)| (key.as_str(), if key.ends_with("_at") { "…" } else { value.as_str() }))
        .collect()
}

#[test]
fn the_audit_log_outlives_the_modelalias() {
    run("record", async |fixture| {
        fixture.registered(3).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        until_recorded(fixture, 2).await?;
        let bad = "
version: '3'
rollout: {progressDeadline: 3s}
serving: {template: {metadata: {annotations: {kwok.laurel.test/fate: never-ready}}}}
";
        fixture.desired(bad).await?;
        until_recorded(fixture, 3).await?;
        fixture.get("version: '1'").await?;
        let last = until_recorded(fixture, 4).await?;
        ensure!(selected(fixture).await? == "1", "version 1 does not serve");

        let (one, two, three) =
            (tags(fixture, "1").await?, tags(fixture, "2").await?, tags(fixture, "3").await?);
        let promoted = |from| {
            BTreeMap::from([
                ("laurel.promoted_as", "champion"),
                ("laurel.promoted_at", "…"),
                ("laurel.promoted_by", "unknown"),
                ("laurel.promoted_from", from),
            ])
        };
        ensure!(facts(&one) == promoted("2"), "{one:?}");
        let mut left = promoted("1");
        left.insert("laurel.rolled_back_at", "…");
        ensure!(facts(&two) == left, "{two:?}");
        let why = three.get("laurel.rejected").context("version 3 was rejected")?;
        ensure!(why.starts_with("champion: ProgressDeadlineExceeded: "), "{why}");
        let lines = |tags: &BTreeMap<String, String>| {
            tags.keys().filter(|key| key.starts_with("laurel.log.champion.")).count()
        };
        ensure!((lines(&one), lines(&two), lines(&three)) == (2, 1, 1), "{one:?} {two:?} {three:?}");

        let (code, before) = history(fixture, &[]).await?;
        // The header and four entries. Their details and long cells continue on indented lines.
        let rows = before.lines().filter(|line| !line.starts_with(' ')).count();
        ensure!(code == 0 && rows == 5, "{code}: {before}");
        let promoted_at = status(&last).history[2].at.to_string();
        let then = history(fixture, &["--at", &promoted_at, "-o", "json"]).await?;
        let reported: Value = serde_json::from_str(&then.1)?;
        ensure!(reported["entries"].as_array().is_some_and(|all| all.len() == 1), "{reported}");
        ensure!(
            reported["entries"][0]["version"] == "2" && reported["entries"][0]["from"] == "1",
            "{reported}"
        );

        fixture.kubectl(&["delete", "malias/champion", "rmodel/model"]).await?;
        ensure!(history(fixture, &[]).await? == (0, before), "it tells otherwise without the objects");
        ensure!(history(fixture, &["--at", "2020-01-01"]).await?.0 == 1, "nothing was live then");
        let (code, reported) = history(fixture, &["--registry", "http://127.0.0.1:1"]).await?;
        ensure!(code == 2 && reported.contains("cannot reach"), "{code}: {reported}");
        Ok(())
    });
}

#[test]
fn an_entry_of_a_deleted_version_is_reported_and_later_ones_are_written() {
    run("record-gone", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        until_recorded(fixture, 2).await?;
        fixture.mlflow.delete_version(&fixture.model, "1").await?;
        fixture.desired("version: '1'").await?;
        fixture.event("NotRecorded").await?;
        ensure!(selected(fixture).await? == "1", "a rollback needs no registry");
        fixture.get("version: '2'").await?;
        let settled = |it: &ModelAlias| {
            let recorded: Vec<_> = status(it).history.iter().map(|entry| entry.recorded).collect();
            recorded.first() == Some(&Recorded::Written) && recorded.get(1) == Some(&Recorded::Impossible)
        };
        fixture.champion.until("the way back is recorded", REPORTED_WITHIN, settled).await.map(drop)
    });
}

/// The policy that comes with Laurel, for the namespace of one test alone.
async fn stamped(fixture: &Fixture, name: &str) -> Result<Vec<(Api<DynamicObject>, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/components/changed-by/policy.yaml");
    let text = std::fs::read_to_string(path)?;
    let mut made = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut object: DynamicObject = serde_json::from_value(Value::deserialize(document)?)?;
        object.metadata.name = Some(name.to_owned());
        let types = object.types.clone().context("an object has a kind")?;
        let only_here = json!({ "matchLabels": { "kubernetes.io/metadata.name": fixture.namespace } });
        if types.kind.ends_with("Binding") {
            object.data["spec"]["policyName"] = name.into();
        } else {
            object.data["spec"]["matchConstraints"]["namespaceSelector"] = only_here;
        }
        let resource = ApiResource::from_gvk(&types.try_into()?);
        let api: Api<DynamicObject> = Api::all_with(fixture.cluster.client.clone(), &resource);
        api.create(&PostParams::default(), &object).await?;
        made.push((api, name.to_owned()));
    }
    Ok(made)
}

/// A client that is somebody else, who may do anything.
async fn somebody(fixture: &Fixture, user: &str) -> Result<Api<ModelAlias>> {
    let kubeconfig = fixture.cluster.kubeconfig().context("the rig has a kubeconfig")?;
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    Ok(Api::namespaced(Client::try_from(config)?, &fixture.namespace))
}

fn stamp(alias: &ModelAlias) -> Option<&str> {
    alias.annotations().get(CHANGED_BY_ANNOTATION).map(String::as_str)
}

/// Waits until the API server follows a policy that it has just been given.
async fn until_in_force(api: &Api<ModelAlias>) -> Result<()> {
    let mut desired = crate::simulated::place::Place::manifest("version: '1'")?;
    desired["metadata"]["name"] = "nobody".into();
    let desired: ModelAlias = serde_json::from_value(desired)?;
    let began = Instant::now();
    loop {
        let made = api.create(&PostParams { dry_run: true, field_manager: None }, &desired).await?;
        if stamp(&made).is_some() {
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * PATIENCE, "the policy is not in force");
        sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn the_api_server_sets_the_requester_and_nobody_can_forge_it() {
    run("record-who", async |fixture| {
        let name = format!("laurel-changed-by-{}", fixture.namespace);
        let policy = stamped(fixture, &name).await?;
        let reported = forgeries(fixture).await;
        for (api, name) in policy {
            api.delete(&name, &DeleteParams::default()).await?;
        }
        reported
    });
}

async fn forgeries(fixture: &Fixture) -> Result<()> {
    let (ana, bob) = (somebody(fixture, "ana").await?, somebody(fixture, "bob").await?);
    until_in_force(&ana).await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    let merge = |patch: Value| Patch::Merge(patch);
    let change = PatchParams::default();

    let commit = json!({ "metadata": { "annotations": { "laurel.dev/commit": "4f1c2d3" } }, "spec": { "version": "2" } });
    let made = ana.patch("champion", &change, &merge(commit)).await?;
    ensure!(stamp(&made) == Some("ana"), "{:?}", made.metadata);
    let last = until_recorded(fixture, 2).await?;
    let entry = &status(&last).history[0];
    ensure!((entry.requested_by.as_str(), entry.commit.as_deref()) == ("ana", Some("4f1c2d3")), "{entry:?}");
    let reported = tags(fixture, "2").await?;
    ensure!(reported["laurel.promoted_by"] == "ana, commit 4f1c2d3", "{reported:?}");

    // What decides nothing leaves the name; a name that is given is not taken; one that is removed is put
    // back.
    let forged = |value: Value| json!({ "metadata": { "annotations": { CHANGED_BY_ANNOTATION: value } } });
    let sized = json!({ "spec": { "serving": { "replicas": 3 } } });
    let cleared = json!({ "metadata": { "annotations": null } });
    for patch in [sized, forged("the boss".into()), forged(Value::Null), cleared] {
        let made = bob.patch("champion", &change, &merge(patch.clone())).await?;
        ensure!(stamp(&made) == Some("ana"), "{patch}: {:?}", made.metadata);
    }
    let mut both = forged("ana".into());
    both["spec"] = json!({ "version": "1" });
    let made = bob.patch("champion", &change, &merge(both)).await?;
    ensure!(stamp(&made) == Some("bob"), "{:?}", made.metadata);
    let asked =
        json!({ "metadata": { "annotations": { "laurel.dev/retry": "1", CHANGED_BY_ANNOTATION: "bob" } } });
    let made = ana.patch("champion", &change, &merge(asked)).await?;
    ensure!(stamp(&made) == Some("ana"), "who asks to try again decides: {:?}", made.metadata);
    let follow = json!({ "spec": { "version": null, "follow": { "latest": {} } } });
    let made = bob.patch("champion", &change, &merge(follow)).await?;
    ensure!(stamp(&made) == Some("bob"), "{:?}", made.metadata);

    // Applied anew without the annotation, by a field manager that owns it.
    let applied = fixture.desired("{version: null, follow: {latest: {}}}").await?;
    let now = fixture.api::<ModelAlias>().get("champion").await?;
    ensure!(stamp(&now) == Some("bob"), "{applied:?}: {:?}", now.metadata);
    Ok(())
}
