//! Servers that behave well, or badly in one way.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// What a server does with its connections.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// Answers and keeps the connection open.
    KeepOpen,
    /// Answers with `Connection: close`, and closes.
    SayClose,
    /// Answers as if it kept the connection open, and closes it.
    CloseSilently,
    /// Answers with 503.
    Unavailable,
    /// Answers after a while.
    Slow(Duration),
    /// Resets the connection when a request comes.
    Reset,
    /// Answers one request; reads the next and closes without an answer.
    AnswerOnceThenVanish,
    /// Closes in the middle of an answer.
    HalfAnAnswer,
    /// Reads and never answers.
    Silent,
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, behaviour));
            }
        });
        Self { address, connections, accepting }
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Gives the port back.
    pub(crate) async fn stop_listening(&mut self) {
        self.accepting.abort();
        (&mut self.accepting).await.unwrap_err();
    }
}

/// Serves one connection until one side ends it.
async fn serve(mut stream: TcpStream, behaviour: Behaviour) -> io::Result<()> {
    if matches!(behaviour, Behaviour::Reset) {
        // Closing a socket with unread bytes resets the connection.
        return stream.read_u8().await.map(drop);
    }
    while read_request(&mut stream).await? {
        match behaviour {
            Behaviour::KeepOpen | Behaviour::Reset => answer(&mut stream, "200 OK", "").await?,
            Behaviour::Unavailable => answer(&mut stream, "503 Service Unavailable", "").await?,
            Behaviour::Slow(delay) => {
                sleep_until(Instant::now() + delay).await;
                answer(&mut stream, "200 OK", "").await?;
            }
            Behaviour::SayClose => return answer(&mut stream, "200 OK", "connection: close\r\n").await,
            Behaviour::CloseSilently => return answer(&mut stream, "200 OK", "").await,
            Behaviour::AnswerOnceThenVanish => {
                answer(&mut stream, "200 OK", "").await?;
                return read_request(&mut stream).await.map(drop);
            }
            Behaviour::HalfAnAnswer => return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await,
            Behaviour::Silent => std::future::pending().await,
        }
    }
    Ok(())
}

async fn answer(stream: &mut TcpStream, status: &str, headers: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\nmodel-version: 7\r\ncontent-length: 2\r\n{headers}\r\n{{}}");
    stream.write_all(answer.as_bytes()).await
}

/// Reads one request to its end: its head, and the two bytes of body that a `POST` of these tests has. False
/// when the client has closed the connection.
async fn read_request(stream: &mut TcpStream) -> io::Result<bool> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await? == 0 {
            return Ok(false);
        }
        request.extend(byte);
    }
    if request.starts_with(b"POST") {
        stream.read_exact(&mut [0; 2]).await?;
    }
    Ok(true)
}
