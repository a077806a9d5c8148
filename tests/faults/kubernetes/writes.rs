//! One kind of write fails for a while: it is told, tried again without haste, and done when it can be.

use anyhow::{Result, ensure};
use hyper::Method;
use kube::api::DeleteParams;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, RECOVERY, calm, case, run_all};
use crate::{
    fixture::{Fixture, run},
    simulated::look::{selected, sizes, until_sizes},
    support::alias::{holds, is_ready, message, version},
    wire::{Exchange, Rule, Violation},
};

/// Answers to a write that pass by themselves.
fn passing() -> [(&'static str, Violation); 4] {
    let busy = Violation::kubernetes(429, "TooManyRequests", "too many requests, please try again later");
    [
        (
            "409",
            Violation::kubernetes(409, "Conflict", "the object has been modified; apply your changes again"),
        ),
        ("429", busy.header("retry-after", "1")),
        ("500", Violation::kubernetes(500, "InternalError", "etcdserver: leader changed")),
        ("503", Violation::kubernetes(503, "ServiceUnavailable", "the API server is overloaded")),
    ]
}

/// A kind of write that a promotion to version 2 needs.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// What its path and its query contain.
    path: &'static str,
    query: &'static str,
    /// What the condition says while it fails; `None` where it can only be logged.
    reported: Option<&'static str>,
    desired: &'static str,
    /// The size of version 1 in the end.
    warm: i32,
    /// The answers that it meets.
    codes: &'static [&'static str],
}

const APPLY: &str = "force=true";
const MERGE: &str = "?&fieldManager=laurel";

const KINDS: [Kind; 4] = [
    Kind {
        name: "deployment",
        path: "/deployments/champion-v2?",
        query: APPLY,
        reported: Some("apply the Deployment \"champion-v2\""),
        desired: "version: '2'",
        warm: 2,
        codes: &["409", "429", "500", "503"],
    },
    Kind {
        name: "service",
        path: "/services/champion?",
        query: APPLY,
        reported: Some("apply the Service \"champion\""),
        desired: "version: '2'",
        warm: 2,
        codes: &["409", "503"],
    },
    Kind {
        name: "scale",
        path: "/deployments/champion-v1?",
        query: MERGE,
        reported: Some("scale the Deployment \"champion-v1\""),
        desired: "{version: '2', rollout: {warmFor: 0s}}",
        warm: 0,
        codes: &["429"],
    },
    Kind {
        name: "status",
        path: "/modelaliases/champion/status?",
        query: "",
        reported: None,
        desired: "version: '2'",
        warm: 2,
        codes: &["409", "500"],
    },
];

impl Kind {
    fn is(self, exchange: &Exchange) -> bool {
        exchange.method == Method::PATCH
            && exchange.path.contains(self.path)
            && exchange.path.contains(self.query)
    }
}

/// Version 1 serves and version 2 is wished for, while one kind of write fails.
async fn fails(fixture: &Fixture, kind: Kind, violation: Violation) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let placed = fixture.kubernetes.place(Rule::when(move |exchange| kind.is(exchange), violation));
    let began = Instant::now();
    let change = fixture.desired(kind.desired).await?;
    placed.until_struck(1, PATIENCE).await?;
    if let Some(reported) = kind.reported {
        let seen = fixture.champion.reason(change, Reason::ApplyFailed, PATIENCE).await?.object;
        ensure!(message(&seen).contains(reported), "{}", message(&seen));
        ensure!(holds(&seen, ConditionType::Serving), "what serves goes on");
        ensure!(holds(&seen, ConditionType::Reconciling), "it is tried again");
    }
    sleep(LASTING.saturating_sub(began.elapsed())).await; // Time itself is the subject: a fault that lasts.
    if let Some(reported) = kind.reported {
        let last = fixture.champion.last().map(|last| message(&last)).unwrap_or_default();
        ensure!(last.contains(reported), "it is told no more: {last}");
    }
    let tries = calm(fixture, began, |exchange| kind.is(exchange))?;
    let asked = calm(fixture, began, |exchange| !exchange.path.contains("/events"))?;
    fixture.kubernetes.lift(&placed);
    let over = Instant::now();
    let wanted = |it: &ModelAlias| is_ready(it, change.generation) && version(it) == "2";
    fixture.champion.until_since(began, "Ready with version 2", RECOVERY, wanted).await?;
    println!("  {}: {tries} tries, {asked} requests; ready after {:?}", kind.name, over.elapsed());
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_named("champion", Some("2")).await?;
    until_sizes(fixture, [("1", kind.warm), ("2", 2)]).await?;
    fixture.until_quiet().await
}

#[test]
fn promise_7_a_failing_write_is_reported_retried_with_backoff_and_done_eventually() {
    let cases = KINDS.into_iter().flat_map(|kind| {
        let met = passing().into_iter().filter(move |(code, _)| kind.codes.contains(code));
        met.map(move |(code, violation)| {
            let story = async move |fixture: &Fixture| fails(fixture, kind, violation).await;
            case(format!("w-{}-{code}", kind.name), story)
        })
    });
    run_all(cases);
}

/// The finalizer cannot be written when an alias is new, nor when it goes.
async fn finalizer_fails(fixture: &Fixture, violation: Violation) -> Result<()> {
    let rule = || Rule::on(Method::PATCH, "/modelaliases/champion?", violation.clone());
    fixture.operator.start().await?;
    fixture.registered(1).await?;
    let placed = fixture.kubernetes.place(rule());
    let began = Instant::now();
    let change = fixture.desired("version: '1'").await?;
    let seen = fixture.champion.reason(change, Reason::ApplyFailed, PATIENCE).await?.object;
    ensure!(
        message(&seen).contains("set the finalizer of the ModelAlias \"champion\""),
        "{}",
        message(&seen)
    );
    sleep(LASTING.saturating_sub(began.elapsed())).await; // Time itself is the subject: a fault that lasts.
    calm(fixture, began, |_| true)?;
    ensure!(sizes(fixture).await?.is_empty(), "something runs whose alias nobody would remove");
    fixture.kubernetes.lift(&placed);
    fixture.champion.ready(change, RECOVERY).await?;
    fixture.until_named("champion", Some("1")).await?;

    let placed = fixture.kubernetes.place(rule());
    let aliases = fixture.api::<ModelAlias>();
    let champion = aliases.get("champion").await?;
    let began = Instant::now();
    aliases.delete("champion", &DeleteParams::default()).await?;
    sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
    calm(fixture, began, |_| true)?;
    fixture.until_named("champion", None).await?;
    fixture.kubernetes.lift(&placed);
    fixture.gone(&aliases, &champion, RECOVERY).await
}

#[test]
fn promise_9_a_finalizer_that_cannot_be_written_is_reported_and_blocks_nothing() {
    let met = passing().into_iter().filter(|(code, _)| ["409", "503"].contains(code));
    let cases = met.map(|(code, violation)| {
        let story = async move |fixture: &Fixture| finalizer_fails(fixture, violation).await;
        case(format!("w-finalizer-{code}"), story)
    });
    run_all(cases);
}

/// The status of an alias whose wish is met.
fn says_ready(exchange: &Exchange) -> bool {
    let body: Value = serde_json::from_str(&exchange.body).unwrap_or_default();
    let conditions = body.pointer("/status/conditions").and_then(Value::as_array).cloned();
    exchange.path.contains("/modelaliases/champion/status?")
        && conditions.unwrap_or_default().iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

#[test]
fn promise_7_the_last_status_of_a_change_is_written_despite_a_conflict() {
    run("w-last-status", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        fixture.until_quiet().await?;
        let conflict = Violation::kubernetes(409, "Conflict", "the object has been modified");
        let placed = fixture.kubernetes.place(Rule::when(says_ready, conflict).times(1));
        // Nothing happens after its last pod is ready that would begin another pass.
        let change = fixture.desired("{version: '1', serving: {replicas: 3}}").await?;
        placed.until_struck(1, PATIENCE).await?;
        fixture.champion.ready(change, RECOVERY).await?;
        fixture.until_quiet().await
    });
}

#[test]
fn a_failure_with_a_different_message_each_time_is_retried_with_backoff() {
    run("w-other-words", async |fixture| {
        const MANY: usize = 400;
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        for number in 1..=MANY {
            let said = format!(
                "failed calling webhook \"policy.example\": request {number}: context deadline exceeded"
            );
            let violation = Violation::kubernetes(500, "InternalError", &said);
            fixture
                .kubernetes
                .place(Rule::on(Method::PATCH, "/deployments/champion-v2?", violation).nth(number));
        }
        let began = Instant::now();
        let change = fixture.desired("version: '2'").await?;
        fixture.champion.reason(change, Reason::ApplyFailed, PATIENCE).await?;
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        let tries = calm(fixture, began, |exchange| exchange.path.contains("/deployments/champion-v2?"))?;
        let reported = calm(fixture, began, |exchange| exchange.path.contains("/status?"))?;
        println!("  {tries} tries, told {reported} times");
        fixture.kubernetes.lift_all();
        fixture.champion.ready(change, RECOVERY).await?;
        fixture.until_quiet().await
    });
}
