//! Rounds over the wire, with scripted pods.

use std::{net::TcpListener, sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use pretty_assertions::assert_eq;
use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

use super::{LiveWatches, Request, run::Judged};
use crate::{
    analysis::{
        ledger::{Arm, Counters, Gap, Outcomes, PodUid, Round, Scrape},
        live::{Phase, Reason, Verdict, WatchKey},
    },
    api::{model_alias::AliasKey, names::Version},
    cluster::{
        Requeue, RequeueStreams,
        cache::{Cache, Projected},
    },
    decide::LiveWatch,
    state::{
        PodAccess,
        counted::{Names, Source},
    },
};

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn alias() -> AliasKey {
    ("risk".to_owned(), "fraud-champion".to_owned())
}

fn pod(number: u32, ip: &str, is_ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("fraud-champion-v{number}-{ip}"),
            "uid": format!("{number}-{ip}"),
            "labels": { "laurel.dev/version": number.to_string() },
        },
        "status": {
            "podIP": ip,
            "conditions": [{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }],
        },
    }))
    .unwrap()
}

/// What a pod says that answered 100 requests, so many of them with 400.
fn counted(failures: u32) -> ResponseTemplate {
    let series = |status: u32, count: u32| {
        format!(
            "http_server_request_duration_seconds_count{{http_response_status_code=\"{status}\"}} {count}\n"
        )
    };
    ResponseTemplate::new(200).set_body_string(series(200, 100 - failures) + &series(400, failures))
}

/// The pods of two versions that are compared: each with a loopback address of its own, on one port.
struct Pods {
    one: MockServer,
    twelve: MockServer,
    access: Arc<PodAccess>,
    request: Request,
}

/// A port that is free at both addresses; `None` if somebody else took it at the other one.
fn one_port() -> Option<(u16, [TcpListener; 2])> {
    let one = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = one.local_addr().unwrap().port();
    let other = TcpListener::bind(("127.0.0.2", port)).ok()?;
    Some((port, [one, other]))
}

impl Pods {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (port, [one, twelve]) = (0..100).find_map(|_| one_port()).unwrap();
        let one = MockServer::builder().listener(one).start().await;
        let twelve = MockServer::builder().listener(twelve).start().await;
        let cluster = Arc::<Cache>::default();
        pod(1, "127.0.0.1", true).insert(&cluster, &alias());
        pod(12, "127.0.0.2", true).insert(&cluster, &alias());
        pod(12, "127.0.0.3", false).insert(&cluster, &alias());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let access = Arc::new(PodAccess { cluster, http });
        Self { one, twelve, access, request: request(port) }
    }

    async fn answer(&self, one: ResponseTemplate, twelve: ResponseTemplate) {
        for (server, answer) in [(&self.one, one), (&self.twelve, twelve)] {
            server.reset().await;
            Mock::given(path("/metrics")).respond_with(answer).mount(server).await;
        }
    }

    async fn scrapes(&self) -> Vec<Scrape> {
        let mut scrapes = self.request.round(&self.access).await.scrapes;
        scrapes.sort_by(|one, other| one.arm.cmp(&other.arm));
        scrapes
    }

    fn watches(&self) -> (LiveWatches, RequeueStreams) {
        let (requeue, streams) = Requeue::new();
        (LiveWatches::new(PodAccess::clone(&self.access), requeue), streams)
    }
}

fn request(port: u16) -> Request {
    let names = Names {
        requests: "http_server_request_duration_seconds".into(),
        status: "http_response_status_code".into(),
    };
    Request {
        uid: "6d1b".into(),
        alias: alias(),
        watch: LiveWatch {
            key: WatchKey {
                version: "12".into(),
                against: Some("1".into()),
                model_uri: "models:/m-1".into(),
                fingerprint: "v1-0".into(),
                attempt: String::new(),
            },
            version: version(12),
            against: Some(version(1)),
            step: Some(1),
            weights: vec![95.0, 5.0],
            phase: Phase::Step { at_least: SignedDuration::from_mins(1), at_most: None },
            began_at: Timestamp::now(),
            rule: serde_yaml::from_str("{checks: [{name: failures, failures: {}}]}").unwrap(),
        },
        source: Source { port, path: "/metrics".into(), names },
    }
}

#[tokio::test]
async fn a_round_reads_the_ready_pods_of_both_versions_and_knows_them_by_their_label() {
    let pods = Pods::start().await;
    pods.answer(counted(1), counted(60)).await;
    let scrapes = pods.scrapes().await;
    let found: Vec<_> = scrapes
        .iter()
        .map(|scrape| (scrape.arm.clone(), scrape.counters.as_ref().unwrap().checks["failures"]))
        .collect();
    let outcomes = |bad| Outcomes { bad, total: 100 };
    assert_eq!(found, [(Arm("1".into()), outcomes(1)), (Arm("12".into()), outcomes(60))]);
    assert_eq!(scrapes[1].pod.0, "12-127.0.0.2");
}

#[tokio::test]
async fn what_a_pod_does_not_say_is_a_gap() {
    let pods = Pods::start().await;
    let large = "x".repeat((1 << 20) + 1);
    let answers = [
        (ResponseTemplate::new(500), Gap::Unreachable),
        (ResponseTemplate::new(404), Gap::Unreachable),
        (ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1/metrics"), Gap::Unreachable),
        (ResponseTemplate::new(200), Gap::Missing),
        (ResponseTemplate::new(200).set_body_string(large), Gap::Partial),
        (ResponseTemplate::new(200).set_body_bytes([0xff]), Gap::NotACount),
        (counted(1).set_delay(Duration::from_mins(1)), Gap::Unreachable),
    ];
    for (answer, gap) in answers {
        pods.answer(counted(1), answer.clone()).await;
        let scrapes = pods.scrapes().await;
        assert!(scrapes[0].counters.is_ok());
        assert_eq!(scrapes[1].counters, Err(gap), "{answer:?}");
    }
    drop(pods.twelve);
    let scrapes = pods.request.round(&pods.access).await.scrapes;
    assert!(scrapes.iter().any(|scrape| scrape.counters == Err(Gap::Unreachable)));
}

#[tokio::test]
async fn the_first_round_wakes_the_alias_and_another_version_begins_at_zero() {
    let pods = Pods::start().await;
    pods.answer(counted(0), counted(0)).await;
    let (watches, streams) = pods.watches();
    let mut woken = streams.aliases;
    assert_eq!(watches.of("6d1b"), None);
    watches.follow(pods.request.clone());
    tokio::time::timeout(PATIENCE, woken.next()).await.unwrap().unwrap();
    let view = watches.of("6d1b").unwrap();
    let found: Vec<_> = view.findings.iter().map(|it| (it.check.as_str(), it.verdict, it.reason)).collect();
    assert_eq!(found, [("failures", Verdict::Undecided, Reason::NotEnoughTraffic)]);
    // The same again changes nothing.
    watches.follow(pods.request.clone());
    assert_eq!(watches.of("6d1b"), Some(view));
    let mut other = pods.request.clone();
    other.watch.key.attempt = "again".into();
    watches.follow(other.clone());
    assert!(watches.of("6d1b").is_none_or(|view| view.key == other.watch.key));
    watches.forget("6d1b");
    assert_eq!(watches.of("6d1b"), None);
}

#[tokio::test]
async fn several_bad_versions_in_a_row_are_one_alias_and_three_aliases_at_once_are_many() {
    let pods = Pods::start().await;
    let (watches, _streams) = pods.watches();
    let now = Timestamp::now();
    for _ in 0..5 {
        watches.0.became_worse("one", now);
    }
    watches.0.became_worse("another", now);
    assert!(!watches.0.are_many_worse(now), "these are two");
    watches.0.became_worse("a third", now);
    assert!(watches.0.are_many_worse(now));
    assert!(!watches.0.are_many_worse(now + SignedDuration::from_mins(6)), "that was long ago");
}

/// A round in which version 1 answered so many requests, and version 12 as many, and all its answers are bad.
fn bad_round(at: Timestamp, requests: u64) -> Round {
    let scrape = |arm: &str, bad| Scrape {
        arm: Arm(arm.into()),
        pod: PodUid(arm.into()),
        started_at: Timestamp::UNIX_EPOCH,
        at,
        counters: Ok(Counters {
            requests,
            checks: [("failures".to_owned(), Outcomes { bad, total: requests })].into(),
            ..Counters::default()
        }),
    };
    Round { at, weights: vec![50.0, 50.0], scrapes: vec![scrape("1", 0), scrape("12", requests)] }
}

#[test]
fn a_verdict_that_was_not_believed_is_not_believed_later_either() {
    let watch = LiveWatch { weights: vec![50.0, 50.0], ..request(1).watch };
    let begin = watch.began_at;
    let mut judged = Judged::new(&watch, begin);
    let mut became_worse = 0;
    let mut doubted = Vec::new();
    for round in 1..60_u32 {
        let now = begin + SignedDuration::from_secs(15) * i32::try_from(round).unwrap();
        became_worse += u32::from(judged.add(&bad_round(now, u64::from(round) * 100), &watch, now));
        // The others are forgotten after five minutes.
        let are_many = became_worse > 0 && round < 30;
        doubted.extend(
            judged.news(&watch, are_many, now).map(|view| (view.findings[0].verdict, view.are_many_worse)),
        );
    }
    assert_eq!(became_worse, 1);
    assert_eq!(doubted.last(), Some(&(Verdict::Worse, true)), "{doubted:?}");
    let believed = |it: &&(Verdict, bool)| **it == (Verdict::Worse, false);
    assert_eq!(doubted.iter().find(believed), None, "{doubted:?}");
}
