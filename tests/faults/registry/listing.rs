//! Pages of the listing of models that are empty, truncated, endless, or change while being read. A model
//! missing from a page exists until a direct read proves otherwise.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use laurel::api::{
    RegisteredModel,
    condition::{ConditionType, Reason},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    RunningCase, asked, case, cluster,
    reports::{Reports, held},
    serving, untouched,
};
use crate::{
    fixture::{Fixture, PATIENCE, TWO_POLLS},
    simulated::look::selected,
    support::watch::Watch,
    wire::{Exchange, Rule, Violation},
};

/// `{"offset": 1}`, in MLflow's format of a page token.
const FROM_THE_SECOND: &str = "eyJvZmZzZXQiOiAxfQ==";
/// `{"offset": 4}`.
const FROM_THE_FIFTH: &str = "eyJvZmZzZXQiOiA0fQ==";

/// Whether a request is for a page of the listing of watched models.
fn is_listing(exchange: &Exchange) -> bool {
    exchange.path.contains("registered-models/search") && exchange.path.contains("filter=")
}

/// Changes MLflow's own page.
fn page(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Violation {
    Violation::alter(move |status, body| {
        let Ok(mut page) = serde_json::from_slice(&body) else { return (status, body) };
        change(&mut page);
        (status, page.to_string().into())
    })
}

fn models(page: &mut Value) -> Option<&mut Vec<Value>> {
    page["registered_models"].as_array_mut()
}

async fn at_rest(fixture: &Fixture) -> Result<Reports> {
    let reported = serving(fixture, 2).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    Ok(reported)
}

pub(super) fn cases() -> Vec<RunningCase> {
    vec![
        case("reg-empty", empty),
        case("reg-pages", broken),
        case("reg-walk", walked),
        case("reg-one", one_of_two),
    ]
}

/// Endless empty pages: each model is read directly, and nothing happens.
async fn empty(fixture: &Fixture) -> Result<()> {
    at_rest(fixture).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    let direct = format!("registered-models/get?name={}", fixture.model);
    let reads = asked(fixture, &Method::GET, &direct);
    let empty = fixture.registry.place(Rule::when(is_listing, Violation::json(200, &json!({}))));
    empty.until_struck(2, PATIENCE).await?;
    fixture.until_quiet().await?;
    ensure!(asked(fixture, &Method::GET, &direct) >= reads + 2, "the model was not read directly");
    held(fixture, began, ConditionType::RegistrySynced)?;
    untouched(fixture, &before).await
}

/// Pages that cannot be correct.
async fn broken(fixture: &Fixture) -> Result<()> {
    let reported = at_rest(fixture).await?;
    let before = cluster(fixture).await?;
    let again = page(|page| page["next_page_token"] = json!(FROM_THE_SECOND));
    let half = Violation::alter(|status, body| (status, body[..body.len() / 2].to_vec()));
    for (violation, part) in [(again, "pages of its listing repeat"), (half, "is truncated after")] {
        let began = Instant::now();
        let rule = fixture.registry.place(Rule::when(is_listing, violation));
        let text = reported.error(fixture, began, Reason::RegistryFailing).await.context(part)?;
        ensure!(text.contains(part), "{text:?}");
        untouched(fixture, &before).await?;
        let lifted = Instant::now();
        fixture.registry.lift(&rule);
        reported.well(fixture, lifted).await.context(part)?;
    }
    untouched(fixture, &before).await
}

/// MLflow's pages are offsets: models deleted between two pages hide others, here the serving one.
async fn walked(fixture: &Fixture) -> Result<()> {
    let reported = at_rest(fixture).await?;
    // MLflow lists by name, so these come first.
    let others: Vec<String> = (0..6).map(|number| format!("a{number}-{}", fixture.model)).collect();
    for (number, name) in others.iter().enumerate() {
        fixture.apply(&other(number, name)).await?;
    }
    for name in &others {
        while fixture.mlflow.model(name).await?.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    fixture.journal.until_quiet(Duration::from_secs(6), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    let first = page(|page| {
        let Some(models) = models(page) else { return };
        models.truncate(4);
        page["next_page_token"] = json!(FROM_THE_FIFTH);
    });
    let first = Rule::when(|asked| is_listing(asked) && !asked.path.contains("page_token="), first);
    fixture.registry.place(first.times(1));
    let (mlflow, gone) = (fixture.mlflow, others[..3].to_vec());
    let second = Violation::before(move |_| {
        let gone = gone.clone();
        async move {
            for name in gone {
                mlflow.delete_model(&name).await.unwrap();
            }
        }
    });
    let second = fixture.registry.place(Rule::on(Method::GET, "page_token=", second).times(1));
    second.until_struck(1, PATIENCE).await?;
    let direct = format!("registered-models/get?name={}", fixture.model);
    let is_direct = |exchange: &Exchange| exchange.arrived >= began && exchange.path.contains(&direct);
    fixture.journal.until("the served model is read directly", PATIENCE, is_direct).await?;
    // The deleted models are described here, so they are created again.
    for name in &others {
        let since = Instant::now();
        while fixture.mlflow.model(name).await?.is_none() {
            ensure!(since.elapsed() < PATIENCE, "{name} was not created again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    fixture.until_quiet().await?;
    held(fixture, began, ConditionType::RegistrySynced)?;
    held(fixture, began, ConditionType::Ready)?;
    reported.connected_since(began)?;
    untouched(fixture, &before).await
}

fn other(number: usize, name: &str) -> String {
    format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: RegisteredModel
metadata: {{name: other-{number}}}
spec: {{modelName: {name}, registryRef: {{name: mlflow}}}}
"
    )
}

/// A model without read permission hides no other one.
async fn one_of_two(fixture: &Fixture) -> Result<()> {
    let reported = at_rest(fixture).await?;
    let (began, hidden) = (Instant::now(), format!("secret-{}", fixture.model));
    let name = hidden.clone();
    fixture.registry.place(Rule::when(
        is_listing,
        page(move |page| {
            if let Some(models) = models(page) {
                models.retain(|model| model["name"] != name.as_str());
            }
        }),
    ));
    let forbidden =
        Violation::json(403, &json!({"error_code": "PERMISSION_DENIED", "message": "Permission denied"}));
    fixture.registry.place(Rule::on(Method::GET, &format!("registered-models/get?name={hidden}"), forbidden));
    fixture.apply(&other(0, &hidden)).await?;
    let other: Watch<RegisteredModel> = Watch::of(fixture.api(), "other-0");
    let ready = |model: &RegisteredModel| -> Option<Condition> {
        let conditions = model.status.clone().unwrap_or_default().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "Ready")
    };
    let is_reported = |model: &RegisteredModel| {
        ready(model).is_some_and(|ready| {
            ready.reason == "RegistryForbidden" && ready.message.contains(&fixture.registry.url())
        })
    };
    other.until("RegistryForbidden of the other model", PATIENCE, |seen| is_reported(&seen.object)).await?;
    fixture.get("version: '2'").await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_named("champion", Some("2")).await?;
    reported.connected_since(began)?;
    held(fixture, began, ConditionType::Serving)?;
    let lifted = Instant::now();
    fixture.registry.lift_all();
    let is_well = |model: &RegisteredModel| ready(model).is_some_and(|ready| ready.status == "True");
    let read =
        other.until("the other model is read", PATIENCE, |seen| seen.at >= lifted && is_well(&seen.object));
    read.await.map(drop)
}
