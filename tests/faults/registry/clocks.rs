//! Wrong clocks: MLflow's, the API server's, or ours was set back. No decision depends on another machine's
//! clock.
//!
//! The operator's own clock is not changed in these tests, only the time of a decision.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use laurel::{
    api::condition::{ConditionType, Reason},
    decide::{Action, Observed, Readiness, Traffic, decide},
    status::{self, Applied, SubjectStatus},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    RunningCase, case, cluster, described,
    reports::{held, synced},
    serving, untouched,
};
use crate::{
    fixture::{Fixture, PATIENCE, TWO_POLLS},
    simulated::look::selected,
    wire::{Exchange, Rule, Server, Violation},
};

pub(super) fn cases() -> Vec<RunningCase> {
    vec![
        case("clock-1970", async |fixture| registrys_clock(fixture, 1).await),
        case("clock-9999", async |fixture| registrys_clock(fixture, 253_370_764_800_000).await),
        case("clock-date", date),
        case("clock-cluster", clusters_clock),
    ]
}

/// Responses of the API server, with another time in a field.
pub(super) fn timed(shown: &[u8], field: &str, time: &str) -> Vec<u8> {
    let (shown, before) = (String::from_utf8_lossy(shown), format!("{field:?}:\""));
    let mut parts = shown.split(&before);
    let mut made = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.split_once('"').map_or("", |(_, after)| after);
        made.extend([before.as_str(), time, "\"", after]);
    }
    made.into()
}

/// Replaces every time in MLflow's responses.
fn made_at(time: i64) -> Violation {
    fn alter(value: &mut Value, time: i64) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if key.ends_with("_timestamp") { *value = time.into() } else { alter(value, time) }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| alter(value, time)),
            _ => {}
        }
    }
    Violation::alter(move |status, body| {
        let Ok(mut answer) = serde_json::from_slice(&body) else { return (status, body) };
        alter(&mut answer, time);
        (status, answer.to_string().into())
    })
}

/// MLflow's clock jumps and returns: serving is not affected, promotions continue.
async fn registrys_clock(fixture: &Fixture, time: i64) -> Result<()> {
    serving(fixture, 3).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    let wrong = fixture.registry.place(Rule::always(made_at(time)));
    wrong.until_struck(4, PATIENCE).await?;
    fixture.until_quiet().await?;
    untouched(fixture, &before).await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    fixture.registry.lift_all();
    fixture.get("version: '3'").await?;
    fixture.until_named("champion", Some("3")).await?;
    let change = fixture.get("version: '2'").await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    synced(fixture, change.accepted, "True", Reason::Synced).await?;
    held(fixture, began, ConditionType::Serving)
}

/// The header `Date` is a century old, and the response is cacheable for an hour: it is read again anyway.
async fn date(fixture: &Fixture) -> Result<()> {
    serving(fixture, 1).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    let model = fixture.mlflow.model(&fixture.model).await?;
    let listing = Violation::json(200, &json!({ "registered_models": [model] }))
        .header("date", "Thu, 01 Jan 1926 00:00:00 GMT")
        .header("last-modified", "Fri, 01 Jan 2100 00:00:00 GMT")
        .header("cache-control", "max-age=3600");
    let is_listing = |asked: &Exchange| asked.path.contains("registered-models/search?filter=");
    let listed = fixture.registry.place(Rule::when(is_listing, listing));
    listed.until_struck(2, PATIENCE).await?;
    held(fixture, began, ConditionType::RegistrySynced)?;
    untouched(fixture, &before).await
}

/// According to the API server, everything was created in the future.
async fn clusters_clock(fixture: &Fixture) -> Result<()> {
    fixture.operator.terminate().await?;
    let reported = described(fixture, 1).await?;
    fixture.desired("version: '1'").await?;
    let shown = |asked: &Exchange| asked.server == Server::Kubernetes && asked.method == Method::GET;
    let later =
        Violation::alter(|status, body| (status, timed(&body, "creationTimestamp", "2199-01-01T00:00:00Z")));
    let shown = fixture.kubernetes.place(Rule::when(shown, later));
    let began = Instant::now();
    fixture.operator.start().await?;
    reported.well(fixture, began).await?;
    ensure!(shown.hits() > 0 && selected(fixture).await? == "1", "it does not serve");
    fixture.until_named("champion", Some("1")).await?;
    fixture.until_quiet().await
}

/// The observation of an operator whose clock was set back by a day after it started version 2, with this
/// many ready pods.
fn set_back(ready: u32) -> (Observed, Timestamp) {
    let then: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let now = then - SignedDuration::from_hours(24);
    let (settings, uri) = ("the settings", |version| format!("models:/fraud/{version}"));
    let workload = |version, ready, started: Value| {
        json!({
            "desired": 2, "pods": 2, "ready": ready, "rolled_out": ready == 2, "settings": settings,
            "model_uri": uri(version), "started_at": started,
        })
    };
    let condition = |type_| json!({ "type": type_, "status": "False", "reason": "WaitingForPods", "message": "", "lastTransitionTime": then });
    let observed = json!({
        "now": now,
        "intent": {
            "desired": { "Version": "2" }, "drift": "Correct",
            "serving": {
                "replicas": 2, "settings": settings, "strategy": "BlueGreen", "progress_deadline": "PT10M",
                "warm_for": "PT15M", "history": 3,
                "smoke_test": { "is_enabled": false, "timeout": "PT1M", "on_unavailable": "Wait" },
            },
        },
        "registry": { "alias": "1", "versions": {
            "1": { "Ready": { "model_uri": uri(1) } }, "2": { "Ready": { "model_uri": uri(2) } },
        } },
        "cluster": {
            "traffic": { "One": "1" }, "endpoints": ["1"],
            "workloads": { "1": workload(1, 2, json!(null)), "2": workload(2, ready, json!(then)) },
        },
        "status": {
            "version": "1", "targetVersion": "2", "registryVersion": "1", "putBackAt": [then],
            "versions": [
                { "version": "1", "modelUri": uri(1), "settings": settings, "servedAt": then },
                { "version": "2", "modelUri": uri(2), "settings": settings, "startedAt": then },
            ],
            "history": [{ "version": "1", "at": then, "cause": "Spec", "outcome": "Promoted", "recorded": "Written" }],
            "conditions": [condition("Ready"), condition("RegistrySynced")],
        },
    });
    (serde_json::from_value(observed).unwrap(), now)
}

#[test]
fn a_clock_that_was_set_back_delays_no_promotion() {
    let (starting, now) = set_back(1);
    let decision = decide(&starting);
    assert!(decision.rejection.is_none(), "{decision:?}");
    assert!(
        decision
            .actions
            .iter()
            .all(|action| matches!(action, Action::SetFinalizer { .. } | Action::Protect(_))),
        "{decision:?}"
    );
    assert!(matches!(decision.report.readiness, Readiness::Progressing(_)), "{decision:?}");
    assert!(decision.wake.is_some_and(|wake| wake > now), "{decision:?}");

    let (started, now) = set_back(2);
    let decision = decide(&started);
    let moved = decision.actions.contains(&Action::Route(Traffic::One("2".parse().unwrap())));
    assert!(moved, "{decision:?}");
    let applied = Applied { done: decision.actions.clone(), ..Applied::default() };
    let next = status::next(&started, &decision, &applied, &SubjectStatus::default());
    assert_eq!(next.version.map(|version| version.to_string()).as_deref(), Some("2"));
    assert!(next.history[0].duration.is_none(), "a negative duration: {:?}", next.history[0]);
    assert_eq!(next.history[0].at, now);
}
