//! Deliveries over real sockets: accepted ones, rejected ones, and slow clients.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use laurel::{
    registry::polled::RegistryKey,
    webhook::{
        DeliveryOutcome, Receivers,
        certificate::Certificate,
        content::About,
        endpoint::{Endpoint, Limits},
        receiver::Received,
    },
};
use parking_lot::Mutex;
use pretty_assertions::assert_eq;
use reqwest::{Certificate as Trusted, Client, RequestBuilder, StatusCode};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SECRET: &str = "wonderland";
const PATH: &str = "/webhooks/risk/mlflow";
/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

type Heard = Arc<Mutex<Vec<(Option<RegistryKey>, DeliveryOutcome)>>>;
type Read = Arc<Mutex<Vec<About>>>;

/// An endpoint with one receiver, and everything that it accepted.
struct Stage {
    address: SocketAddr,
    heard: Heard,
    read: Read,
    scheme: &'static str,
    client: Client,
}

fn key() -> RegistryKey {
    RegistryKey::Object { namespace: "risk".to_owned(), name: "mlflow".to_owned() }
}

/// Limits that no honest client on a slow machine reaches.
fn generous() -> Limits {
    Limits { connections: 8, connection: PATIENCE, headers: PATIENCE, ..Limits::default() }
}

impl Stage {
    async fn set(with_tls: bool, limits: Limits) -> Self {
        Self::behind(with_tls, limits, None).await
    }

    /// The same, of an operator that stands by while another one acts, whose endpoint is at `leader`.
    async fn behind(with_tls: bool, limits: Limits, leader: Option<SocketAddr>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let receivers = Arc::new(Receivers::default());
        receivers.open(&key()).set_secret(Some(SECRET.into()), Instant::now());
        let heard = Heard::default();
        let journal = heard.clone();
        let read = Read::default();
        let reads = read.clone();
        let tls = with_tls.then(|| {
            let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
                "endpoint-{}-{:?}",
                std::process::id(),
                std::thread::current().id()
            ));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("tls.crt"), include_bytes!("../../support/tls/server.pem")).unwrap();
            std::fs::write(folder.join("tls.key"), include_bytes!("../../support/tls/server.key")).unwrap();
            Certificate::read(&folder).server().unwrap()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard_one = move |key: Option<&RegistryKey>, received: Received, about: About| {
            journal.lock().push((key.cloned(), received.outcome));
            reads.lock().push(about);
        };
        let endpoint = Endpoint {
            receivers,
            tls,
            limits,
            leader: Box::new(move || leader),
            on_delivery: Box::new(heard_one),
        };
        tokio::spawn(endpoint.serve(listener, std::future::pending()));
        let ca = Trusted::from_pem(include_bytes!("../../support/tls/ca.pem")).unwrap();
        let client = Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([ca]).build().unwrap();
        Self { address, heard, read, scheme: if with_tls { "https" } else { "http" }, client }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}://localhost:{}{path}", self.scheme, self.address.port()))
    }

    fn heard(&self) -> Vec<DeliveryOutcome> {
        self.heard.lock().iter().map(|(_, outcome)| *outcome).collect()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Returns MLflow's headers for a body.
fn signed(request: RequestBuilder, secret: &str, id: &str, sent: u64, body: &str) -> RequestBuilder {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{id}.{sent}.{body}").as_bytes());
    request
        .header("Content-Type", "application/json")
        .header("X-MLflow-Delivery-Id", id)
        .header("X-MLflow-Timestamp", sent)
        .header("X-MLflow-Signature", format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn over_tls_a_delivery_is_accepted_once() {
    let stage = Stage::set(true, generous()).await;
    let send = || signed(stage.post(PATH), SECRET, "first", now(), "{}").body("{}");
    assert_eq!(status(send()).await, 200);
    assert_eq!(status(send()).await, 200, "a repetition gets the same response, so that retries end");
    assert_eq!(
        *stage.heard.lock(),
        [(Some(key()), DeliveryOutcome::Accepted), (Some(key()), DeliveryOutcome::Replayed)]
    );
}

#[tokio::test]
async fn only_the_body_of_an_accepted_delivery_names_a_model() {
    let stage = Stage::set(false, generous()).await;
    let body = r#"{"entity": "model_version_alias", "action": "created", "data": {"name": "fraud"}}"#;
    let send = |secret, id| signed(stage.post(PATH), secret, id, now(), body).body(body);
    assert_eq!(status(send("somebody else's", "1")).await, 401);
    assert_eq!(status(send(SECRET, "2")).await, 200);
    assert_eq!(*stage.read.lock(), [About::Unknown, About::Model("fraud".parse().unwrap())]);
}

#[tokio::test]
async fn a_standby_forwards_a_delivery_to_the_operator_that_acts() {
    let leader = Stage::set(true, generous()).await;
    let standby = Stage::behind(true, generous(), Some(leader.address)).await;
    let send = || signed(standby.post(PATH), SECRET, "forwarded", now(), "{}").body("{}");
    assert_eq!(status(send()).await, 200);
    assert_eq!((leader.heard(), standby.heard()), (vec![DeliveryOutcome::Accepted], Vec::new()));

    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let alone = Stage::behind(true, generous(), Some(gone)).await;
    let refused = signed(alone.post(PATH), SECRET, "lost", now(), "{}").body("{}").send().await;
    assert!(refused.is_err(), "MLflow must see that it has to try again");
}

#[tokio::test]
async fn plain_http_is_rejected_with_tls() {
    let stage = Stage::set(true, generous()).await;
    let plain = stage.client.post(format!("http://localhost:{}{PATH}", stage.address.port()));
    assert!(signed(plain, SECRET, "plain", now(), "{}").body("{}").send().await.is_err());
    assert_eq!(stage.heard(), []);
}

#[tokio::test]
async fn anything_invalid_is_rejected_without_a_reason() {
    let stage = Stage::set(false, generous()).await;
    let right = |id: &str| signed(stage.post(PATH), SECRET, id, now(), "{}");
    let elsewhere = |path: &str| signed(stage.post(path), SECRET, "1", now(), "{}").body("{}");
    let body = "x".repeat((64 << 10) + 1);
    let frame = || Ok::<_, std::io::Error>(Frame::data(Bytes::from(body.clone())));
    let chunked = || reqwest::Body::wrap(StreamBody::new(futures::stream::iter([frame()])));
    let cases = [
        (stage.post(PATH).body("{}"), 401, DeliveryOutcome::Unsigned),
        (right("1").header("X-MLflow-Timestamp", now()).body("{}"), 401, DeliveryOutcome::Unsigned),
        (right("2").body("{ }"), 401, DeliveryOutcome::WrongSignature),
        (
            signed(stage.post(PATH), "another", "3", now(), "{}").body("{}"),
            401,
            DeliveryOutcome::WrongSignature,
        ),
        (
            signed(stage.post(PATH), SECRET, "4", now() - 400, "{}").body("{}"),
            401,
            DeliveryOutcome::WrongTime,
        ),
        (
            signed(stage.post(PATH), SECRET, "5", now() + 400, "{}").body("{}"),
            401,
            DeliveryOutcome::WrongTime,
        ),
        (elsewhere("/webhooks/risk/other"), 404, DeliveryOutcome::UnknownPath),
        (elsewhere("/webhooks/default"), 404, DeliveryOutcome::UnknownPath),
        (elsewhere("/webhooks/risk/mlflow/"), 404, DeliveryOutcome::UnknownPath),
        (elsewhere("/metrics"), 404, DeliveryOutcome::UnknownPath),
        (right("6").body(body.clone()), 413, DeliveryOutcome::TooLarge),
        (right("7").body(chunked()), 413, DeliveryOutcome::TooLarge),
    ];
    let mut reported = std::collections::BTreeSet::new();
    for (request, expected, outcome) in cases {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{outcome:?}");
        assert_eq!(stage.heard().last(), Some(&outcome));
        if answer.status() == StatusCode::UNAUTHORIZED {
            reported.insert(answer.text().await.unwrap());
        }
    }
    assert_eq!(reported.len(), 1, "{reported:?}");
    let url = format!("http://localhost:{}{PATH}", stage.address.port());
    assert_eq!(status(stage.client.get(url)).await, 405);
    assert!(!stage.heard().contains(&DeliveryOutcome::Accepted));
    // The largest body that is accepted.
    let body = "x".repeat(64 << 10);
    assert_eq!(status(signed(stage.post(PATH), SECRET, "8", now(), &body).body(body.clone())).await, 200);
}

/// Returns everything received until the end of a connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A connection that is cut may end in a reset.
    let read = stream.read_to_end(&mut rest);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the connection is not ended");
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn slow_clients_are_disconnected_and_waiting_ones_served() {
    let limits = Limits {
        connections: 2,
        connection: Duration::from_secs(2),
        headers: Duration::from_secs(1),
        ..Limits::default()
    };
    let stage = Stage::set(false, limits).await;
    // One client sends nothing, one begins its headers, one its body, and together they use all connections.
    let mut slow = Vec::new();
    let id_and_more = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nX-MLflow-Delivery-Id: \
         slow\r\nX-MLflow-Timestamp: {}\r\n\
         X-MLflow-Signature: v1,AAAA\r\n\r\n{{",
        now()
    );
    for words in ["", "POST /web", &id_and_more] {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // A busy machine may take as long as the limit even for an honest client.
    let began = Instant::now();
    let mut number = 0;
    loop {
        number += 1;
        let id = format!("honest-{number}");
        let sent = signed(stage.post(PATH), SECRET, &id, now(), "{}").body("{}").send().await;
        if sent.is_ok_and(|answer| answer.status() == StatusCode::OK) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "no client was served any more: {:?}", stage.heard());
    }
    for stream in &mut slow {
        let reported = rest(stream).await;
        assert!(!reported.contains(" 200 "), "{reported}");
    }
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let stage = Stage::set(false, generous()).await;
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    let twice = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").repeat(2);
    stream.write_all(twice.as_bytes()).await.unwrap();
    let reported = rest(&mut stream).await;
    assert_eq!(reported.matches("HTTP/1.1 401").count(), 1, "{reported}");
}
