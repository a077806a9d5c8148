//! How requests reach a Service from outside the cluster, without losing what is to be measured.
//!
//! On the cluster of `make cluster` the IP of a Service can be reached from here, so requests take the way
//! that a pod's requests take. On another cluster they go through `kubectl proxy` and the API server, which
//! picks a ready pod of the Service for each request. Then a kept connection ends at the proxy and shows
//! nothing of the Service; `via` says which way it is. (`kubectl port-forward` would be no way at all: it
//! stays with one pod.)

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::Child,
    time::timeout,
};

use super::{cluster::Cluster, load::Target};

/// A way to a Service, open until it is dropped.
pub(crate) struct Way {
    /// Where requests go.
    pub(crate) target: Target,
    /// The way, for a person.
    pub(crate) via: String,
    _proxy: Option<Child>,
}

/// Finds a way to a Service that has ready pods.
pub(crate) async fn way_to(cluster: &Cluster, namespace: &str, name: &str) -> Result<Way> {
    let service = Api::<Service>::namespaced(cluster.client.clone(), namespace).get(name).await?;
    let spec = service.spec.context("a Service without spec")?;
    let port = spec.ports.unwrap_or_default().first().context("a Service without ports")?.port;
    let ip = spec.cluster_ip.context("a Service without ClusterIP")?;
    let address = SocketAddr::new(ip.parse()?, port.try_into()?);
    if let Ok(Ok(_)) = timeout(Duration::from_secs(2), TcpStream::connect(address)).await {
        let via = format!("the Service's ClusterIP, {address}");
        return Ok(Way { target: address.into(), via, _proxy: None });
    }
    let path_prefix = format!("/api/v1/namespaces/{namespace}/services/http:{name}:{port}/proxy");
    let (proxy, proxy_address) = kubectl_proxy(cluster).await?;
    Ok(Way {
        target: Target { address: proxy_address, path_prefix },
        via: format!("kubectl proxy and the API server: {address} cannot be reached from here"),
        _proxy: Some(proxy),
    })
}

async fn kubectl_proxy(cluster: &Cluster) -> Result<(Child, SocketAddr)> {
    let mut proxy = cluster.kubectl().args(["proxy", "--port=0"]).spawn().context("kubectl cannot be run")?;
    let mut lines = BufReader::new(proxy.stdout.take().context("no output")?).lines();
    let line = timeout(Duration::from_secs(10), lines.next_line()).await??.unwrap_or_default();
    let address = line.rsplit(' ').next().unwrap_or_default();
    let address = address.parse().with_context(|| format!("kubectl proxy said {line:?}"))?;
    Ok((proxy, address))
}
