//! One request, over a connection of its own or over one that is kept open.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Response,
    body::{Bytes, Incoming},
    client::conn::http1::SendRequest,
    header,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::report::{Connection, Loss, Outcome, Sample};

/// The header in which a serving pod names the version that answers.
const VERSION_HEADER: &str = "model-version";

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The address to connect to.
    pub(crate) address: SocketAddr,
    /// What stands before the request's own path: empty, or the path of a proxy.
    pub(crate) path_prefix: String,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, path_prefix: String::new() }
    }
}

/// What is sent, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: Method,
    path: String,
    body: Bytes,
}

impl Request {
    /// A `GET`.
    pub(crate) fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), body: Bytes::new() }
    }

    /// A `POST` of a JSON body.
    pub(crate) fn post_json(path: &str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.to_owned(), body: body.into() }
    }

    fn to(&self, target: &Target) -> hyper::Request<Full<Bytes>> {
        hyper::Request::builder()
            .method(&self.method)
            .uri(format!("{}{}", target.path_prefix, self.path))
            .header(header::HOST, target.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body.clone()))
            .expect("a path and an address make a valid request")
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A client with one kind of connection.
pub(crate) struct Client {
    target: Target,
    request: Request,
    connection: Connection,
    timeout: Duration,
    /// Open connections that wait for their next request, the longest idle one first: it is used next, so
    /// that every connection that was ever opened stays in use and none hides that it has gone bad.
    idle: Mutex<VecDeque<Sender>>,
}

impl Client {
    pub(crate) fn new(target: Target, request: Request, connection: Connection, timeout: Duration) -> Self {
        Self { target, request, connection, timeout, idle: Mutex::default() }
    }

    pub(crate) fn connection(&self) -> Connection {
        self.connection
    }

    /// Sends the request that is due at `due` and waits for its answer, at most for the client's timeout.
    pub(crate) async fn send(&self, due: Instant) -> Sample {
        let answer = timeout(self.timeout, self.answer()).await.unwrap_or(Err(Loss::Timeout));
        let outcome = match answer {
            Ok(version) => Outcome::Answered { version },
            Err(loss) => Outcome::Lost(loss),
        };
        Sample { due, ended: Instant::now(), connection: self.connection, outcome }
    }

    async fn answer(&self) -> Result<Option<String>, Loss> {
        let mut request = self.request.to(&self.target);
        while let Some(mut open) = self.take_idle() {
            match open.try_send_request(request).await {
                Ok(response) => return self.finish(open, response).await,
                // The server had closed the idle connection and not one byte was written to it. Every HTTP
                // client takes another connection then; no request was lost.
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) => request = message,
                    None => return Err(loss_of(&unsent.into_error())),
                },
            }
        }
        let mut opened = self.connect().await?;
        let response = opened.send_request(request).await.map_err(|error| loss_of(&error))?;
        self.finish(opened, response).await
    }

    async fn connect(&self) -> Result<Sender, Loss> {
        let stream = TcpStream::connect(self.target.address).await.map_err(|error| loss_of_io(&error))?;
        stream.set_nodelay(true).map_err(|error| loss_of_io(&error))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| loss_of(&error))?;
        // Its errors reach whoever waits for an answer; when nobody does, a broken connection is no event.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Reads the whole answer, then keeps the connection where both sides want it kept.
    async fn finish(&self, mut open: Sender, response: Response<Incoming>) -> Result<Option<String>, Loss> {
        let status = response.status();
        let version = response.headers().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        let version = version.map(str::to_owned);
        response.into_body().collect().await.map_err(|error| loss_of(&error))?;
        // After `Connection: close` it never becomes ready again, and is dropped.
        if self.connection == Connection::KeepAlive && open.ready().await.is_ok() {
            self.idle.lock().push_back(open);
        }
        if status.is_success() { Ok(version) } else { Err(Loss::Status(status.as_u16())) }
    }

    fn take_idle(&self) -> Option<Sender> {
        self.idle.lock().pop_front()
    }
}

fn loss_of(error: &hyper::Error) -> Loss {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return loss_of_io(io);
        }
        source = cause.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Loss::Closed
    } else {
        Loss::Other(error.to_string())
    }
}

fn loss_of_io(error: &io::Error) -> Loss {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Loss::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Loss::Reset
        }
        io::ErrorKind::UnexpectedEof => Loss::Closed,
        _ => Loss::Other(error.to_string()),
    }
}
