//! Connections that are refused, break, or hang.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use laurel::registry::{
    Registry, RegistryError,
    mlflow::{Connection, MlflowRegistry},
};
use pretty_assertions::assert_eq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::support::{connection, model, registry};

const LIMIT: Duration = Duration::from_millis(1500);

/// What a server does after it has read the request.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Reset,
    Say(&'static str),
    Hang(&'static str),
    Flood,
}

/// A server that does this with every request; its URL, and how many connections it took.
async fn serve(then: Then) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer(stream, then));
        }
    });
    (url, connections)
}

async fn answer(mut stream: TcpStream, then: Then) {
    let mut request = [0; 4096];
    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
        match then {
            Then::Close => return,
            Then::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
            // Says "I stay open": whether the connection is used again is up to the client.
            Then::Say(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Then::Hang(beginning) => {
                stream.write_all(beginning.as_bytes()).await.unwrap();
                return std::future::pending().await;
            }
            Then::Flood => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \
                     99999999999\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                while stream.write_all(&[b' '; 8192]).await.is_ok() {}
                return;
            }
        }
    }
}

async fn error(then: Then) -> RegistryError {
    let (url, _) = serve(then).await;
    let registry = MlflowRegistry::new(Connection { timeout: LIMIT, ..connection(&url) }).unwrap();
    registry.model(&model("fraud")).await.unwrap_err()
}

fn cause(error: RegistryError) -> String {
    match error {
        RegistryError::Unreachable { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_connection_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = registry(&url).model(&model("fraud")).await.unwrap_err();
    assert_eq!(error, RegistryError::Unreachable { url, cause: "Connection refused".to_owned() });
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let error = registry("http://mlflow.invalid:5000").model(&model("fraud")).await.unwrap_err();
    assert!(cause(error).ends_with("the host name cannot be resolved: check it"));
}

#[tokio::test]
async fn the_connection_breaks() {
    assert_eq!(cause(error(Then::Close).await), "connection closed before message completed");
    assert_eq!(cause(error(Then::Reset).await), "Connection reset by peer");
    let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \
         100\r\n\r\n{\"registered_model\":";
    let (url, _) = serve_once(half).await;
    let error = registry(&url).model(&model("fraud")).await.unwrap_err();
    assert_eq!(cause(error), "end of file before message length reached");
}

/// A server that closes after this answer.
async fn serve_once(answer: &'static str) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    (url, task)
}

#[tokio::test]
async fn it_uses_another_protocol() {
    assert!(cause(error(Then::Say("SSH-2.0-OpenSSH_9.6\r\n\r\n")).await).contains("invalid HTTP"));
    let (url, _) = serve(Then::Say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")).await;
    let error = registry(&url.replace("http:", "https:")).model(&model("fraud")).await.unwrap_err();
    assert!(cause(error).contains("use http:// or its TLS port"));
}

#[tokio::test]
async fn it_hangs() {
    let beginnings =
        ["", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"reg"];
    for beginning in beginnings {
        let start = Instant::now();
        let error = error(Then::Hang(beginning)).await;
        assert!(matches!(error, RegistryError::TimedOut { limit: LIMIT, .. }), "{error}");
        assert!((LIMIT..LIMIT * 4).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn it_never_stops_sending() {
    let (url, _) = serve(Then::Flood).await;
    let error = registry(&url).model(&model("fraud")).await.unwrap_err();
    let RegistryError::NotARegistry { detail, .. } = error else { panic!("{error}") };
    assert_eq!(detail, "its answer is longer than 16777216 bytes");
}

#[tokio::test]
async fn a_connection_is_not_used_twice() {
    let (url, connections) = serve(Then::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")).await;
    let registry = registry(&url);
    for _ in 0..3 {
        registry.newest_versions(&model("fraud"), 1).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}
