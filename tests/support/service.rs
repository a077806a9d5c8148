//! How requests reach a Service from outside the cluster, without distorting measurements.
//!
//! On the cluster of `make cluster` a Service's IP is reachable from here, so requests take the same path as
//! a pod's. On another cluster they go through `kubectl proxy` and the API server, which picks a ready pod
//! for each request. Then a kept connection ends at the proxy and shows nothing about the Service; `via`
//! describes the path. (`kubectl port-forward` does not work: it stays with one pod.)
//!
//! [`through_gateway`] is the path of clients outside the cluster: through the Gateway that
//! `tests/rig/rig gateway-up` installs.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::Child,
    time::timeout,
};

use super::{cluster::Cluster, load::Target};

/// A path to a Service, open until dropped.
pub(crate) struct Way {
    /// The target of requests.
    pub(crate) target: Target,
    /// A description of the path.
    pub(crate) via: String,
    _proxy: Option<Child>,
}

/// Finds a path to a Service that has ready pods.
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

/// The Gateway that takes routes of every namespace, and the namespace it is in.
const GATEWAY: (&str, &str) = ("infra", "public");

/// Returns `spec.traffic` of a ModelAlias that is reached through the Gateway under `path`.
pub(crate) fn gateway_traffic(path: &str) -> Value {
    let (namespace, name) = GATEWAY;
    json!({ "gateway": { "parentRefs": [{ "namespace": namespace, "name": name }], "path": path } })
}

/// Returns the path through the Gateway to the ModelAlias whose route has `path`.
pub(crate) async fn through_gateway(cluster: &Cluster, path: &str) -> Result<Way> {
    let hint = "there is no Gateway: run `tests/rig/rig gateway-up`";
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    let (namespace, name) = GATEWAY;
    let gateways: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), namespace, &ApiResource::from_gvk(&kind));
    let gateway = gateways.get(name).await.context(hint)?;
    let ip = gateway.data["status"]["addresses"][0]["value"].as_str().context(hint)?;
    let port = gateway.data["spec"]["listeners"][0]["port"].as_u64().context(hint)?;
    let address = SocketAddr::new(ip.parse()?, port.try_into()?);
    let via = format!("the Gateway {namespace}/{name}, {address}, under {path}");
    Ok(Way { target: Target { address, path_prefix: path.to_owned() }, via, _proxy: None })
}

async fn kubectl_proxy(cluster: &Cluster) -> Result<(Child, SocketAddr)> {
    let mut proxy = cluster.kubectl().args(["proxy", "--port=0"]).spawn().context("kubectl cannot be run")?;
    let mut lines = BufReader::new(proxy.stdout.take().context("no output")?).lines();
    let line = timeout(Duration::from_secs(10), lines.next_line()).await??.unwrap_or_default();
    let address = line.rsplit(' ').next().unwrap_or_default();
    let address = address.parse().with_context(|| format!("kubectl proxy said {line:?}"))?;
    Ok((proxy, address))
}
