//! An object that this release cannot parse, for instance because a later one wrote it: it is reported,
//! stalls no other, its workloads keep serving, and it can be deleted.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use laurel::api::{ModelAlias, RegisteredModel, condition::Reason};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, RECOVERY, calm, case, run_all};
use crate::{
    fixture::Fixture,
    simulated::look::{revisions, selected},
    support::alias::message,
    wire::{Exchange, Rule, Violation},
};

/// Changes an object on its way to the operator.
type Change = fn(&mut Value);

/// In lists and watches: the object `champion` or `model` is changed.
fn shown(name: &'static str, change: Change) -> Violation {
    let object = move |object: &mut Value| {
        if object.pointer("/metadata/name").is_some_and(|it| it == name) {
            change(object);
        }
    };
    Violation::alter(move |status, body| {
        let Ok(mut body) = serde_json::from_slice::<Value>(&body) else { return (status, body) };
        if let Some(items) = body.get_mut("items").and_then(Value::as_array_mut) {
            items.iter_mut().for_each(object);
        } else if let Some(it) = body.get_mut("object") {
            object(it);
        }
        (status, format!("{body}\n").into_bytes())
    })
}

fn views(kind: &'static str) -> impl Fn(&Exchange) -> bool + Clone + Send + Sync + 'static {
    move |exchange| exchange.method == Method::GET && exchange.path.contains(kind)
}

/// Waits for the Event about an object that cannot be parsed. Returns its message.
async fn event(fixture: &Fixture, kind: &str, name: &str) -> Result<String> {
    let events: Api<Event> = fixture.api();
    let began = Instant::now();
    loop {
        let seen = events.list(&ListParams::default()).await?.items.into_iter().find(|event| {
            let about = &event.involved_object;
            event.reason.as_deref() == Some("Unreadable")
                && about.kind.as_deref() == Some(kind)
                && about.name.as_deref() == Some(name)
        });
        if let Some(event) = seen {
            return Ok(event.message.unwrap_or_default());
        }
        ensure!(began.elapsed() < PATIENCE, "no Event reports that the {kind} {name} cannot be parsed");
        sleep(Duration::from_millis(100)).await;
    }
}

const OTHER: &str = "
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {name: other}
spec: {modelRef: {name: model}, alias: other, version: '1'}
";

/// A serving alias can no longer be parsed after a restart, or while the operator is running.
async fn alias(fixture: &Fixture, change: Change, text: &str, restarts: bool) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    let desired = fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    fixture.until_quiet().await?;
    let before = revisions(fixture).await?;
    let altered = fixture.kubernetes.place(Rule::when(views("/modelaliases?"), shown("champion", change)));
    let began = Instant::now();
    if restarts {
        fixture.operator.restart().await?;
    } else {
        fixture.kubernetes.drop_streams();
        altered.until_struck(1, PATIENCE).await?;
        // A change, so that the watch delivers it.
        fixture.retry("unseen").await?;
    }
    let reported = event(fixture, "ModelAlias", "champion").await?;
    ensure!(
        reported.contains("Laurel cannot parse this ModelAlias") && reported.contains(text),
        "{reported}"
    );
    // Another alias is not affected.
    fixture.apply(OTHER).await?;
    fixture.until_named("other", Some("1")).await?;
    fixture.mlflow.delete_alias(&fixture.model, "champion").await?;
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
    let after = revisions(fixture).await?;
    for untouched in ["Deployment champion-v1", "Service champion"] {
        ensure!(before[untouched] == after[untouched], "the {untouched} was written");
    }
    calm(fixture, began, |exchange| !exchange.is_watch())?;
    fixture.mlflow.set_alias(&fixture.model, "champion", "1").await?;

    // Corrected.
    fixture.kubernetes.lift(&altered);
    fixture.kubernetes.drop_streams();
    let corrected = fixture.desired("version: '2'").await?;
    ensure!(corrected.generation > desired.generation, "nothing was corrected");
    fixture.champion.ready(corrected, RECOVERY).await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    Ok(())
}

/// An alias that cannot be parsed is deleted: it is gone, and its alias in the registry stays.
async fn deleted(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(1).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    fixture.operator.kill()?;
    let aliases = fixture.api::<ModelAlias>();
    let champion = aliases.get("champion").await?;
    let deleted = aliases.delete("champion", &DeleteParams::default()).await?;
    ensure!(deleted.is_left(), "it was deleted despite its finalizer");
    let change: Change = |alias| alias["spec"]["rollout"]["strategy"] = json!("Leapfrog");
    fixture.kubernetes.place(Rule::when(views("/modelaliases?"), shown("champion", change)));
    fixture.operator.start().await?;
    fixture.gone(&aliases, &champion, RECOVERY).await?;
    ensure!(
        event(fixture, "ModelAlias", "champion").await?.contains("its finalizer is removed"),
        "no Event reports that its finalizer is removed"
    );
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias in the registry is gone");
    Ok(())
}

/// The RegisteredModel of a serving alias cannot be parsed: the alias reports it, and keeps serving.
async fn model(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let change: Change = |model| model["spec"]["deletionPolicy"] = json!("Archive");
    let altered = fixture.kubernetes.place(Rule::when(views("/registeredmodels?"), shown("model", change)));
    fixture.operator.restart().await?;
    ensure!(event(fixture, "RegisteredModel", "model").await?.contains("Archive"), "the value is not named");
    let change = fixture.desired("version: '2'").await?;
    let refused = fixture.champion.reason(change, Reason::RegisteredModelNotFound, PATIENCE).await?.object;
    ensure!(message(&refused).contains("cannot be read"), "{}", message(&refused));
    ensure!(selected(fixture).await? == "1", "traffic moved");
    let models: Api<RegisteredModel> = fixture.api();
    ensure!(models.get_opt("model").await?.is_some(), "it is gone");
    fixture.kubernetes.lift(&altered);
    fixture.operator.restart().await?;
    fixture.champion.ready(change, RECOVERY).await.map(drop)
}

/// An alias that the spec does not name any more may be claimed by a ModelAlias that cannot be parsed: it
/// stays.
async fn claimed(fixture: &Fixture) -> Result<()> {
    const CLAIMS: &str = "
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {name: other}
spec: {modelRef: {name: model}, alias: previous, version: '1'}
";
    let change: Change = |alias| alias["spec"]["alias"] = json!(7);
    let altered = fixture.kubernetes.place(Rule::when(views("/modelaliases?"), shown("other", change)));
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    for version in ["1", "2"] {
        fixture.get(&format!("version: '{version}'\npreviousAlias: previous")).await?;
    }
    fixture.until_named("previous", Some("1")).await?;
    fixture.apply(CLAIMS).await?;
    event(fixture, "ModelAlias", "other").await?;
    let renamed = fixture.desired("version: '2'\npreviousAlias: before").await?;
    // It is removed first, and the new one set after that.
    let waiting = fixture.champion.reason(renamed, Reason::RegistryPending, PATIENCE).await?.object;
    for part in ["\"previous\"", "other", "cannot be parsed"] {
        ensure!(message(&waiting).contains(part), "{part:?} is missing: {}", message(&waiting));
    }
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
    ensure!(fixture.named("previous").await?.as_deref() == Some("1"), "it deleted an alias of somebody else");

    // Corrected: a change, so that the watch delivers it.
    fixture.kubernetes.lift(&altered);
    fixture.kubernetes.drop_streams();
    fixture.apply(&CLAIMS.replace("{name: other}", "{name: other, labels: {corrected: 'yes'}}")).await?;
    fixture.champion.ready(renamed, RECOVERY).await?;
    fixture.until_named("before", Some("1")).await?;
    ensure!(fixture.named("previous").await?.as_deref() == Some("1"), "it belongs to the other ModelAlias");
    Ok(())
}

#[test]
fn promise_10_an_object_that_cannot_be_parsed_is_reported_stalls_no_other_and_can_be_deleted() {
    let strategy: Change = |alias| alias["spec"]["rollout"]["strategy"] = json!("Leapfrog");
    let replicas: Change = |alias| alias["spec"]["serving"]["replicas"] = json!(-1);
    run_all([
        case("u-strategy", async move |fixture| alias(fixture, strategy, "Leapfrog", true).await),
        case("u-replicas", async move |fixture| alias(fixture, replicas, "-1", true).await),
        case("u-running", async move |fixture| alias(fixture, strategy, "Leapfrog", false).await),
        case("u-deleted", async |fixture| deleted(fixture).await),
        case("u-model", async |fixture| model(fixture).await),
        case("u-claimed", async |fixture| claimed(fixture).await),
    ]);
}
