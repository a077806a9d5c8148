//! The endpoint for webhooks: its own listener, open to any client that can reach it.
//!
//! Each connection carries one request and has little time for it. The number of concurrent connections is
//! limited; further ones wait in the listener's queue. A response shows whether a delivery was accepted, but
//! not why not.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body, Bytes},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Receivers,
    content::About,
    plan,
    receiver::{DeliveryOutcome, Received},
    signature::Delivery,
};
use crate::registry::polled::RegistryKey;

/// Limits per client and in total.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of concurrent connections.
    pub connections: usize,
    /// Maximum duration of a connection, from its acceptance to the end of the response.
    pub connection: Duration,
    /// Maximum time for the request headers.
    pub headers: Duration,
    /// Maximum size of a body in bytes.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            connection: Duration::from_secs(10),
            headers: Duration::from_secs(5),
            body: 64 << 10,
        }
    }
}

/// Called for each delivery, before the response is sent, with what an accepted one is about.
pub type OnDelivery = dyn Fn(Option<&RegistryKey>, Received, About) + Send + Sync;

/// The endpoint.
pub struct Endpoint {
    /// The receivers, by registry.
    pub receivers: Arc<Receivers>,
    /// TLS; plain HTTP if absent.
    pub tls: Option<Arc<ServerConfig>>,
    /// Limits per client and in total.
    pub limits: Limits,
    /// Where the operator that acts receives webhooks, if it is another one: connections are forwarded to it.
    pub leader: Box<dyn Fn() -> Option<SocketAddr> + Send + Sync>,
    /// Called for each delivery.
    pub on_delivery: Box<OnDelivery>,
}

impl Endpoint {
    /// Serves until `shutdown` resolves.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let endpoint = Arc::new(self);
        let slots = Arc::new(Semaphore::new(endpoint.limits.connections));
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return,
                accepted = accept(&listener, slots.clone()) => accepted,
            };
            match accepted {
                Some((stream, permit)) => drop(tokio::spawn(endpoint.clone().connection(stream, permit))),
                // For instance out of file descriptors, which are freed when connections end.
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let limit = self.limits.connection;
        let exchange = async {
            if let Some(leader) = (self.leader)() {
                return forward(stream, leader).await;
            }
            match &self.tls {
                Some(tls) => match TlsAcceptor::from(tls.clone()).accept(stream).await {
                    Ok(stream) => self.clone().exchange(stream).await,
                    Err(error) => tracing::debug!(%error, "TLS handshake at the webhook endpoint failed"),
                },
                None => self.clone().exchange(stream).await,
            }
        };
        if tokio::time::timeout(limit, exchange).await.is_err() {
            self.report(None, DeliveryOutcome::Broken.into(), About::Unknown);
        }
    }

    async fn exchange(self: Arc<Self>, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
        let headers = self.limits.headers;
        let service = service_fn(async |request| Ok::<_, Infallible>(self.answer(request).await));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(headers)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a request to the webhook endpoint was not completed");
            self.report(None, DeliveryOutcome::Broken.into(), About::Unknown);
        }
    }

    async fn answer<B: Body<Data = Bytes>>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let key = plan::key(request.uri().path());
        let (received, about) = match self.receive(key.as_ref(), request).await {
            Ok((received, body)) if received.outcome == DeliveryOutcome::Accepted => {
                (received, About::of(&body))
            }
            Ok((received, _)) => (received, About::Unknown),
            Err(outcome) => (outcome.into(), About::Unknown),
        };
        self.report(key.as_ref(), received, about);
        response(received.outcome)
    }

    fn report(&self, key: Option<&RegistryKey>, received: Received, about: About) {
        tracing::debug!(registry = ?key, outcome = ?received.outcome, "webhook delivery");
        (self.on_delivery)(key, received, about);
    }

    /// Checks a delivery. Returns its body too, or why there is none.
    async fn receive<B: Body<Data = Bytes>>(
        &self,
        key: Option<&RegistryKey>,
        request: Request<B>,
    ) -> Result<(Received, Bytes), DeliveryOutcome>
    where
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(receiver) = key.and_then(|key| self.receivers.get(key)) else {
            return Err(DeliveryOutcome::UnknownPath);
        };
        if request.method() != Method::POST {
            return Err(DeliveryOutcome::WrongMethod);
        }
        let header = |name| {
            let mut values = request.headers().get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then_some(value)
        };
        let Some(delivery) = Delivery::read(header) else { return Err(DeliveryOutcome::Unsigned) };
        let declared =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|declared: u64| declared > self.limits.body as u64) {
            return Err(DeliveryOutcome::TooLarge);
        }
        match Limited::new(request.into_body(), self.limits.body).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let outcome = receiver.receive(&delivery, &body, Timestamp::now(), Instant::now());
                Ok((outcome, body))
            }
            Err(error) if error.is::<LengthLimitError>() => Err(DeliveryOutcome::TooLarge),
            Err(_) => Err(DeliveryOutcome::Broken),
        }
    }
}

/// Forwards a connection to the operator that acts. Unless it comes from there: then neither of the two knows
/// yet which of them acts, and the sender tries again.
async fn forward(mut stream: TcpStream, leader: SocketAddr) {
    if stream.peer_addr().is_ok_and(|peer| peer.ip() == leader.ip() && !leader.ip().is_loopback()) {
        return;
    }
    let forwarded = async {
        let mut onward = TcpStream::connect(leader).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut onward).await
    };
    if let Err(error) = forwarded.await {
        tracing::debug!(%error, %leader, "a webhook could not be forwarded to the operator that acts");
    }
}

async fn accept(listener: &TcpListener, slots: Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = slots.acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, permit))
}

fn response(outcome: DeliveryOutcome) -> Response<Full<Bytes>> {
    let (status, text) = match outcome {
        DeliveryOutcome::Accepted | DeliveryOutcome::Replayed => (StatusCode::OK, "ok\n"),
        DeliveryOutcome::Unsigned | DeliveryOutcome::WrongSignature | DeliveryOutcome::WrongTime => {
            (StatusCode::UNAUTHORIZED, "not accepted\n")
        }
        DeliveryOutcome::UnknownPath => (StatusCode::NOT_FOUND, "not found\n"),
        DeliveryOutcome::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "POST only\n"),
        DeliveryOutcome::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too large\n"),
        DeliveryOutcome::Broken => (StatusCode::BAD_REQUEST, "incomplete\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
