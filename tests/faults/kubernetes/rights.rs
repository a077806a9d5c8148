//! One permission of the operator is revoked: the condition names it, and work continues by itself once it is
//! granted again.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use kube::api::DeleteParams;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, RECOVERY, calm, case, expired, forbidden, run_all};
use crate::{
    fixture::{Fixture, run},
    simulated::look::{selected, until_sizes},
    support::alias::{has, holds, is_ready, message, version},
    wire::{Exchange, Rule},
};

/// A permission that a promotion to version 2 needs.
struct Right {
    name: &'static str,
    verb: &'static str,
    what: &'static str,
    object: &'static str,
    method: Method,
    path: &'static str,
    desired: &'static str,
    /// The version that serves without the permission.
    serves: &'static str,
}

fn rights() -> [Right; 4] {
    let desired = "version: '2'";
    let deployments = "deployments.apps";
    [
        Right {
            name: "patch-deploy",
            verb: "patch",
            what: deployments,
            object: "champion-v2",
            method: Method::PATCH,
            path: "/deployments/champion-v2?",
            desired,
            serves: "1",
        },
        Right {
            name: "patch-service",
            verb: "patch",
            what: "services",
            object: "champion",
            method: Method::PATCH,
            path: "/services/champion?",
            desired,
            serves: "1",
        },
        Right {
            name: "delete-deploy",
            verb: "delete",
            what: deployments,
            object: "champion-v1",
            method: Method::DELETE,
            path: "/deployments/champion-v1",
            desired: "{version: '2', rollout: {warmFor: 0s, revisionHistoryLimit: 0}}",
            serves: "2",
        },
        Right {
            name: "patch-finalizer",
            verb: "patch",
            what: "modelaliases.laurel.dev",
            object: "champion",
            method: Method::PATCH,
            path: "/modelaliases/champion?",
            // The finalizer is removed.
            desired: "{version: '2', deletionPolicy: Retain}",
            serves: "1",
        },
    ]
}

async fn taken_away(fixture: &Fixture, right: Right) -> Result<()> {
    let Right { verb, what, object, method, path, desired, serves, .. } = right;
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let placed = fixture.kubernetes.place(Rule::on(method, path, forbidden(verb, what, object)));
    let began = Instant::now();
    let change = fixture.desired(desired).await?;
    let seen = fixture.champion.reason(change, Reason::ApplyForbidden, PATIENCE).await?.object;
    let text = message(&seen);
    let resource = what.split('.').next().unwrap_or_default();
    ensure!(
        text.contains(&format!("cannot {verb} resource \"{resource}\"")),
        "the permission is not named: {text}"
    );
    ensure!(text.contains(object) && text.contains("compare Laurel's role with the chart's"), "{text}");
    ensure!(holds(&seen, ConditionType::Stalled), "it is not Stalled");
    fixture.reported(Reason::ApplyForbidden).await?;
    sleep(LASTING.saturating_sub(began.elapsed())).await; // Time itself is the subject: a fault that lasts.
    calm(fixture, began, |_| true)?;
    let last = fixture
        .champion
        .last()
        .is_some_and(|it| has(&it, Reason::ApplyForbidden) && holds(&it, ConditionType::Serving));
    ensure!(last, "it is no longer reported, or nothing serves");
    ensure!(selected(fixture).await? == serves, "traffic is not on version {serves}");
    fixture.kubernetes.lift(&placed);
    let met = |it: &ModelAlias| is_ready(it, change.generation) && version(it) == "2";
    fixture.champion.until_since(began, "Ready with version 2", RECOVERY, met).await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_quiet().await
}

#[test]
fn promise_10_a_missing_write_permission_is_reported_and_work_resumes_when_it_is_granted() {
    let cases = rights().into_iter().map(|right| {
        case(format!("x-{}", right.name), async move |fixture| taken_away(fixture, right).await)
    });
    run_all(cases);
}

#[test]
fn without_permission_to_write_the_status_traffic_moves_and_the_log_names_the_cause() {
    run("x-status", async |fixture| {
        fixture.registered(3).await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        let violation = forbidden("patch", "modelaliases.laurel.dev/status", "champion");
        let placed =
            fixture.kubernetes.place(Rule::on(Method::PATCH, "/modelaliases/champion/status?", violation));
        let began = Instant::now();
        let change = fixture.desired("version: '2'").await?;
        fixture.audit.service_since(began, "traffic on version 2", |_| true).await?;
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        calm(fixture, began, |_| true)?;
        ensure!(selected(fixture).await? == "2", "traffic is not on version 2");
        until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias is ahead of the status");
        let log = fixture.operator.log(200);
        ensure!(
            log.contains("not allowed to write the status of")
                && log.contains("modelaliases.laurel.dev/status"),
            "the log does not contain it"
        );
        // A rollback to the warm version, even without a status.
        let back = Instant::now();
        fixture.desired("version: '1'").await?;
        fixture.audit.service_since(back, "traffic on version 1", |_| true).await?;
        ensure!(selected(fixture).await? == "1", "traffic did not go back");
        let change = fixture.desired("version: '2'").await.unwrap_or(change);
        fixture.kubernetes.lift(&placed);
        fixture.champion.ready(change, RECOVERY).await?;
        fixture.until_named("champion", Some("2")).await?;
        fixture.until_quiet().await
    });
}

#[test]
fn without_permission_to_create_events_nothing_else_changes() {
    run("x-events", async |fixture| {
        let placed = fixture.kubernetes.place(Rule::when(
            |exchange| exchange.path.contains("/events"),
            forbidden("create", "events.events.k8s.io", ""),
        ));
        fixture.registered(2).await?;
        let began = Instant::now();
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        fixture.until_named("champion", Some("2")).await?;
        fixture.until_quiet().await?;
        ensure!(placed.hits() > 0, "no Event was created");
        calm(fixture, began, |exchange| exchange.path.contains("/events")).map(drop)
    });
}

/// What is watched, as named by Laurel and by the API server, and the permission that is revoked.
const WATCHED: [(&str, &str, &str); 6] = [
    ("Pods", "pods", "list"),
    ("Pods", "pods", "watch"),
    ("Deployments", "deployments.apps", "list"),
    ("ModelAliases", "modelaliases.laurel.dev", "list"),
    ("ModelAliases", "modelaliases.laurel.dev", "watch"),
    ("RegisteredModels", "registeredmodels.laurel.dev", "list"),
];

/// When a denied watch is reported: not for a role that is just being replaced.
const NOTICED: Duration = Duration::from_secs(40);

/// The permission to list and watch, or only to watch, is revoked at rest.
async fn blinded(fixture: &Fixture, what: &str, resource: &str, verb: &'static str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    let change = fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let part = format!("/{}?", resource.split('.').next().unwrap_or_default());
    let of_it = move |exchange: &Exchange| exchange.method == Method::GET && exchange.path.contains(&part);
    if verb == "list" {
        // A watch that is resumed needs no list; one that ends with 410 does.
        let is_it = of_it.clone();
        let watch = move |exchange: &Exchange| exchange.is_watch() && is_it(exchange);
        fixture.kubernetes.place(Rule::when(watch, expired()).times(1));
    }
    let refused = move |exchange: &Exchange| of_it(exchange) && (verb == "list" || exchange.is_watch());
    fixture.kubernetes.place(Rule::when(refused, forbidden(verb, resource, "")));
    let began = Instant::now();
    fixture.kubernetes.drop_streams();
    let reported = |it: &ModelAlias| {
        has(it, Reason::ApplyForbidden)
            && message(it).contains(&format!("Laurel is not allowed to watch {what}"))
    };
    let seen = fixture.champion.until_since(began, "the denied watch is reported", NOTICED, reported).await?;
    let noticed = seen.at.duration_since(began);
    ensure!(
        noticed > Duration::from_secs(10),
        "reported after {noticed:?}: too early for a role that is just being replaced"
    );
    ensure!(holds(&seen.object, ConditionType::Serving), "the serving version stopped serving");
    let text = message(&seen.object);
    ensure!(text.contains("cannot") && text.contains("compare Laurel's role with the chart's"), "{text}");
    let tries = calm(fixture, began, |_| true)?;
    fixture.kubernetes.lift_all();
    let over = Instant::now();
    let again = |it: &ModelAlias| is_ready(it, change.generation);
    fixture.champion.until_since(over, "Ready again", PATIENCE + RECOVERY, again).await?;
    println!(
        "  {what} ({verb}): reported after {noticed:?}, {tries} requests, recovered after {:?}",
        over.elapsed()
    );
    fixture.get("version: '2'").await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    Ok(())
}

#[test]
fn promise_3_nothing_is_decided_while_a_watch_is_denied_and_that_is_reported_even_at_rest() {
    let cases = WATCHED.map(|(what, resource, verb)| {
        let story = async move |fixture: &Fixture| blinded(fixture, what, resource, verb).await;
        case(format!("x-{verb}-{}", what.to_lowercase()), story)
    });
    run_all(cases);
}

#[test]
fn without_permission_to_delete_deployments_an_alias_can_still_be_deleted() {
    run("x-delete", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        let violation = forbidden("delete", "deployments.apps", "champion-v1");
        fixture.kubernetes.place(Rule::on(Method::DELETE, "/deployments/", violation));
        let aliases = fixture.api::<ModelAlias>();
        let champion = aliases.get("champion").await?;
        aliases.delete("champion", &DeleteParams::default()).await?;
        fixture.gone(&aliases, &champion, PATIENCE).await
    });
}
