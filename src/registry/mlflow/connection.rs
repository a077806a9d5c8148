//! The configuration of a tracking server, and its validation before the first request.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{api::model_registry::Stages, fence::Fence, registry::limiter::Limiter};

/// How to reach a tracking server.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its URL, with the path prefix if its API has one.
    pub url: Url,
    /// The workspace to use. Only for servers with workspaces; others reject every request that names one.
    pub workspace: Option<String>,
    /// How the server's stages are treated.
    pub stages: Stages,
    /// The credentials; anonymous if `None`.
    pub credentials: Option<Credentials>,
    /// CA certificates to trust in addition to those of the system, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Maximum duration of one request, including its response.
    pub timeout: Duration,
    /// Permits writes.
    pub fence: Fence,
    /// Limits the requests.
    pub limiter: Limiter,
}

/// Credentials for the tracking server. `Debug` does not show secrets.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// `Authorization: Basic`, as MLflow's own `basic-auth` app requires.
    Basic {
        /// The user's name.
        username: String,
        /// The user's password.
        password: SecretString,
    },
    /// `Authorization: Bearer`, for proxies and auth plugins in front of MLflow.
    Bearer(SecretString),
}

/// Why a [`Connection`] is not valid. The message names the field and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Neither `http` nor `https`.
    #[error("url: the scheme {scheme:?} is not supported; use http:// or https://")]
    Scheme {
        /// The scheme as given.
        scheme: String,
    },
    /// A user name or a password in the URL, where it would show up in logs.
    #[error("url: it contains a user name or a password; remove it and use the credentials instead")]
    UserInfo,
    /// A query or a fragment, for instance copied from the browser.
    #[error("url: it has a query or a fragment; keep only the part before '?' or '#'")]
    QueryOrFragment,
    /// Not a valid name of a workspace.
    #[error(
        "workspace: {workspace:?} is not a valid workspace name; use lower-case letters, digits and inner \
         hyphens"
    )]
    Workspace {
        /// The name as given.
        workspace: String,
    },
    /// Credentials that cannot be sent over HTTP.
    #[error("credentials: {problem}")]
    Credentials {
        /// The error and the fix, without the credentials.
        problem: &'static str,
    },
    /// Not certificates, or none at all.
    #[error("ca: {detail}; provide one or more certificates in PEM format (-----BEGIN CERTIFICATE-----)")]
    Ca {
        /// The error.
        detail: String,
    },
    /// A timeout of zero.
    #[error("timeout: it must be greater than zero")]
    Timeout,
    /// The TLS client cannot be built, for instance because the image has no system certificates.
    #[error(
        "ca: TLS cannot be set up: {detail}; configure the CA of the registry, or run where system \
         certificates exist"
    )]
    Tls {
        /// The error.
        detail: String,
    },
}

impl Connection {
    /// Returns a hash of the whole connection, including secrets, to compare connections without keeping
    /// them.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        };
        add(self.url.as_str().as_bytes());
        add(self.workspace.as_deref().unwrap_or_default().as_bytes());
        add(&[u8::from(self.stages == Stages::AsAliases)]);
        add(&self.timeout.as_millis().to_be_bytes());
        add(self.ca_pem.as_deref().unwrap_or_default());
        match &self.credentials {
            None => add(b"nobody"),
            Some(Credentials::Basic { username, password }) => {
                add(username.as_bytes());
                add(password.expose_secret().as_bytes());
            }
            Some(Credentials::Bearer(token)) => add(token.expose_secret().as_bytes()),
        }
        hash.finalize().into()
    }

    /// Checks everything that can be checked without the network.
    pub(super) fn check(&self) -> Result<(), ConnectionError> {
        let url = &self.url;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ConnectionError::Scheme { scheme: url.scheme().to_owned() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ConnectionError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ConnectionError::QueryOrFragment);
        }
        if let Some(workspace) = self.workspace.as_ref().filter(|name| !is_workspace(name)) {
            return Err(ConnectionError::Workspace { workspace: workspace.clone() });
        }
        if self.timeout.is_zero() {
            return Err(ConnectionError::Timeout);
        }
        self.credentials.as_ref().map_or(Ok(()), Credentials::check)
    }

    /// Returns the URL with a trailing slash, so that paths can be joined to it.
    pub(super) fn base(&self) -> Url {
        let mut base = self.url.clone();
        let path = format!("{}/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        base
    }
}

impl Credentials {
    fn check(&self) -> Result<(), ConnectionError> {
        let problem = match self {
            Self::Basic { username, .. } if username.is_empty() => "the user name is empty; set one",
            Self::Basic { username, .. } if username.contains(':') => {
                "the user name has a ':', which basic authentication cannot carry; use another user"
            }
            Self::Basic { username, password }
                if username.contains(char::is_control)
                    || password.expose_secret().contains(char::is_control) =>
            {
                "the user name or the password has a line break or another control character; remove it"
            }
            Self::Bearer(token) if token.expose_secret().is_empty() => "the token is empty; set one",
            Self::Bearer(token) if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) => {
                "the token has a space, a line break or another character that a header cannot carry; remove \
                 it"
            }
            _ => return Ok(()),
        };
        Err(ConnectionError::Credentials { problem })
    }
}

/// Whether MLflow accepts the name: `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`.
fn is_workspace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}
