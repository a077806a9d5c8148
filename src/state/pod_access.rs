//! How pods are reached: by their own address, without a proxy and without following redirects.

use std::sync::Arc;

use crate::cluster::cache::Cache;

/// How pods are reached.
#[derive(Clone, Debug)]
pub struct PodAccess {
    /// Their addresses.
    pub cluster: Arc<Cache>,
    /// The client for them: no proxy, no redirects.
    pub http: reqwest::Client,
}

impl PodAccess {
    /// Returns the URL of a path at a pod's address.
    #[must_use]
    pub fn url(address: &str, port: u16, path: &str) -> String {
        if address.contains(':') {
            format!("http://[{address}]:{port}{path}")
        } else {
            format!("http://{address}:{port}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_is_in_brackets() {
        assert_eq!(PodAccess::url("10.0.0.1", 8080, "/ping"), "http://10.0.0.1:8080/ping");
        assert_eq!(PodAccess::url("fd00::1", 9464, "/metrics"), "http://[fd00::1]:9464/metrics");
    }
}
