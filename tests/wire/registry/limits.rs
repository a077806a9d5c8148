//! What a server is asked at a time, counted by the server itself.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, http::Method, response::IntoResponse};
use jiff::Timestamp;
use laurel::{
    cluster::Requeue,
    registry::{
        RegisteredModelFacts, Registry,
        limiter::{Limiter, Limits, Priority, Waits},
        mlflow::{Connection, MlflowRegistry},
        polled::{PolledRegistry, Registries, RegistryKey, Settings},
    },
    render::RegistryForPods,
    state::{FRESH, ReadKey, Reads, Waiter},
};
use pretty_assertions::assert_eq;
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::support::{alias, connection, model, version};

/// A server that answers reads only when it is told to, and every write at once.
struct SlowServer {
    url: String,
    counts: Arc<Counts>,
    answers: watch::Sender<bool>,
}

#[derive(Default)]
struct Counts {
    in_flight: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl SlowServer {
    async fn start() -> Self {
        let (counts, answers) = (Arc::<Counts>::default(), watch::Sender::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (counted, opened) = (counts.clone(), answers.subscribe());
        let answer = move |request: Request| {
            let (counts, mut opened) = (counted.clone(), opened.clone());
            async move {
                counts.all.fetch_add(1, Ordering::SeqCst);
                counts.most.fetch_max(counts.in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let is_write = request.method() != Method::GET;
                if !is_write {
                    opened.wait_for(|is_open| *is_open).await.unwrap();
                }
                counts.in_flight.fetch_sub(1, Ordering::SeqCst);
                let absent = r#"{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}"#;
                if is_write { (200, "{}") } else { (404, absent) }
            }
        };
        let answer = move |request| {
            let answer = answer(request);
            async {
                let (status, body) = answer.await;
                let status = axum::http::StatusCode::from_u16(status).unwrap();
                (status, [("content-type", "application/json")], body).into_response()
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { url, counts, answers }
    }

    fn client(&self, in_flight: u32, per_second: u32) -> Arc<MlflowRegistry> {
        let limits = Limits {
            in_flight: NonZeroU32::new(in_flight).unwrap(),
            per_second: NonZeroU32::new(per_second).unwrap(),
        };
        let limiter = Limiter::new(limits, Waits::default());
        let timeout = Duration::from_mins(2);
        let connection = Connection { limiter, timeout, ..connection(&self.url) };
        Arc::new(MlflowRegistry::new(connection).unwrap())
    }

    /// Waits until so many requests are in flight.
    async fn has_in_flight(&self, count: usize) {
        while self.counts.in_flight.load(Ordering::SeqCst) != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn read(client: &Arc<MlflowRegistry>, priority: Priority, number: u32) -> impl Future<Output = ()> + use<> {
    let client = client.clone().with_priority(priority);
    async move { assert_eq!(client.version(&model("fraud"), version(number)).await.unwrap(), None) }
}

#[tokio::test]
async fn an_alias_is_written_while_thousands_of_reads_wait_for_a_slow_server() {
    let server = SlowServer::start().await;
    let client = server.client(16, 1000);
    let priorities = [Priority::Display, Priority::Poll, Priority::Decision];
    let mut reads = Vec::new();
    for (priority, count) in priorities.into_iter().zip([8, 12, 14]) {
        let reading = (1..=1000).map(|number| tokio::spawn(read(&client, priority, number)));
        reads.extend(reading);
        timeout(Duration::from_mins(1), server.has_in_flight(count)).await.expect("they have their share");
    }
    let writer = client.with_priority(Priority::AliasWrite);
    let fraud = model("fraud");
    let champion = alias("champion");
    let write = writer.set_alias(&fraud, &champion, version(1));
    timeout(Duration::from_mins(1), write).await.expect("it does not wait for reads").unwrap();
    assert_eq!(server.counts.all.load(Ordering::SeqCst), 15, "all other reads wait here");
    server.answers.send_replace(true);
    for read in reads {
        timeout(Duration::from_mins(1), read).await.expect("none waits for ever").unwrap();
    }
    assert_eq!(server.counts.all.load(Ordering::SeqCst), 3001, "each is asked once");
    assert!(server.counts.most.load(Ordering::SeqCst) <= 16);
}

#[tokio::test]
async fn a_fast_server_is_not_asked_more_often_than_allowed() {
    let server = SlowServer::start().await;
    server.answers.send_replace(true);
    let client = server.client(100, 20);
    let start = Instant::now();
    let reads: Vec<_> = (1..=40).map(|number| tokio::spawn(read(&client, Priority::Poll, number))).collect();
    for read in reads {
        read.await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(1500), "10 at once and 30 more: {:?}", start.elapsed());
}

/// The registry at this server, of which nothing has been read.
fn polled(server: &SlowServer) -> Arc<PolledRegistry> {
    let url: url::Url = server.url.parse().unwrap();
    let pods = RegistryForPods { tracking_uri: url.clone(), workspace: None, ca: None, env_from: Vec::new() };
    let (poll_interval, limits) = (Duration::from_secs(30), Limits::default());
    let settings = Settings { url, workspace: None, poll_interval, limits, pods };
    Registries::default().set(&RegistryKey::Cluster { name: "mlflow".to_owned() }, settings).0
}

#[tokio::test]
async fn a_needed_version_is_read_while_a_slow_server_has_answered_no_other() {
    let server = SlowServer::start().await;
    let client = server.client(16, 1000);
    let registry = polled(&server);
    let facts = RegisteredModelFacts {
        name: model("fraud"),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        description: String::new(),
        tags: std::collections::BTreeMap::new(),
        aliases: std::collections::BTreeMap::new(),
    };
    let (requeue, _streams) = Requeue::new();
    let reads = Reads::<()>::new(requeue, FRESH, |()| false);
    let begin = |number: u32, priority| {
        let key = ReadKey::version(&registry, &facts, version(number), priority);
        let waiter = Waiter::Alias(("risk".to_owned(), number.to_string()));
        assert!(reads.last(key, &waiter, None, read(&client, priority, number)).is_err());
    };
    for number in 1..=1000 {
        begin(number, Priority::Poll);
    }
    timeout(Duration::from_mins(1), server.has_in_flight(12)).await.expect("they have their share");
    begin(1001, Priority::Decision);
    timeout(Duration::from_mins(1), server.has_in_flight(13)).await.expect("it waits for none of them");
    server.answers.send_replace(true);
}
