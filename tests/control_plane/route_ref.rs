//! `spec.traffic.routeRef`: an HTTPRoute of somebody else, of which Laurel manages the backends of a
//! ModelAlias.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
    http_route::HttpRoute,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::alias::{condition, status},
};

const ROUTE: &str = "public-route";

/// A route with a rule for `champion`, and another one that has nothing to do with it.
fn manifest(backends: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": ROUTE },
        "spec": {
            "parentRefs": [{ "name": "public", "namespace": "infra" }],
            "hostnames": ["fraud.example.com"],
            "rules": [
                {
                    "matches": [{ "path": { "type": "PathPrefix", "value": "/docs" } }],
                    "backendRefs": [{ "name": "docs", "port": 80 }],
                },
                {
                    "matches": [{ "headers": [{ "name": "x-team", "value": "risk" }] }],
                    "filters": [{ "type": "RequestHeaderModifier",
                        "requestHeaderModifier": { "set": [{ "name": "x-by", "value": "gateway" }] } }],
                    "timeouts": { "request": "30s" },
                    "backendRefs": backends,
                },
            ],
        },
    })
}

fn own() -> Value {
    json!([{ "name": "champion", "port": 8080 }])
}

fn spec(version: &str) -> String {
    format!("{{version: '{version}', traffic: {{routeRef: {{name: {ROUTE}}}}}}}")
}

fn routes(fixture: &Fixture) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<HttpRoute>(&());
    let client = fixture.api::<HttpRoute>().into_client();
    Api::namespaced_with(client, &fixture.namespace, &resource)
}

async fn apply(fixture: &Fixture, manifest: &Value) -> Result<()> {
    fixture.apply(&manifest.to_string()).await
}

/// Accepts every change of the route, as the controller of a Gateway does, until it is dropped.
fn gateway(fixture: &Fixture) -> JoinSet<()> {
    let routes = routes(fixture);
    let mut controller = JoinSet::new();
    controller.spawn(async move {
        loop {
            if let Ok(Some(route)) = routes.get_opt(ROUTE).await {
                // A change in between is accepted in the next round.
                drop(accept(&routes, &route).await);
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    controller
}

async fn accept(routes: &Api<DynamicObject>, route: &DynamicObject) -> Result<()> {
    let generation = json!(route.metadata.generation);
    if route.data["status"]["parents"][0]["conditions"][0]["observedGeneration"] == generation {
        return Ok(());
    }
    let condition = |type_: &str| {
        json!({ "type": type_, "status": "True", "reason": "Fine", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation })
    };
    let conditions = [condition("Accepted"), condition("ResolvedRefs")];
    let parent = &route.data["spec"]["parentRefs"][0];
    let entry =
        json!({ "parentRef": parent, "controllerName": "test.example/gateway", "conditions": conditions });
    let status = Patch::Merge(json!({ "status": { "parents": [entry] } }));
    let parameters = PatchParams { field_manager: Some("gateway".into()), ..PatchParams::default() };
    routes.patch_status(ROUTE, &parameters, &status).await?;
    Ok(())
}

type Weights = BTreeMap<String, u64>;

fn weights_of(route: &DynamicObject) -> Weights {
    let backends = route.data["spec"]["rules"][1]["backendRefs"].as_array().cloned().unwrap_or_default();
    let name = |backend: &Value| backend["name"].as_str().unwrap_or_default().to_owned();
    backends.iter().map(|backend| (name(backend), backend["weight"].as_u64().unwrap_or_default())).collect()
}

fn weights<const N: usize>(weights: [(&str, u64); N]) -> Weights {
    weights.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect()
}

async fn until_weights<const N: usize>(fixture: &Fixture, wanted: [(&str, u64); N]) -> Result<()> {
    let (routes, wanted, began) = (routes(fixture), weights(wanted), Instant::now());
    loop {
        let now = weights_of(&routes.get(ROUTE).await?);
        if now == wanted {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the route has {now:?}, not {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The spec of the route without the backends of `champion`.
fn everything_else(route: &DynamicObject) -> Value {
    let mut spec = route.data["spec"].clone();
    spec["rules"][1]["backendRefs"] = Value::Null;
    spec
}

async fn until_split(fixture: &Fixture, reason: Reason, part: &str) -> Result<()> {
    let reason = reason.to_string();
    let is_it = |malias: &ModelAlias| {
        let split = condition(malias, ConditionType::TrafficSplit);
        split.is_some_and(|split| split.reason == reason && split.message.contains(part))
    };
    fixture.champion.until(&format!("TrafficSplit {reason} with {part:?}"), PATIENCE, is_it).await.map(drop)
}

#[test]
fn promises_1_and_7_a_route_of_somebody_else_is_shared_put_right_and_handed_back() {
    run("route-ref", async |fixture| {
        fixture.registered(2).await?;
        let _gateway = gateway(fixture);
        apply(fixture, &manifest(&own())).await?;
        let before = routes(fixture).get(ROUTE).await?;

        fixture.get(&spec("1")).await?;
        until_weights(fixture, [("champion-v1", 1_000_000)]).await?;
        let after = routes(fixture).get(ROUTE).await?;
        ensure!(everything_else(&after) == everything_else(&before), "{after:?}");
        ensure!(after.owner_references().is_empty() && after.labels().is_empty(), "{:?}", after.metadata);
        let malias = fixture.champion.last().context("the ModelAlias is gone")?;
        ensure!(status(&malias).route_ref.is_some_and(|reference| reference.name == ROUTE));

        fixture.get(&spec("2")).await?;
        until_weights(fixture, [("champion-v1", 1), ("champion-v2", 999_999)]).await?;
        fixture.get(&spec("1")).await?;
        until_weights(fixture, [("champion-v1", 999_999), ("champion-v2", 1)]).await?;

        // Somebody applies their manifest again, with another match.
        let mut changed = manifest(&own());
        changed["spec"]["rules"][1]["matches"][0]["headers"][0]["value"] = "fraud".into();
        apply(fixture, &changed).await?;
        until_weights(fixture, [("champion-v1", 999_999), ("champion-v2", 1)]).await?;
        let route = routes(fixture).get(ROUTE).await?;
        let header = &route.data["spec"]["rules"][1]["matches"][0]["headers"][0]["value"];
        ensure!(header == "fraud", "their change is kept: {header}");

        let generation = route.metadata.generation;
        sleep(Duration::from_secs(3)).await;
        let later = routes(fixture).get(ROUTE).await?.metadata.generation;
        ensure!(later == generation, "at rest nothing is written: {generation:?}, then {later:?}");

        fixture.desired("{version: '1', traffic: null}").await?;
        until_weights(fixture, [("champion", 1)]).await?;
        let route = routes(fixture).get(ROUTE).await?;
        ensure!(
            route.data["spec"]["rules"][1]["backendRefs"] == before.data["spec"]["rules"][1]["backendRefs"]
        );
        let is_clear = |malias: &ModelAlias| status(malias).route_ref.is_none();
        fixture.champion.until("the status names no route", Duration::from_mins(2), is_clear).await?;
        Ok(())
    });
}

#[test]
fn promise_9_a_route_of_somebody_else_outlives_the_modelalias() {
    run("route-ref-deletion", async |fixture| {
        fixture.registered(1).await?;
        let _gateway = gateway(fixture);
        apply(fixture, &manifest(&own())).await?;
        fixture.get(&spec("1")).await?;
        until_weights(fixture, [("champion-v1", 1_000_000)]).await?;
        let maliases = fixture.api::<ModelAlias>();
        let object = maliases.get("champion").await?;
        maliases.delete("champion", &DeleteParams::default()).await?;
        fixture.gone(&maliases, &object, Duration::from_mins(1)).await?;
        let weights_now = weights_of(&routes(fixture).get(ROUTE).await?);
        ensure!(weights_now == weights([("champion", 1)]), "it was not handed back: {weights_now:?}");
        Ok(())
    });
}

#[test]
fn promise_10_a_route_that_cannot_be_shared_is_reported_until_it_can() {
    run("route-ref-unusable", async |fixture| {
        fixture.registered(1).await?;
        let _gateway = gateway(fixture);
        fixture.desired(&spec("1")).await?;
        until_split(fixture, Reason::RouteUnusable, "there is no HTTPRoute \"public-route\"").await?;
        apply(fixture, &manifest(&json!([{ "name": "other", "port": 80 }]))).await?;
        until_split(
            fixture,
            Reason::RouteUnusable,
            "has no rule that sends requests to the Service \"champion\"",
        )
        .await?;
        let shared = json!([{ "name": "champion", "port": 8080 }, { "name": "other", "port": 80 }]);
        apply(fixture, &manifest(&shared)).await?;
        until_split(fixture, Reason::RouteUnusable, "to the Service \"other\" as well").await?;
        let route = routes(fixture).get(ROUTE).await?;
        ensure!(weights_of(&route) == weights([("champion", 1), ("other", 1)]), "{:?}", weights_of(&route));
        apply(fixture, &manifest(&own())).await?;
        until_weights(fixture, [("champion-v1", 1_000_000)]).await?;
        until_split(fixture, Reason::TrafficSplit, "version 1 gets 100 %").await
    });
}
