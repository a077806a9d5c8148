//! Smoke tests over the wire, with a scripted registry and pod.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use pretty_assertions::assert_eq;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, method, path},
};

use super::{Request, SmokeTests, run::Failures};
use crate::{
    api::{
        model_alias::AliasKey,
        model_registry::Stages,
        names::{ModelName, Version},
    },
    cluster::{
        Requeue, RequeueStreams,
        cache::{Cache, Projected},
    },
    decide::{
        Attempt, SmokeReport,
        tests::smoke_tests::{Pods as SimulatedPods, Registry as SimulatedRegistry, simulated},
    },
    fence::Fence,
    registry::{
        limiter::{Limiter, Limits},
        mlflow::{Connection, MlflowRegistry},
        polled::{PolledRegistry, Registries, RegistryKey, Settings},
    },
    render::RegistryForPods,
    state::PodAccess,
};

const EXAMPLE: &str = r#"{"dataframe_split": {"data": [[NaN, Infinity]]}}"#;
const UID: &str = "6d1b";
/// How long a test waits for a report.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry, a pod, and the smoke tests between them.
struct Bench {
    registry: MockServer,
    pod: MockServer,
    request: Request,
    cluster: Arc<Cache>,
    tests: SmokeTests,
    requeue: RequeueStreams,
}

fn version() -> Version {
    Version::new(5).unwrap()
}

fn alias() -> AliasKey {
    ("risk".to_owned(), "fraud-champion".to_owned())
}

fn attempt(retry: &str) -> Attempt {
    Attempt { retry: Some(retry.to_owned()), ..Attempt::default() }
}

fn pod(is_ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "fraud-champion-v5-a", "labels": { "laurel.dev/version": "5" } },
        "status": {
            "podIP": "127.0.0.1",
            "conditions": [{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }],
        },
    }))
    .unwrap()
}

fn polled(url: &str) -> Arc<PolledRegistry> {
    let url: url::Url = url.parse().unwrap();
    let pods = RegistryForPods { tracking_uri: url.clone(), workspace: None, ca: None, env_from: Vec::new() };
    let settings = Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: Duration::from_secs(30),
        limits: Limits::default(),
        pods,
    };
    let (registry, _) = Registries::default().set(&RegistryKey::Cluster { name: "mlflow".into() }, settings);
    let timeout = Duration::from_secs(5);
    let connection = Connection {
        url,
        workspace: None,
        stages: Stages::Ignore,
        credentials: None,
        ca_pem: None,
        timeout,
        fence: Fence::default(),
        limiter: Limiter::default(),
    };
    registry.set_client(Ok(Arc::new(MlflowRegistry::new(connection).unwrap())));
    registry
}

impl Bench {
    /// Creates one in which nothing answers yet.
    async fn new() -> Self {
        Self::with_limit(32 << 20).await
    }

    async fn with_limit(example_max: usize) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (registry, pod_server) = (MockServer::start().await, MockServer::start().await);
        let cluster = Arc::<Cache>::default();
        pod(true).insert(&cluster, &alias());
        let (sender, requeue) = Requeue::new();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let model: ModelName = "fraud".parse().unwrap();
        let request = Request {
            uid: UID.to_owned(),
            alias: alias(),
            version: version(),
            attempt: attempt("1"),
            model,
            registry: polled(&registry.uri()),
            port: pod_server.address().port(),
            timeout: Duration::from_secs(10),
        };
        let tests = SmokeTests::new(PodAccess { cluster: cluster.clone(), http }, sender, example_max);
        Self { registry, pod: pod_server, request, cluster, tests, requeue }
    }

    /// Creates one in which everything works, except for the pod's response.
    async fn with(answer: ResponseTemplate) -> Self {
        let bench = Self::new().await;
        bench.logged(EXAMPLE).await;
        bench.answers(answer).await;
        bench
    }

    /// Sets the version's input example.
    async fn logged(&self, example: &str) {
        let file = ResponseTemplate::new(200).set_body_raw(example.as_bytes(), "text/plain");
        self.registry_answers(file).await;
    }

    async fn registry_answers(&self, answer: ResponseTemplate) {
        Mock::given(method("GET")).respond_with(answer).mount(&self.registry).await;
    }

    async fn answers(&self, answer: ResponseTemplate) {
        let invocations = Mock::given(method("POST")).and(path("/invocations"));
        invocations.respond_with(answer).mount(&self.pod).await;
    }

    /// Sets the pod's port.
    fn behind(&mut self, port: u16) {
        self.request.port = port;
    }

    fn begin(&self, retry: &str) {
        let _ = self.tests.begin(Request { attempt: attempt(retry), ..self.request.clone() });
    }

    fn report(&self) -> Option<SmokeReport> {
        self.tests.of(UID, version()).map(|test| test.report)
    }

    /// Returns the first report other than that the test is running.
    async fn outcome(&mut self) -> SmokeReport {
        let outcome = async {
            loop {
                self.requeue.aliases.next().await.unwrap();
                if let Some(report) =
                    self.report().filter(|report| !matches!(report, SmokeReport::Running(_)))
                {
                    return report;
                }
            }
        };
        tokio::time::timeout(PATIENCE, outcome).await.unwrap()
    }

    /// Returns the bodies that the pod received.
    async fn sent(&self) -> Vec<Vec<u8>> {
        self.pod.received_requests().await.unwrap().into_iter().map(|request| request.body).collect()
    }
}

fn why_unavailable(report: SmokeReport) -> String {
    let SmokeReport::Unavailable { why, .. } = report else { panic!("{report:?}") };
    why
}

fn why_failed(report: SmokeReport) -> String {
    let SmokeReport::Failed(why) = report else { panic!("{report:?}") };
    why
}

/// Starts a pod with custom behaviour on its own port.
async fn listen<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

#[tokio::test]
async fn the_example_is_sent_as_logged() {
    let mut bench = Bench::with(ResponseTemplate::new(200)).await;
    bench.begin("1");
    assert_eq!(bench.outcome().await, SmokeReport::Passed);
    assert_eq!(bench.sent().await, [EXAMPLE.as_bytes()]);
    let requests = bench.pod.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["content-type"], "application/json");
    assert_eq!(requests[0].headers["content-length"], EXAMPLE.len().to_string());
}

#[tokio::test]
async fn a_large_example_is_sent() {
    let mut bench = Bench::new().await;
    let large = format!("{{\"inputs\": \"{}\"}}", "x".repeat(3 << 20));
    bench.logged(&large).await;
    bench.answers(ResponseTemplate::new(200)).await;
    bench.begin("1");
    assert_eq!(bench.outcome().await, SmokeReport::Passed);
    assert!(bench.sent().await == [large.as_bytes()], "not the bytes that were logged");
}

#[tokio::test]
async fn an_example_beyond_the_limit_is_reported_and_not_sent() {
    let mut bench = Bench::with_limit(2 << 20).await;
    bench.logged(&format!("{{\"inputs\": \"{}\"}}", "x".repeat(3 << 20))).await;
    bench.begin("1");
    let SmokeReport::Skipped(why) = bench.outcome().await else { panic!("not skipped") };
    assert!(why.contains("2097152 bytes") && why.contains("--input-example-max-bytes"), "{why}");
    assert!(bench.sent().await.is_empty());
}

#[tokio::test]
async fn an_error_of_the_model_server_fails_the_version() {
    let mut bench = Bench::with(ResponseTemplate::new(400).set_body_string("missing column")).await;
    bench.begin("1");
    let why = why_failed(bench.outcome().await);
    assert_eq!(why, "POST /invocations answered 400 Bad Request: missing column");
    assert_eq!(bench.sent().await.len(), 1);
}

#[tokio::test]
async fn a_result_is_kept_for_its_attempt_and_the_next_attempt_sends_a_request() {
    let mut bench = Bench::with(ResponseTemplate::new(500)).await;
    bench.begin("1");
    bench.outcome().await;
    bench.begin("1");
    assert!(matches!(bench.report(), Some(SmokeReport::Failed(_))), "{:?}", bench.report());
    bench.begin("2");
    assert_eq!(bench.report(), Some(SmokeReport::Running(None)));
    why_failed(bench.outcome().await);
    assert_eq!(bench.sent().await.len(), 2);
}

#[tokio::test]
async fn a_test_that_is_no_longer_desired_ends_without_a_result() {
    let slow = ResponseTemplate::new(500).set_delay(Duration::from_millis(300));
    let mut bench = Bench::with(slow).await;
    bench.begin("1");
    while bench.sent().await.is_empty() {
        tokio::task::yield_now().await;
    }
    bench.tests.keep_only(UID, Some(&(version(), attempt("1"))));
    assert_eq!(bench.report(), Some(SmokeReport::Running(None)));
    bench.tests.keep_only(UID, None);
    assert_eq!(bench.report(), None);
    // The first attempt's task would have reported before the second's.
    bench.begin("2");
    why_failed(bench.outcome().await);
    assert_eq!(bench.sent().await.len(), 2);
}

#[tokio::test]
async fn artifacts_that_the_registry_cannot_fetch_make_the_test_unavailable() {
    let page =
        |status: u16, body: &str| ResponseTemplate::new(status).set_body_raw(body.as_bytes(), "text/html");
    let answers = [
        (page(500, "<title>500 Internal Server Error</title>"), "HTTP 500"),
        (page(404, "<title>404 Not Found</title>"), "--static-prefix"),
        (page(502, "<title>502 Bad Gateway</title>"), "HTTP 502"),
        (page(200, "<title>Log in</title>"), "Log in"),
    ];
    for (answer, expected) in answers {
        let mut bench = Bench::new().await;
        bench.registry_answers(answer).await;
        bench.begin("1");
        let why = why_unavailable(bench.outcome().await);
        assert!(why.contains(expected) && why.contains("its input example cannot be read"), "{why}");
        assert!(bench.sent().await.is_empty());
    }
}

#[tokio::test]
async fn pods_that_cannot_be_reached_make_the_test_unavailable() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    // A sidecar that requires mutual TLS closes plain HTTP connections.
    let closed = listen(async |mut stream| {
        let _ = stream.read(&mut [0; 64]).await;
    })
    .await;
    for port in [refused, closed] {
        let mut bench = Bench::new().await;
        bench.logged(EXAMPLE).await;
        bench.behind(port);
        bench.begin("1");
        let why = why_unavailable(bench.outcome().await);
        assert!(why.contains(&format!("on port {port}")) && why.contains("NetworkPolicy"), "{why}");
        assert!(!why.contains("127.0.0.1"), "the text differs from pod to pod: {why}");
    }
}

#[tokio::test]
async fn an_unavailable_test_is_retried_and_passes_once_it_can() {
    let mut bench = Bench::new().await;
    let away =
        Mock::given(any()).respond_with(ResponseTemplate::new(502)).mount_as_scoped(&bench.registry).await;
    bench.answers(ResponseTemplate::new(200)).await;
    bench.begin("1");
    why_unavailable(bench.outcome().await);
    drop(away);
    bench.logged(EXAMPLE).await;
    assert_eq!(bench.outcome().await, SmokeReport::Passed);
}

#[tokio::test]
async fn a_busy_server_is_retried() {
    for status in [429, 502, 503] {
        let mut bench = Bench::new().await;
        bench.logged(EXAMPLE).await;
        let busy = Mock::given(any()).respond_with(ResponseTemplate::new(status)).up_to_n_times(1);
        busy.mount(&bench.pod).await;
        bench.answers(ResponseTemplate::new(200)).await;
        bench.begin("1");
        assert_eq!(bench.outcome().await, SmokeReport::Passed, "{status}");
        assert_eq!(bench.sent().await.len(), 2);
    }
}

#[test]
fn a_server_that_stays_busy_fails_the_version_after_half_a_minute() {
    let mut failures = Failures::default();
    let mut waited = Duration::ZERO;
    let why = loop {
        match failures.count("503".to_owned(), true) {
            SmokeReport::Failed(why) => break why,
            report => assert_eq!(report, SmokeReport::Running(Some("503".to_owned()))),
        }
        waited += failures.pause();
    };
    assert_eq!((why.as_str(), waited), ("503", Duration::from_secs(31)));
}

#[tokio::test]
async fn a_prediction_that_takes_longer_than_the_limit_is_sent_once() {
    let mut bench = Bench::with(ResponseTemplate::new(200).set_delay(Duration::from_secs(20))).await;
    bench.request.timeout = Duration::from_millis(500);
    bench.begin("1");
    let why = why_failed(bench.outcome().await);
    assert!(why.contains("within 0.5s") && why.contains("spec.rollout.smokeTest.timeout"), "{why}");
    assert_eq!(bench.sent().await.len(), 1);
}

#[tokio::test]
async fn a_pod_that_is_no_longer_ready_fails_no_version() {
    let slow = ResponseTemplate::new(500).set_delay(Duration::from_millis(200));
    let mut bench = Bench::with(slow).await;
    bench.begin("1");
    while bench.sent().await.is_empty() {
        tokio::task::yield_now().await;
    }
    pod(false).insert(&bench.cluster, &alias());
    why_unavailable(bench.outcome().await);
}

/// A tenant's server sends an endless response.
#[tokio::test]
async fn only_the_beginning_of_an_endless_response_is_read() {
    let endless = listen(async |mut stream| {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 500 Oh\r\ncontent-type: text/plain\r\n\r\n").await;
        let chunk = vec![b'x'; 64 << 10];
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let mut bench = Bench::new().await;
    bench.logged(EXAMPLE).await;
    bench.behind(endless);
    let began = Instant::now();
    bench.begin("1");
    let why = why_failed(bench.outcome().await);
    assert!(why.len() < 400 && began.elapsed() < bench.request.timeout, "{} bytes", why.len());
}

/// The simulated world of the decision's tests replaces this module. Both keep a test in the same slot; this
/// shows that the same circumstances lead to the same report.
#[tokio::test]
async fn the_simulated_world_gives_the_same_reports() {
    use SimulatedPods as P;
    use SimulatedRegistry as R;
    let circumstances = [P::Answer, P::AnswerWithErrors, P::CannotBeReached]
        .into_iter()
        .flat_map(|pods| [R::Answers, R::IsAway, R::HidesExamples].map(|registry| (pods, registry)));
    for (pods, registry) in circumstances {
        let mut bench = Bench::new().await;
        match registry {
            R::Answers => bench.logged(EXAMPLE).await,
            R::IsAway => bench.registry_answers(ResponseTemplate::new(503)).await,
            R::HidesExamples => bench.registry_answers(ResponseTemplate::new(404)).await,
        }
        match pods {
            P::Answer => bench.answers(ResponseTemplate::new(200)).await,
            P::AnswerWithErrors => bench.answers(ResponseTemplate::new(500)).await,
            // Nothing listens on that port.
            P::CannotBeReached => bench.behind(1),
        }
        bench.begin("1");
        let (real, simulated) = (bench.outcome().await, simulated(pods, registry));
        let is_same = std::mem::discriminant(&real) == std::mem::discriminant(&simulated);
        assert!(is_same, "{pods:?}, {registry:?}: {real:?}, but in the world {simulated:?}");
    }
}
