//! A proxy between the operator and a server. Without rules it forwards everything unchanged.

use std::{io::ErrorKind, mem, net::TcpStream as Socket, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Passing, by_line, cut, silent, whole},
    journal::{Exchange, Journal, Outcome, Server},
    rule::{Placed, Rule, Violation},
    upstream::Upstream,
};
use crate::simulated::{machine::free_port, place::PATIENCE};

/// A proxy; cheap to clone.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    server: Server,
    upstream: Upstream,
    port: u16,
    journal: Arc<Journal>,
    rules: Mutex<Vec<Placed>>,
    listening: Mutex<Listening>,
    /// Breaks off the open watches.
    streams: Mutex<CancellationToken>,
}

#[derive(Default)]
struct Listening {
    /// Breaks off the open connections, and refuses new ones.
    end: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// The connection of a request.
#[derive(Clone)]
struct Connection {
    /// Nothing is forwarded any more.
    ended: CancellationToken,
    /// The same socket, to reset it on closing.
    socket: Arc<Socket>,
}

impl Connection {
    /// Makes closing the connection a reset.
    fn reset(&self) -> anyhow::Error {
        let zero_linger = || TcpStream::from_std(self.socket.try_clone()?)?.set_zero_linger();
        match zero_linger() {
            Ok(()) => anyhow!("reset by the test"),
            Err(error) => anyhow!("closed, because it cannot be reset: {error}"),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Proxy {
    /// Opens a proxy to a server.
    pub(crate) async fn open(server: Server, upstream: Upstream, journal: &Arc<Journal>) -> Result<Self> {
        let proxy = Self(Arc::new(Inner {
            server,
            upstream,
            port: free_port()?,
            journal: journal.clone(),
            rules: Mutex::default(),
            listening: Mutex::default(),
            streams: Mutex::default(),
        }));
        proxy.accept().await?;
        Ok(proxy)
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port)
    }

    /// Whether a request took this proxy.
    pub(crate) fn carried(&self, exchange: &Exchange) -> bool {
        exchange.port == self.0.port
    }

    /// Adds a rule. A request gets the fault of the first rule that matches; every matching rule counts it.
    pub(crate) fn place(&self, rule: Rule) -> Placed {
        let placed = Placed::new(rule);
        locked(&self.0.rules).push(placed.clone());
        placed
    }

    /// Removes a rule.
    pub(crate) fn lift(&self, placed: &Placed) {
        locked(&self.0.rules).retain(|other| !other.is(placed));
    }

    /// Removes all rules.
    pub(crate) fn lift_all(&self) {
        locked(&self.0.rules).clear();
    }

    /// Breaks off all open watches; new ones may be opened.
    pub(crate) fn drop_streams(&self) {
        mem::take(&mut *locked(&self.0.streams)).cancel();
    }

    /// Breaks off everything and refuses connections. Requests not forwarded yet never are; forwarded ones
    /// continue on the server.
    pub(crate) fn refuse(&self) {
        locked(&self.0.listening).end.cancel();
    }

    /// Accepts connections again.
    pub(crate) async fn accept(&self) -> Result<()> {
        let before = {
            let mut listening = locked(&self.0.listening);
            if listening.task.is_some() && !listening.end.is_cancelled() {
                return Ok(());
            }
            listening.task.take()
        };
        if let Some(before) = before {
            before.await?;
        }
        let listener = self.take_port_again().await?;
        let end = CancellationToken::new();
        let task = tokio::spawn(self.clone().listen(listener, end.clone()));
        *locked(&self.0.listening) = Listening { end, task: Some(task) };
        Ok(())
    }

    /// The port was free while connections were refused; another process may have it for a moment.
    async fn take_port_again(&self) -> Result<TcpListener> {
        let began = Instant::now();
        loop {
            match TcpListener::bind(("127.0.0.1", self.0.port)).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse && began.elapsed() < PATIENCE => {
                    sleep(Duration::from_millis(200)).await;
                }
                bound => return bound.context("the proxy's port"),
            }
        }
    }

    async fn listen(self, listener: TcpListener, end: CancellationToken) {
        while let Some(Ok((stream, _))) = end.run_until_cancelled(listener.accept()).await {
            let (proxy, end) = (self.clone(), end.clone());
            tokio::spawn(async move {
                // The operator may close the connection.
                let _ = end.clone().run_until_cancelled(proxy.serve(stream, end)).await;
            });
        }
    }

    async fn serve(&self, stream: TcpStream, ended: CancellationToken) -> Result<()> {
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let connection = Connection { ended, socket: Arc::new(stream.try_clone()?) };
        let stream = TcpStream::from_std(stream)?;
        let service = service_fn(move |request| {
            let (proxy, connection) = (self.clone(), connection.clone());
            async move {
                // A request continues even if the operator exits.
                let gone = CancellationToken::new();
                let _guard = gone.clone().drop_guard();
                tokio::spawn(async move { proxy.exchange(&connection, request, &gone).await }).await?
            }
        });
        Ok(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?)
    }

    async fn exchange(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
        gone: &CancellationToken,
    ) -> Result<Response<Passing>> {
        let Inner { server, port, upstream, journal, .. } = &*self.0;
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let text = String::from_utf8_lossy(&body).into_owned();
        let mut exchange = journal.begin((*server, *port), parts.method.clone(), path, text);
        let violation = self.violation(&exchange);
        match &violation {
            Some(Violation::Answer { status, headers, body }) => {
                journal.end(&mut exchange, Outcome::Invented(*status));
                let mut answer = Response::builder().status(*status);
                for (name, value) in headers {
                    answer = answer.header(*name, value);
                }
                return Ok(answer.body(whole(body.clone()))?);
            }
            Some(Violation::Hang) => {
                journal.end(&mut exchange, Outcome::Kept);
                gone.cancelled().await;
                return Err(connection.reset());
            }
            Some(Violation::Reset) => {
                journal.end(&mut exchange, Outcome::Kept);
                return Err(connection.reset());
            }
            Some(Violation::Delay(delay)) => sleep(*delay).await,
            Some(Violation::Before(hook)) => hook(exchange.clone()).await,
            _ => {}
        }
        if connection.ended.is_cancelled() {
            journal.end(&mut exchange, Outcome::Kept);
            return Err(connection.reset());
        }
        let broken =
            if exchange.is_watch() { locked(&self.0.streams).clone() } else { CancellationToken::new() };
        let answer = match upstream.send(parts, body, broken.clone()).await {
            Ok(answer) => answer,
            Err(error) => {
                journal.end(&mut exchange, Outcome::Failed(format!("{error:#}")));
                return Err(connection.reset());
            }
        };
        journal.end(&mut exchange, Outcome::Answered(answer.status().as_u16()));
        match violation {
            Some(Violation::LoseAnswer) => Err(connection.reset()),
            Some(Violation::HangAnswer) => {
                gone.cancelled().await;
                Err(connection.reset())
            }
            Some(Violation::Silence) => Ok(answer.map(|_| silent(broken))),
            Some(Violation::CutBody(after)) => Ok(cut(answer, after)),
            Some(Violation::Alter(alter)) if exchange.is_watch() => {
                let status = answer.status().as_u16();
                Ok(answer.map(|body| by_line(body, move |line| alter(status, line).1)))
            }
            Some(Violation::Alter(alter)) => {
                let (mut head, body) = answer.into_parts();
                let (status, body) = alter(head.status.as_u16(), body.collect().await?.to_bytes().to_vec());
                head.status = status.try_into()?;
                head.headers.remove("content-length");
                Ok(Response::from_parts(head, whole(body)))
            }
            Some(Violation::After(hook)) => {
                hook(exchange).await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    fn violation(&self, exchange: &Exchange) -> Option<Violation> {
        let rules = locked(&self.0.rules).clone();
        // Every matching rule counts the request.
        let met: Vec<&Placed> = rules.iter().filter(|rule| rule.meets(exchange)).collect();
        met.first().map(|rule| rule.strike())
    }
}
