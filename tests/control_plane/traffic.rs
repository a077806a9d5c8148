//! `spec.traffic`: an HTTPRoute, whose status is written here as the controller of a Gateway writes it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::watcher,
};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
    http_route::HttpRoute,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::selected,
    support::{
        alias::{condition, has, message, status},
        watch::Watch,
    },
};

const GATEWAY: &str = "{gateway: {parentRefs: [{name: public, namespace: infra}], \
                       hostnames: [fraud.example.com], path: /fraud}}";

fn spec(version: &str) -> String {
    format!("{{version: '{version}', traffic: {GATEWAY}}}")
}

/// Accepts every change of the route `champion`, as the controller of a Gateway does, until it is dropped.
fn gateway(fixture: &Fixture) -> JoinSet<()> {
    let routes = fixture.api::<HttpRoute>();
    let mut controller = JoinSet::new();
    controller.spawn(async move {
        loop {
            if let Ok(Some(route)) = routes.get_opt("champion").await {
                // A change in between is accepted in the next round.
                drop(accept(&routes, &route).await);
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    controller
}

async fn accept(routes: &Api<HttpRoute>, route: &HttpRoute) -> Result<()> {
    let parent = serde_json::to_value(&route.spec.parent_refs[0])?;
    let condition = |type_: &str| {
        json!({ "type": type_, "status": "True", "reason": "Fine", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": route.metadata.generation })
    };
    let conditions = [condition("Accepted"), condition("ResolvedRefs")];
    let entry =
        json!({ "parentRef": parent, "controllerName": "test.example/gateway", "conditions": conditions });
    let status = json!({ "status": { "parents": [entry] } });
    let is_known = serde_json::to_value(&route.status)?["parents"][0]["conditions"][0]["observedGeneration"]
        == json!(route.metadata.generation);
    if !is_known {
        let parameters = PatchParams { field_manager: Some("gateway".into()), ..PatchParams::default() };
        routes.patch_status("champion", &parameters, &Patch::Merge(status)).await?;
    }
    Ok(())
}

type Weights = BTreeMap<String, u32>;

fn weights(route: &HttpRoute) -> Weights {
    let backends = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    backends.map(|backend| (backend.name.clone(), backend.weight)).collect()
}

fn split<const N: usize>(weights: [(&str, u32); N]) -> Weights {
    weights.into_iter().map(|(version, weight)| (format!("champion-v{version}"), weight)).collect()
}

/// Everything that the route was, without repetitions.
fn seen(routes: &Watch<HttpRoute>) -> Vec<Weights> {
    let mut seen: Vec<Weights> = routes.seen().iter().map(|seen| weights(&seen.object)).collect();
    seen.dedup();
    seen
}

/// The weights of Services.
fn shares<const N: usize>(weights: [(&str, u32); N]) -> Weights {
    weights.into_iter().map(|(service, weight)| (service.to_owned(), weight)).collect()
}

async fn until_split<const N: usize>(routes: &Watch<HttpRoute>, wanted: [(&str, u32); N]) -> Result<()> {
    until_weights(routes, split(wanted)).await
}

async fn until_weights(routes: &Watch<HttpRoute>, wanted: Weights) -> Result<()> {
    let is_it = |seen: &Weights| *seen == wanted;
    let began = tokio::time::Instant::now();
    loop {
        let last = routes.seen().last().filter(|last| !last.gone).map(|last| weights(&last.object));
        if last.as_ref().is_some_and(is_it) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the route has {last:?}, not {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn watch(fixture: &Fixture) -> Watch<HttpRoute> {
    Watch::start(fixture.api(), watcher::Config::default())
}

/// Waits until `Ready` has a reason that is none for an Event.
async fn reported(fixture: &Fixture, reason: Reason) -> Result<()> {
    let what = reason.to_string();
    fixture.champion.until(&what, PATIENCE, |malias| has(malias, reason)).await.map(drop)
}

async fn services(fixture: &Fixture) -> Result<Vec<String>> {
    let services = fixture.api::<Service>().list(&ListParams::default()).await?;
    Ok(services.iter().map(ResourceExt::name_any).collect())
}

#[test]
fn promises_1_and_5_a_route_follows_what_serves_and_leads_back_with_one_write() {
    run("route", async |fixture| {
        fixture.registered(2).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        fixture.get(&spec("1")).await?;
        until_split(&routes, [("1", 1_000_000)]).await?;
        let rule = fixture.api::<HttpRoute>().get("champion").await?.spec.rules.remove(0);
        ensure!(rule.matches == [json!({ "path": { "type": "PathPrefix", "value": "/fraud" } })], "{rule:?}");
        ensure!(rule.filters.len() == 1 && rule.backend_refs[0].port == Some(80), "{rule:?}");

        fixture.get(&spec("2")).await?;
        let moved =
            [split([("1", 1_000_000)]), split([("1", 999_999), ("2", 1)]), split([("1", 1), ("2", 999_999)])];
        ensure!(seen(&routes) == moved, "{:?}", seen(&routes));
        ensure!(selected(fixture).await? == "2", "the Service is not on version 2");
        ensure!(services(fixture).await? == ["champion", "champion-v1", "champion-v2"]);
        fixture.until_named("champion", Some("2")).await?;

        fixture.get(&spec("1")).await?;
        until_split(&routes, [("1", 999_999), ("2", 1)]).await?;
        ensure!(seen(&routes).len() == 4, "a rollback is one write: {:?}", seen(&routes));
        let shares = status(&fixture.champion.last().context("the ModelAlias is gone")?).traffic;
        let shares: Vec<_> = shares.iter().map(|share| (share.version.to_string(), share.weight)).collect();
        ensure!(shares == [("1".to_owned(), 100), ("2".to_owned(), 0)], "{shares:?}");

        let malias = fixture.champion.last().context("the ModelAlias is gone")?;
        let split = condition(&malias, ConditionType::TrafficSplit).context("no condition TrafficSplit")?;
        ensure!(split.status == "True" && split.reason == "TrafficSplit", "{split:?}");
        Ok(())
    });
}

#[test]
fn a_route_that_somebody_else_changes_or_deletes_is_put_back_and_removed_with_the_spec() {
    run("route-drift", async |fixture| {
        fixture.registered(1).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        fixture.get(&spec("1")).await?;
        until_split(&routes, [("1", 1_000_000)]).await?;
        let backend = |name: &str| json!({ "name": name, "port": 8080, "weight": 1 });
        let backends = json!([backend("other"), backend("champion-v1")]);
        let rules = json!({ "spec": { "rules": [{ "backendRefs": backends }] } });
        fixture.edit::<HttpRoute>("champion", rules).await?;
        until_split(&routes, [("1", 1_000_000)]).await?;
        fixture
            .edit::<HttpRoute>("champion", json!({ "spec": { "hostnames": ["evil.example.com"] } }))
            .await?;
        let is_back = |route: &HttpRoute| route.spec.hostnames == ["fraud.example.com"];
        let is_last_back = || routes.seen().last().is_some_and(|last| is_back(&last.object));
        until("the host name is put back", is_last_back).await?;

        // As after a restore from a backup.
        let nobodys = json!({ "metadata": { "ownerReferences": null } });
        fixture.edit::<HttpRoute>("champion", nobodys).await?;
        let is_owned = |route: &HttpRoute| !route.owner_references().is_empty();
        let is_adopted = || routes.seen().last().is_some_and(|last| is_owned(&last.object));
        let was_seen = || routes.seen().iter().any(|seen| !is_owned(&seen.object));
        until("the route is seen without an owner", was_seen).await?;
        until("the route is adopted", is_adopted).await?;

        let delete = DeleteParams::default();
        fixture.api::<Service>().delete("champion-v1", &delete).await?;
        fixture.api::<HttpRoute>().delete("champion", &delete).await?;
        until("the route is seen to be deleted", || routes.seen().iter().any(|seen| seen.gone)).await?;
        until_split(&routes, [("1", 1_000_000)]).await?;
        until_services(fixture, &["champion", "champion-v1"]).await?;

        fixture.get("version: '1'").await?;
        until("the route is deleted", || routes.seen().last().is_some_and(|last| last.gone)).await?;
        until_services(fixture, &["champion"]).await?;
        let is_clear = || fixture.champion.last().is_some_and(|malias| status(&malias).traffic.is_empty());
        until("the status is clear", is_clear).await
    });
}

async fn until_services(fixture: &Fixture, names: &[&str]) -> Result<()> {
    let began = tokio::time::Instant::now();
    loop {
        let services = services(fixture).await?;
        if services == names {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "there are the Services {services:?}, and not {names:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let began = tokio::time::Instant::now();
    while !holds() {
        ensure!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[test]
fn promise_10_a_promotion_waits_for_a_gateway_that_accepts_nothing_and_says_so() {
    run("route-pending", async |fixture| {
        fixture.registered(2).await?;
        let routes = watch(fixture);
        fixture.desired(&spec("1")).await?;
        reported(fixture, Reason::TrafficPending).await?;
        fixture.desired(&spec("2")).await?;
        until_split(&routes, [("1", 999_999), ("2", 1)]).await?;
        let names_it = |malias: &ModelAlias| message(malias).contains("Gateway infra/public");
        fixture.champion.until("the Gateway in the message", PATIENCE, names_it).await?;
        ensure!(selected(fixture).await? == "1", "the Service moved before the route");
        let _gateway = gateway(fixture);
        until_split(&routes, [("1", 1), ("2", 999_999)]).await?;
        Ok(())
    });
}

#[test]
fn a_canary_goes_through_its_steps_and_loses_its_share_with_the_next_request() {
    run("route-canary", async |fixture| {
        fixture.registered(3).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        let canary = |version: &str, seconds: u32| {
            let steps = format!("[{{weight: 5, atLeast: {seconds}s}}, {{weight: 50, atLeast: {seconds}s}}]");
            format!(
                "{{version: '{version}', traffic: {GATEWAY}, rollout: {{strategy: Canary, steps: {steps}}}}}"
            )
        };
        fixture.get(&canary("1", 2)).await?;
        fixture.get(&canary("2", 2)).await?;
        let steps = [
            split([("1", 1_000_000)]),
            split([("1", 999_999), ("2", 1)]),
            split([("1", 950_000), ("2", 50_000)]),
            split([("1", 500_000), ("2", 500_000)]),
            split([("1", 1), ("2", 999_999)]),
        ];
        ensure!(seen(&routes) == steps, "{:?}", seen(&routes));
        ensure!(selected(fixture).await? == "2", "the Service is not on version 2");

        fixture.desired(&canary("3", 600)).await?;
        reported(fixture, Reason::CanaryStep).await?;
        until("version 3 has a share", || {
            routes.seen().last().is_some_and(|last| weights(&last.object).get("champion-v3") == Some(&50_000))
        })
        .await?;
        ensure!(selected(fixture).await? == "2", "the Service moved before the route");
        fixture.get(&canary("2", 600)).await?;
        let after: Vec<Weights> =
            seen(&routes).into_iter().skip_while(|it| it.get("champion-v3") != Some(&50_000)).collect();
        ensure!(after.get(1).and_then(|it| it.get("champion-v3")) == Some(&1), "{after:?}");
        Ok(())
    });
}

/// The spec of a champion whose challenger `rival` gets 10 % of the requests, and with more.
fn challenged(version: &str, more: &str) -> String {
    beside(version, "weight: 10", more)
}

/// The spec of a champion whose challenger `rival` gets this, and with more.
fn beside(version: &str, gets: &str, more: &str) -> String {
    let gateway = GATEWAY.trim_end_matches('}');
    let challengers = format!("[{{aliasRef: {{name: rival}}, {gets}}}]");
    format!("{{version: '{version}', traffic: {gateway}}}, challengers: {challengers}}}{more}}}")
}

/// Applies the ModelAlias `rival`, which serves a version of the same model.
async fn rival(fixture: &Fixture, version: &str) -> Result<()> {
    let spec = format!("{{version: '{version}', alias: rival, deletionPolicy: Retain}}");
    let mut manifest: Value = crate::simulated::place::Place::manifest(&spec)?;
    manifest["metadata"]["name"] = "rival".into();
    fixture.apply(&manifest.to_string()).await
}

/// What `status.traffic` lists, with the names of challengers.
fn listed(fixture: &Fixture) -> Vec<(Option<String>, String, u32)> {
    let traffic = fixture.champion.last().map(|malias| status(&malias).traffic).unwrap_or_default();
    traffic.into_iter().map(|share| (share.alias_ref, share.version.to_string(), share.weight)).collect()
}

fn reason(fixture: &Fixture, type_: ConditionType) -> String {
    let malias = fixture.champion.last();
    malias.and_then(|malias| condition(&malias, type_)).map(|known| known.reason).unwrap_or_default()
}

#[test]
fn promises_1_and_10_a_challenger_gets_its_share_while_it_can_take_it() {
    run("challenger", async |fixture| {
        fixture.registered(3).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        fixture.get(&challenged("1", "")).await?;
        until_weights(&routes, shares([("champion-v1", 1_000_000)])).await?;
        fixture.reported(Reason::ChallengerUnavailable).await?;
        let unavailable = Reason::ChallengerUnavailable.to_string();
        until("the challenger that is missing is reported", || {
            reason(fixture, ConditionType::TrafficSplit) == unavailable
        })
        .await?;

        rival(fixture, "2").await?;
        let both = shares([("champion-v1", 900_000), ("rival", 100_000)]);
        until_weights(&routes, both.clone()).await?;
        let of_rival = |version: &str| (Some("rival".to_owned()), version.to_owned(), 10);
        let champion = (None, "1".to_owned(), 90);
        until("the challenger is listed", || listed(fixture) == [champion.clone(), of_rival("2")]).await?;
        until("the split is as desired", || {
            reason(fixture, ConditionType::TrafficSplit) == Reason::TrafficSplit.to_string()
        })
        .await?;

        rival(fixture, "3").await?;
        until("its next version is listed", || listed(fixture) == [champion.clone(), of_rival("3")]).await?;
        let changes = seen(&routes);
        ensure!(changes.last() == Some(&both), "{changes:?}");
        let entered = [shares([("champion-v1", 999_999), ("rival", 1)]), both.clone()];
        ensure!(changes.ends_with(&entered), "it enters at the least share, and stays: {changes:?}");

        let maliases = fixture.api::<ModelAlias>();
        let object = maliases.get("rival").await?;
        maliases.delete("rival", &DeleteParams::default()).await?;
        fixture.gone(&maliases, &object, Duration::from_mins(1)).await?;
        let weights = weights(&fixture.api::<HttpRoute>().get("champion").await?);
        ensure!(weights == shares([("champion-v1", 1_000_000)]), "it went before its share: {weights:?}");
        until_weights(&routes, weights.clone()).await?;
        let left = [both.clone(), shares([("champion-v1", 999_999), ("rival", 1)]), weights];
        ensure!(seen(&routes).ends_with(&left), "{:?}", seen(&routes));

        // Kubernetes still collects what the one before owned: a new one of its name must not get these pods.
        let deployments = fixture.api::<Deployment>();
        let owned = ListParams::default().labels("laurel.dev/model-alias=rival");
        for deployment in deployments.list(&owned).await? {
            fixture.gone(&deployments, &deployment, Duration::from_mins(1)).await?;
        }
        rival(fixture, "2").await?;
        until_weights(&routes, both).await
    });
}

#[test]
fn promise_1_copies_go_to_a_challenger_and_end_before_it_is_gone() {
    run("shadow", async |fixture| {
        fixture.registered(2).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        rival(fixture, "2").await?;
        fixture.get(&beside("1", "mirror: 30", "")).await?;
        let copied = || routes.seen().last().and_then(|last| copies(&last.object));
        until("requests are copied to the challenger", || copied() == Some(("rival".to_owned(), Some(30))))
            .await?;
        let is_listed = |malias: &ModelAlias| {
            status(malias).shares.as_deref() == Some("1: 100 %; rival 2: 0 %, copies of 30 %")
        };
        fixture.champion.until("the copies are listed", PATIENCE, is_listed).await?;

        let maliases = fixture.api::<ModelAlias>();
        let object = maliases.get("rival").await?;
        maliases.delete("rival", &DeleteParams::default()).await?;
        fixture.gone(&maliases, &object, Duration::from_mins(1)).await?;
        let route = fixture.api::<HttpRoute>().get("champion").await?;
        ensure!(copies(&route).is_none(), "it went before its copies: {:?}", route.spec.rules);
        fixture.reported(Reason::ChallengerUnavailable).await?;
        let only_one = |seen: &Weights| *seen == split([("1", 1_000_000)]);
        ensure!(routes.seen().iter().all(|seen| only_one(&weights(&seen.object))), "copies are no share");
        Ok(())
    });
}

#[test]
fn promises_1_and_5_a_canary_and_a_rollback_leave_the_share_of_a_challenger_alone() {
    run("challenged-canary", async |fixture| {
        fixture.registered(3).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        let canary = ", rollout: {strategy: Canary, steps: [{weight: 50, atLeast: 1s}]}";
        rival(fixture, "3").await?;
        fixture.get(&challenged("1", canary)).await?;
        until_weights(&routes, shares([("champion-v1", 900_000), ("rival", 100_000)])).await?;
        fixture.get(&challenged("2", canary)).await?;
        let moved = |one, two| shares([("champion-v1", one), ("champion-v2", two), ("rival", 100_000)]);
        until_weights(&routes, moved(1, 899_999)).await?;
        let steps = [moved(899_999, 1), moved(450_000, 450_000), moved(1, 899_999)];
        ensure!(seen(&routes).ends_with(&steps), "{:?}", seen(&routes));

        fixture.get(&challenged("1", canary)).await?;
        until_weights(&routes, moved(899_999, 1)).await?;
        let back = [moved(1, 899_999), moved(899_999, 1)];
        ensure!(seen(&routes).ends_with(&back), "a rollback is one write: {:?}", seen(&routes));
        ensure!(selected(fixture).await? == "1", "the Service is not on version 1");
        Ok(())
    });
}

/// A manifest for version `version` whose canary has these steps.
fn canary(version: &str, steps: &str) -> String {
    format!("{{version: '{version}', traffic: {GATEWAY}, rollout: {{strategy: Canary, steps: [{steps}]}}}}")
}

/// The Service that gets copies of the requests, and how many of them in per cent.
fn copies(route: &HttpRoute) -> Option<(String, Option<u64>)> {
    let mut filters = route.spec.rules.iter().flat_map(|rule| &rule.filters);
    let mirror = filters.find(|filter| filter["type"] == "RequestMirror")?;
    let mirror = &mirror["requestMirror"];
    Some((mirror["backendRef"]["name"].as_str()?.to_owned(), mirror["percent"].as_u64()))
}

/// Returns the step of the canary and the steps in which it was approved.
fn progress(malias: &ModelAlias) -> Option<(u32, Vec<u32>)> {
    let canary = status(malias).canary?;
    Some((canary.step, canary.approvals.iter().map(|approval| approval.step).collect()))
}

#[test]
fn a_step_of_a_canary_waits_for_an_approval_of_its_version_and_records_who_gave_it() {
    run("route-approval", async |fixture| {
        fixture.registered(2).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        let steps =
            "{weight: 5, atLeast: 1s, approval: Required}, {weight: 50, atLeast: 1s, approval: Required}";
        fixture.get(&canary("1", steps)).await?;
        fixture.desired(&canary("2", steps)).await?;
        fixture.reported(Reason::AwaitingApproval).await?;
        let approve = async |value: &str| {
            let annotation = format!("laurel.dev/approve={value}");
            fixture.kubectl(&["annotate", "modelalias", "champion", &annotation, "--overwrite"]).await
        };

        approve("1").await?;
        fixture.event("ApprovalIgnored").await?;
        let is_ignored =
            |malias: &ModelAlias| status(malias).approval.is_some_and(|seen| seen.ignored.is_some());
        fixture.champion.until("the approval of version 1 is ignored", PATIENCE, is_ignored).await?;
        ensure!(
            routes
                .seen()
                .last()
                .is_some_and(|last| weights(&last.object) == split([("1", 950_000), ("2", 50_000)]))
        );

        approve("2").await?;
        fixture.event("Approved").await?;
        let in_step_two = |malias: &ModelAlias| progress(malias) == Some((2, vec![1]));
        let waits = |malias: &ModelAlias| in_step_two(malias) && has(malias, Reason::AwaitingApproval);
        fixture.champion.until("step 2 waits", PATIENCE, waits).await?;
        let line = fixture.kubectl(&["get", "modelalias", "champion", "-o", "wide"]).await?;
        ensure!(line.contains("SHARES") && line.contains("1: 50 %; 2: 50 %"), "{line}");

        approve("2/2").await?;
        until_split(&routes, [("1", 1), ("2", 999_999)]).await?;
        let is_second = |malias: &ModelAlias| status(malias).version.is_some_and(|it| it.to_string() == "2");
        let served = fixture.champion.until("version 2 serves", PATIENCE, is_second).await?.object;
        let entry = status(&served).history.into_iter().next().context("no history")?;
        let by: Vec<_> = entry.approvals.iter().map(|it| (it.step, it.manager.as_str())).collect();
        ensure!(by == [(1, "kubectl-annotate"), (2, "kubectl-annotate")], "{:?}", entry.approvals);
        let changed =
            served.managed_fields().iter().find(|it| it.manager.as_deref() == Some("kubectl-annotate"));
        let time = changed.and_then(|entry| entry.time.as_ref()).context("no managed fields")?.0;
        ensure!(entry.approvals[1].at == time, "{:?} is not {time}", entry.approvals);
        Ok(())
    });
}

#[test]
fn a_version_that_nobody_approves_in_time_is_rejected_after_its_share_is_gone() {
    run("route-not-approved", async |fixture| {
        fixture.registered(2).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        let steps = "{weight: 5, atLeast: 1s, atMost: 3s, approval: Required}";
        fixture.get(&canary("1", steps)).await?;
        fixture.desired(&canary("2", steps)).await?;
        fixture.reported(Reason::NotApproved).await?;
        until_split(&routes, [("1", 1_000_000)]).await?;
        let last = fixture.champion.last().context("the ModelAlias is gone")?;
        ensure!(
            status(&last).rejected.iter().any(|it| it.reason == Reason::NotApproved),
            "{:?}",
            status(&last)
        );
        ensure!(selected(fixture).await? == "1", "the Service moved");
        Ok(())
    });
}

#[test]
fn copies_go_to_a_new_version_first_and_end_before_its_service_does() {
    run("route-copies", async |fixture| {
        fixture.registered(3).await?;
        let (_gateway, routes) = (gateway(fixture), watch(fixture));
        let steps = "{mirror: 30, atLeast: 1s}, {mirror: 100, atLeast: 1s, approval: Required}, \
                     {weight: 50, atLeast: 1s}";
        fixture.get(&canary("1", steps)).await?;
        fixture.desired(&canary("2", steps)).await?;
        let waits = |malias: &ModelAlias| {
            progress(malias) == Some((2, vec![])) && has(malias, Reason::AwaitingApproval)
        };
        fixture.champion.until("the copies wait for an approval", PATIENCE, waits).await?;
        let mut seen: Vec<_> = routes.seen().iter().map(|seen| copies(&seen.object)).collect();
        seen.dedup();
        let to_two = |percent| Some(("champion-v2".to_owned(), percent));
        ensure!(seen == [None, to_two(Some(30)), to_two(None)], "{seen:?}");
        let only_one = |seen: &Weights| *seen == split([("1", 1_000_000)]);
        ensure!(routes.seen().iter().all(|seen| only_one(&weights(&seen.object))), "copies are no share");
        let traffic = status(&fixture.champion.last().context("the ModelAlias is gone")?).traffic;
        let copied: Vec<_> = traffic.iter().map(|share| (share.weight, share.mirror)).collect();
        ensure!(copied == [(100, None), (0, Some(100))], "{traffic:?}");

        fixture.kubectl(&["annotate", "modelalias", "champion", "laurel.dev/approve=2/2"]).await?;
        until_split(&routes, [("1", 1), ("2", 999_999)]).await?;
        let shared = split([("1", 500_000), ("2", 500_000)]);
        let first = routes.seen().into_iter().find(|seen| weights(&seen.object) == shared);
        ensure!(
            first.is_some_and(|first| copies(&first.object).is_none()),
            "copies end with the first share"
        );

        // A change of mind while requests are copied: the filter goes with the first write.
        fixture.get(&canary("1", steps)).await?;
        fixture.desired(&canary("3", steps)).await?;
        let is_copied = || routes.seen().last().is_some_and(|last| copies(&last.object).is_some());
        until("requests are copied to version 3", is_copied).await?;
        fixture.get(&canary("1", steps)).await?;
        until("the copies end", || !is_copied()).await?;
        ensure!(
            services(fixture).await?.contains(&"champion-v3".to_owned()),
            "the Service of version 3 went first"
        );
        Ok(())
    });
}

#[test]
fn traffic_is_validated_by_the_api_server() {
    run("route-refused", async |fixture| {
        let parents = |gateway: &str| format!("{{version: '1', traffic: {{gateway: {gateway}}}}}");
        let steps = |steps: &str| {
            format!("{{version: '1', rollout: {{strategy: Canary, steps: [{steps}]}}, traffic: {GATEWAY}}}")
        };
        let challengers = |challengers: &str| {
            let gateway = "gateway: {parentRefs: [{name: a}]}";
            format!("{{version: '1', traffic: {{{gateway}, challengers: [{challengers}]}}}}")
        };
        for (spec, words) in [
            (format!("{{version: '1', serving: null, traffic: {GATEWAY}}}"), "traffic needs serving"),
            (
                format!("{{version: '1', rollout: {{strategy: Rolling}}, traffic: {GATEWAY}}}"),
                "traffic needs the strategy BlueGreen or Canary",
            ),
            (
                "{version: '1', rollout: {strategy: Canary, steps: [{weight: 5, atLeast: 1m}]}}".to_owned(),
                "the strategy Canary needs traffic",
            ),
            (
                format!("{{version: '1', rollout: {{strategy: Canary}}, traffic: {GATEWAY}}}"),
                "steps are for strategy Canary, which needs them",
            ),
            (
                "{version: '1', rollout: {steps: [{weight: 5, atLeast: 1m}]}}".to_owned(),
                "steps are for strategy Canary, which needs them",
            ),
            (steps("{weight: 50, atLeast: 1m}, {weight: 5, atLeast: 1m}"), "the percentages rise"),
            (steps("{weight: 5, atLeast: 1m}, {weight: 5, atLeast: 2m}"), "the percentages rise"),
            (steps("{weight: 5, atLeast: 1m}, {mirror: 100, atLeast: 2m}"), "steps with mirror come first"),
            (steps("{mirror: 9, atLeast: 1m}, {mirror: 9, atLeast: 2m}"), "steps with mirror come first"),
            (steps("{mirror: 9, weight: 9, atLeast: 1m}"), "a step has exactly one of weight and mirror"),
            (steps("{atLeast: 1m}"), "a step has exactly one of weight and mirror"),
            (steps("{weight: 5, atLeast: 10m, atMost: 9m}"), "atMost is not shorter than atLeast"),
            (steps("{weight: 5, atLeast: 1m, approval: Maybe}"), "spec.rollout.steps[0].approval"),
            (steps("{mirror: 101, atLeast: 1m}"), "spec.rollout.steps[0].mirror"),
            (steps("{weight: 51, atLeast: 1m}"), "spec.rollout.steps[0].weight"),
            (steps("{weight: 5, atLeast: soon}"), "spec.rollout.steps[0].atLeast"),
            (
                challengers("{aliasRef: {name: champion}, weight: 5}"),
                "a ModelAlias is no challenger of itself",
            ),
            (challengers("{aliasRef: {name: a}, weight: 51}"), "spec.traffic.challengers[0].weight"),
            (challengers("{aliasRef: {name: a}, mirror: 101}"), "spec.traffic.challengers[0].mirror"),
            (
                challengers("{aliasRef: {name: a}, weight: 1, mirror: 100}"),
                "a challenger has exactly one of weight and mirror",
            ),
            (challengers("{aliasRef: {name: a}}"), "a challenger has exactly one of weight and mirror"),
            (
                challengers("{aliasRef: {name: a}, weight: 30}, {aliasRef: {name: b}, weight: 21}"),
                "the weights of challengers are at most 50 together",
            ),
            (
                challengers("{aliasRef: {name: a}, weight: 1}, {aliasRef: {name: a}, weight: 2}"),
                "each challenger is listed once",
            ),
            ("{version: '1', traffic: {}}".to_owned(), "exactly one of gateway and routeRef is set"),
            (
                "{version: '1', traffic: {gateway: {parentRefs: [{name: a}]}, routeRef: {name: b}}}"
                    .to_owned(),
                "exactly one of gateway and routeRef is set",
            ),
            ("{version: '1', traffic: {routeRef: {name: A}}}".to_owned(), "spec.traffic.routeRef.name"),
            (parents("{parentRefs: []}"), "spec.traffic.gateway.parentRefs"),
            (parents("{parentRefs: [{name: a, kind: Ingress}]}"), "spec.traffic.gateway.parentRefs[0].kind"),
            (parents("{parentRefs: [{name: a}], path: fraud}"), "spec.traffic.gateway.path"),
            (parents("{parentRefs: [{name: a}], path: /a/../b}"), "path has no segments '.' and '..'"),
            (parents("{parentRefs: [{name: a}], hostnames: ['a b']}"), "spec.traffic.gateway.hostnames[0]"),
        ] {
            let manifest: Value = crate::simulated::place::Place::manifest(&spec)?;
            let message = fixture.error_message(&manifest).await.with_context(|| words.to_owned())?;
            ensure!(message.contains(words), "{message:?}\n  does not say\n{words:?}");
        }
        Ok(())
    });
}
