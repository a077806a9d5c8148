//! How a request reaches the server.

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    http::request::Parts,
};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::answer::{Passing, streamed};
use crate::support::cluster::Cluster;

/// A server behind a proxy.
#[derive(Clone)]
pub(crate) enum Upstream {
    /// The API server, with administrator permissions.
    Kubernetes(Client),
    /// A plain server on a port of this machine.
    Local(u16),
}

impl Upstream {
    /// The cluster's API server. Nothing is retried silently.
    pub(crate) async fn api_server(cluster: &Cluster) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig().context("the rig has a kubeconfig")?)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        // A watch may be silent for as long as the operator allows.
        config.read_timeout = None;
        config.write_timeout = None;
        Ok(Self::Kubernetes(Client::try_from(config)?))
    }

    /// Forwards a request. The response's body streams until `broken` breaks it off.
    pub(super) async fn send(
        &self,
        mut parts: Parts,
        body: Bytes,
        broken: CancellationToken,
    ) -> Result<Response<Passing>> {
        for hop in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            parts.headers.remove(hop);
        }
        let mut answer = match self {
            Self::Kubernetes(client) => {
                // Uses the administrator's certificate for the operator, with the server's own name.
                parts.headers.remove(AUTHORIZATION);
                parts.headers.remove(HOST);
                let request = Request::from_parts(parts, Body::from(body.to_vec()));
                client.send(request).await?.map(|body| streamed(body, broken))
            }
            Self::Local(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port)).await?;
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                let request = Request::from_parts(parts, Full::new(body));
                sender.send_request(request).await?.map(|body| streamed(body, broken))
            }
        };
        for hop in [CONNECTION, TRANSFER_ENCODING] {
            answer.headers_mut().remove(hop);
        }
        Ok(answer)
    }
}
