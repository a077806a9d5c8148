//! Models by any name, and names that differ only in what a DNS label cannot hold.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use laurel::{
    api::{ModelAlias, ModelRegistry, RegisteredModel, condition::Reason},
    render::labels,
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};
use url::form_urlencoded;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::selected,
    support::alias::{has, is_ready, message},
};

/// What follows the name of the fixture's own model in the names of these, each a name that a person might
/// give, or an attacker.
const NAMES: [&str; 18] = [
    " model",
    "_model",
    ".model",
    "-model",
    "-MODEL",
    " MODEL",
    " (cards) ü",
    " 模型 😀",
    " 100% %2F%00",
    " it's \"so\"",
    r" back\slash\x27",
    " $(HOME) $$ `id`",
    " a;b?c#d&e=f+g,h",
    " ') OR name LIKE ('%",
    "\tcontrol\u{7f}\u{9b}",
    "\nlines\u{85}of\u{2028}all\u{2029}kinds\r",
    "\u{feff}\u{200b}\u{202e}\u{ffff}invisible",
    " <b>&amp;",
];

/// The invariants of the fixture watches another one.
const ALIAS: &str = "live";

/// As it stands in a query.
fn encoded(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

fn is_label(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&value.len())
        && value.chars().all(|c| edge(c) || "-_.".contains(c))
        && value.starts_with(edge)
        && value.ends_with(edge)
}

#[test]
fn promise_4_models_of_any_name_serve_side_by_side() {
    run("names", async |fixture| {
        let long =
            format!("{} ", "lång ".repeat(60)).chars().take(250 - fixture.model.len()).collect::<String>();
        let suffixes =
            NAMES.iter().map(|suffix| (*suffix).to_owned()).chain([long.trim_end().to_owned() + "x"]);
        let names: Vec<String> = suffixes.map(|suffix| format!("{}{suffix}", fixture.model)).collect();
        for (index, name) in names.iter().enumerate() {
            fixture.mlflow.create_model(name).await?;
            fixture.mlflow.register(name).await?;
            fixture.mlflow.register(name).await?;
            desired(fixture, index, name).await?;
        }
        until_ready(fixture, names.len(), 1).await?;
        for (index, name) in names.iter().enumerate() {
            own(fixture, index, name).await?;
            until_named(fixture, name, "1").await?;
        }
        apart(fixture, names.len()).await?;

        // What is done to one of a pair is not done to the other.
        let patch = json!({ "spec": { "version": "2" } });
        fixture.api::<ModelAlias>().patch("n0", &PatchParams::default(), &Patch::Merge(patch)).await?;
        until_named(fixture, &names[0], "2").await?;
        for other in &names[1..] {
            let its = fixture.mlflow.alias(&encoded(other), ALIAS).await?;
            ensure!(its.as_deref() == Some("1"), "@{ALIAS} of {other:?} names {its:?}");
        }
        Ok(())
    });
}

/// A RegisteredModel and a ModelAlias, both called `n<index>`, for the model of this name.
async fn desired(fixture: &Fixture, index: usize, name: &str) -> Result<()> {
    let object = |kind: &str, spec: Value| json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": kind, "metadata": { "name": format!("n{index}") }, "spec": spec });
    let model: RegisteredModel =
        serde_json::from_value(object("RegisteredModel", json!({ "modelName": name })))?;
    let alias: ModelAlias = serde_json::from_value(object(
        "ModelAlias",
        json!({
            "modelRef": { "name": format!("n{index}") },
            "alias": ALIAS,
            "version": "1",
            "serving": { "image": "registry.example/serving:1" },
            "rollout": { "smokeTest": { "mode": "Disabled" } },
        }),
    ))?;
    fixture.api().create(&PostParams::default(), &model).await.with_context(|| format!("{name:?}"))?;
    fixture.api().create(&PostParams::default(), &alias).await?;
    Ok(())
}

async fn until_ready(fixture: &Fixture, count: usize, generation: i64) -> Result<()> {
    let began = Instant::now();
    loop {
        let aliases = fixture.api::<ModelAlias>().list(&ListParams::default()).await?.items;
        let waiting: Vec<_> = aliases.iter().filter(|alias| !is_ready(alias, generation)).collect();
        if aliases.len() == count && waiting.is_empty() {
            return Ok(());
        }
        let reported: Vec<_> =
            waiting.iter().map(|alias| format!("{}: {}", alias.name_any(), message(alias))).collect();
        ensure!(began.elapsed() < PATIENCE * 2, "not ready:\n{}", reported.join("\n"));
        sleep(Duration::from_millis(200)).await;
    }
}

async fn until_named(fixture: &Fixture, name: &str, version: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let named = fixture.mlflow.alias(&encoded(name), ALIAS).await?;
        if named.as_deref() == Some(version) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "@{ALIAS} of {name:?} names {named:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The Service and the Deployment of one alias say the name as it is, and carry valid labels.
async fn own(fixture: &Fixture, index: usize, name: &str) -> Result<()> {
    let deployment: Deployment = fixture.api().get(&format!("n{index}-v1")).await?;
    let service: Service = fixture.api().get(&format!("n{index}")).await?;
    for (labels, annotations) in
        [(deployment.labels(), deployment.annotations()), (service.labels(), service.annotations())]
    {
        ensure!(annotations[labels::MODEL_NAME] == name, "{annotations:?}");
        ensure!(labels.values().all(|value| is_label(value)), "{labels:?}");
        ensure!(labels[labels::MODEL_ALIAS] == format!("n{index}"), "{labels:?}");
    }
    let selected = ListParams::default().labels(&format!("{}=n{index}", labels::MODEL_ALIAS));
    let pods = fixture.api::<Pod>().list(&selected).await?;
    ensure!(pods.items.len() == 1, "n{index} has {} pods", pods.items.len());
    let container = pods.items[0].spec.as_ref().context("a pod has a spec")?.containers[0].clone();
    let value = container.env.into_iter().flatten().find(|variable| variable.name == "MODEL_NAME");
    let value = value.and_then(|variable| variable.value).unwrap_or_default();
    // In a pod's spec a dollar is doubled, or it would begin a reference.
    ensure!(value.replace("$$", "$") == name, "MODEL_NAME is {value:?} for {name:?}");
    Ok(())
}

/// No two models have the same label, though many have the same readable part.
async fn apart(fixture: &Fixture, count: usize) -> Result<()> {
    let services = fixture.api::<Service>().list(&ListParams::default()).await?;
    let models: BTreeMap<_, _> = services
        .iter()
        .filter_map(|service| Some((service.labels().get(labels::MODEL)?.clone(), service.name_any())))
        .collect();
    println!("{:#?}", models.keys().collect::<Vec<_>>());
    ensure!(models.len() == count, "{} labels for {count} models", models.len());
    Ok(())
}

#[test]
fn promise_10_an_unusable_url_is_reported_and_can_be_corrected() {
    run("no-url", async |fixture| {
        fixture.mlflow.create_model(&fixture.model).await?;
        fixture.mlflow.register(&fixture.model).await?;
        // The API server takes it, because Go does.
        let registry = "{apiVersion: laurel.dev/v1alpha1, kind: ModelRegistry, metadata: {name: mlflow}, \
             spec: {mlflow: {url: ";
        fixture.apply(&format!("{registry}'http://127.0.0.1:99999'}}, pollInterval: 5s}}}}")).await?;
        fixture.describe_model("registryRef: {name: mlflow}").await?;
        until_reported(fixture, "RegistryInvalid", "invalid port number").await?;
        let change = fixture.desired("version: '1'").await?;
        fixture.champion.reason(change, Reason::ModelRegistryNotFound, PATIENCE).await?;

        fixture.apply(&format!("{registry}'{}'}}, pollInterval: 5s}}}}", fixture.registry.url())).await?;
        until_reported(fixture, "Connected", "answers").await?;
        fixture.champion.ready(change, PATIENCE).await?;

        // Spoilt once more: what serves goes on.
        let spoilt = Instant::now();
        fixture.apply(&format!("{registry}'http://127.0.0.1.5'}}, pollInterval: 5s}}}}")).await?;
        until_reported(fixture, "RegistryInvalid", "http://127.0.0.1.5").await?;
        let obstructed = |alias: &ModelAlias| has(alias, Reason::ModelRegistryNotFound);
        fixture.champion.until_since(spoilt, "it is told there, too", PATIENCE, obstructed).await?;
        ensure!(selected(fixture).await? == "1", "the Service was moved");
        Ok(())
    });
}

/// Waits until the ModelRegistry `mlflow` says this.
async fn until_reported(fixture: &Fixture, reason: &str, words: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let registry: ModelRegistry = fixture.api().get("mlflow").await?;
        let conditions = registry.status.clone().map(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        if ready.as_ref().is_some_and(|ready| ready.reason == reason && ready.message.contains(words)) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the registry says {ready:?}");
        sleep(Duration::from_millis(100)).await;
    }
}
