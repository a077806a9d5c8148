use std::collections::BTreeSet;

use futures::StreamExt;
use kube::{Config, runtime::reflector::ObjectRef};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path, query_param},
};

use super::*;
use crate::{
    api::{ModelAlias, names::Version},
    cluster::{Guarded, RequeueStreams, pod_causes::Stage},
};

const LIST: &str = "/apis/events.k8s.io/v1/namespaces/risk/events";

fn alias() -> AliasKey {
    ("risk".into(), "fraud".into())
}

/// A pod that has been waiting long enough.
fn pod(uid: &str) -> AwaitedPod {
    AwaitedPod {
        uid: uid.into(),
        namespace: "risk".into(),
        version: Version::new(4).unwrap(),
        stage: Stage::Preparing,
        was_killed: false,
        ip: None,
        created: Some(jiff::Timestamp::UNIX_EPOCH),
    }
}

fn event(second: u32, note: &str) -> Value {
    json!({
        "metadata": { "name": format!("e{second}"), "namespace": "risk" },
        "reason": "FailedMount", "note": note, "type": "Warning",
        "deprecatedLastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
    })
}

async fn answers(server: &MockServer, response: ResponseTemplate) {
    server.reset().await;
    Mock::given(method("GET")).and(path(LIST)).respond_with(response).mount(server).await;
}

fn listed(events: &[Value]) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "metadata": {}, "items": events }))
}

fn pod_events(server: &MockServer) -> (PodEvents, RequeueStreams) {
    // There may be one already; it is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
    let (requeue, streams) = Requeue::new();
    (PodEvents::new(client, requeue, |_, uid| uid == "u"), streams)
}

async fn woken(streams: &mut RequeueStreams) -> ObjectRef<Guarded<ModelAlias>> {
    tokio::time::timeout(Duration::from_secs(10), streams.aliases.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_missing_secret_that_only_an_event_reports_wakes_the_alias() {
    let server = MockServer::start().await;
    let note = "MountVolume.SetUp failed for volume \"creds\" : secret \"s3\" not found";
    Mock::given(method("GET"))
        .and(path(LIST))
        .and(query_param("fieldSelector", "regarding.kind=Pod,regarding.uid=p,type=Warning"))
        .and(query_param("limit", "50"))
        .respond_with(listed(&[event(1, note)]))
        .mount(&server)
        .await;
    let (events, mut streams) = pod_events(&server);
    events.follow("u", &alias(), &[pod("p")]);
    assert_eq!(woken(&mut streams).await.name, "fraud");
    assert_eq!(events.of("u", "p")[0].note, note);
    assert_eq!(events.of("u", "other"), []);
    events.follow("u", &alias(), &[]);
    assert_eq!(events.of("u", "p"), [], "nothing is kept of pods that are not waited for");
    assert!(events.0.lock().is_empty());
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_a_repetition_is_no_news() {
    let server = MockServer::start().await;
    let many: Vec<Value> =
        (0..40).map(|second| event(second, &format!("{second}{}", "x".repeat(5000)))).collect();
    answers(&server, listed(&many)).await;
    let (events, mut streams) = pod_events(&server);
    events.follow("u", &alias(), &[pod("p")]);
    woken(&mut streams).await;
    let kept = events.of("u", "p");
    assert_eq!(kept.len(), 8);
    assert!(kept[0].note.starts_with("39x"), "the latest come first");
    assert!(kept.iter().all(|event| event.note.len() <= 800));
    let again = events.0.look("u", &pod("p")).await;
    assert!(!again, "the same Events once more");
}

#[tokio::test]
async fn events_that_alternate_are_no_news() {
    let server = MockServer::start().await;
    let notes = ["secret \"a\" not found", "secret \"b\" not found"];
    let seen = |seconds: [u32; 2]| listed(&[event(seconds[0], notes[0]), event(seconds[1], notes[1])]);
    answers(&server, seen([1, 2])).await;
    let (events, mut streams) = pod_events(&server);
    events.follow("u", &alias(), &[pod("p")]);
    woken(&mut streams).await;
    let first = |events: &PodEvents| events.of("u", "p")[0].note.clone();
    let reported = first(&events);
    for seconds in [[30, 2], [30, 31], [58, 31]] {
        answers(&server, seen(seconds)).await;
        assert!(!events.0.look("u", &pod("p")).await, "{seconds:?}");
        assert_eq!(first(&events), reported);
    }
    answers(&server, listed(&[event(59, "node not ready"), event(58, notes[0]), event(31, notes[1])])).await;
    assert!(events.0.look("u", &pod("p")).await, "another Event is news");
    assert_eq!(first(&events), reported, "what is reported is still so");
}

#[tokio::test]
async fn pods_of_a_model_alias_that_is_gone_are_not_read() {
    let server = MockServer::start().await;
    answers(&server, listed(&[])).await;
    let (events, _streams) = pod_events(&server);
    events.forget("gone");
    // A reconcile that began before the deletion.
    events.follow("gone", &alias(), &[pod("p")]);
    let began = Instant::now();
    while !events.0.lock().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "its task runs for ever");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_pod_is_read_less_and_less_often_and_a_young_one_not_yet() {
    let server = MockServer::start().await;
    answers(&server, listed(&[])).await;
    let (events, _streams) = pod_events(&server);
    let young = AwaitedPod { created: Some(jiff::Timestamp::now()), ..pod("young") };
    events.follow("u", &alias(), &[pod("p"), young.clone()]);
    let due = |events: &PodEvents| -> BTreeSet<String> {
        events.0.due("u").into_iter().map(|pod| pod.uid).collect()
    };
    assert_eq!(due(&events), BTreeSet::from(["p".to_owned()]));
    assert_eq!(due(&events), BTreeSet::new());
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let mut awaited = events.0.lock();
        let known = awaited.get_mut("u").unwrap().pods.get_mut("p").unwrap();
        known.due = Instant::now();
        pauses.push(known.pause.as_secs());
        drop(awaited);
        events.0.due("u");
    }
    assert_eq!(pauses, [4, 8, 16, 30, 30, 30]);
    // A reconcile in between does not begin anew.
    events.follow("u", &alias(), &[pod("p"), young]);
    assert_eq!(events.0.lock()["u"].pods["p"].pause, PAUSE_MAX);
}

#[tokio::test]
async fn a_namespace_rests_after_a_read_and_others_are_read() {
    let server = MockServer::start().await;
    let takes = Duration::from_millis(50);
    answers(&server, listed(&[]).set_delay(takes)).await;
    let (events, _streams) = pod_events(&server);
    let (one, other) = (pod("p"), pod("q"));
    let began = Instant::now();
    tokio::join!(events.0.look("u", &one), events.0.look("u", &other));
    assert!(began.elapsed() >= takes * 11, "the second read ended after {:?}", began.elapsed());
    assert_eq!(events.0.turn("other").available_permits(), 1);
    let turn = events.0.turn("risk");
    let rested = tokio::time::timeout(2 * READ_TIMEOUT, turn.acquire()).await;
    assert!(rested.is_ok(), "the rest does not end");
}

#[tokio::test]
async fn a_namespace_rests_also_after_a_read_that_nobody_waits_for() {
    let server = MockServer::start().await;
    answers(&server, listed(&[]).set_delay(Duration::from_mins(1))).await;
    let (events, _streams) = pod_events(&server);
    let waits = Duration::from_millis(500);
    tokio::time::timeout(waits, events.0.look("u", &pod("p"))).await.unwrap_err();
    let turn = events.0.turn("risk");
    let next = tokio::time::timeout(waits, turn.acquire()).await;
    assert!(next.is_err(), "the API server may still be reading");
}

#[tokio::test]
async fn without_permission_nothing_is_reported_and_nothing_breaks() {
    let server = MockServer::start().await;
    let denied = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "events.events.k8s.io is forbidden",
    });
    answers(&server, ResponseTemplate::new(403).set_body_json(denied)).await;
    let (events, _streams) = pod_events(&server);
    events.follow("u", &alias(), &[pod("p")]);
    assert!(!events.0.look("u", &pod("p")).await);
    assert!(events.0.is_denied.load(Ordering::Relaxed));
    assert_eq!(events.of("u", "p"), []);
    events.forget("u");
    assert!(events.0.lock().is_empty());
}
