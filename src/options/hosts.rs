//! The hosts that `ModelRegistries` may name.

use std::str::FromStr;

use url::Url;

/// A host, or all hosts below a domain, and optionally a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case, without `*.`.
    host: String,
    /// Whether it means the hosts below `host` instead of that host.
    is_below: bool,
    port: Option<u16>,
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "{text:?} is neither a host (mlflow.mlops.svc), nor all below a domain (*.mlops.svc), nor one \
                     of these with a port (mlflow.mlops.svc:5000)"
            )
        };
        let (is_below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        // As a URL, so that a host is compared in the form in which URLs have it.
        let url: Url = format!("any://{rest}").parse().map_err(|_| invalid())?;
        let has_more = !matches!(url.path(), "" | "/") || rest.ends_with('/') || url.query().is_some();
        let host = url.host_str().filter(|host| !host.is_empty() && !host.contains('*') && !has_more);
        if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(invalid());
        }
        Ok(Self { host: canonical(host.ok_or_else(invalid)?), is_below, port: url.port() })
    }
}

fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

impl HostPattern {
    fn matches(&self, url: &Url) -> bool {
        let host = canonical(url.host_str().unwrap_or_default());
        let is_host = if self.is_below {
            host.strip_suffix(&self.host).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
        } else {
            host == self.host
        };
        is_host && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

/// The hosts that `ModelRegistries` may name. Without any, every host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHosts(Vec<HostPattern>);

impl RegistryHosts {
    /// Allows only these.
    #[must_use]
    pub fn new(patterns: Vec<HostPattern>) -> Self {
        Self(patterns)
    }

    /// Whether a ModelRegistry may have this URL.
    #[must_use]
    pub fn allow(&self, url: &Url) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(patterns: &[&str], url: &str) -> bool {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        RegistryHosts::new(patterns).allow(&url.parse().unwrap())
    }

    #[test]
    fn without_a_list_every_host_is_allowed() {
        assert!(allows(&[], "http://169.254.169.254/"));
    }

    #[test]
    fn a_host_is_itself_and_a_domain_is_what_is_below_it() {
        let list = ["mlflow.mlops.svc", "*.corp.example"];
        for url in [
            "http://mlflow.mlops.svc:5000",
            "https://MLflow.mlops.SVC./path",
            "https://a.corp.example",
            "https://a.b.corp.example:8443/x",
        ] {
            assert!(allows(&list, url), "{url}");
        }
        for url in [
            "http://other.mlops.svc",
            "http://mlflow.mlops.svc.evil.example",
            "https://corp.example",
            "https://evilcorp.example",
            "https://.corp.example",
            "http://169.254.169.254",
        ] {
            assert!(!allows(&list, url), "{url}");
        }
    }

    #[test]
    fn a_port_is_compared_if_it_is_given() {
        assert!(allows(&["mlflow:5000"], "http://mlflow:5000"));
        assert!(!allows(&["mlflow:5000"], "http://mlflow:5001"));
        assert!(allows(&["mlflow:443"], "https://mlflow"), "the scheme's own port counts");
        assert!(allows(&["[::1]:5000"], "http://[0:0::1]:5000"));
        assert!(!allows(&["10.0.0.1"], "http://10.0.0.2"));
    }

    #[test]
    fn what_is_no_host_is_rejected() {
        for wrong in [
            "",
            "*",
            "*.",
            "http://mlflow",
            "mlflow/path",
            "mlflow/",
            "a.*.b",
            "u@mlflow",
            "mlflow:x",
            "a,b c",
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong:?}");
        }
    }
}
