//! The server under test, and what its release can do. `tests/scripts/with-mlflow` describes it.

use std::time::Duration;

use laurel::{
    api::model_registry::Stages,
    fence::Fence,
    registry::{
        limiter::Limiter,
        mlflow::{Connection, Credentials},
    },
};

/// The user who may do everything.
pub(crate) const ADMIN: &str = "admin";

pub(crate) struct Server {
    pub(crate) url: url::Url,
    /// The version of MLflow.
    pub(crate) release: String,
    /// Its `--static-prefix`, if it has one. The tested release has its API outside of it.
    pub(crate) prefix: Option<String>,
    /// The password of [`ADMIN`], if the server checks credentials.
    pub(crate) password: Option<String>,
    /// An existing workspace, if the server has workspaces.
    pub(crate) workspace: Option<String>,
}

impl Server {
    pub(crate) fn get() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let required = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/scripts/with-mlflow"))
        };
        Self {
            url: required("LAUREL_TEST_MLFLOW_URL").parse().unwrap(),
            release: required("LAUREL_TEST_MLFLOW_RELEASE"),
            prefix: std::env::var("LAUREL_TEST_MLFLOW_PREFIX").ok(),
            password: std::env::var("LAUREL_TEST_MLFLOW_PASSWORD").ok(),
            workspace: std::env::var("LAUREL_TEST_MLFLOW_WORKSPACE").ok(),
        }
    }

    /// A connection with everything that the server requires.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            url: self.url.clone(),
            workspace: self.workspace.clone(),
            stages: Stages::Ignore,
            credentials: self.password.as_deref().map(|password| basic(ADMIN, password)),
            ca_pem: None,
            timeout: Duration::from_mins(1),
            fence: Fence::default(),
            limiter: Limiter::default(),
        }
    }

    /// The version that it reports where its API is.
    pub(crate) fn reported(&self) -> Option<String> {
        self.prefix.is_none().then(|| self.release.clone())
    }

    /// Whether versions can come from logged models, which have metrics and an identity of their own.
    pub(crate) fn has_logged_models(&self) -> bool {
        self.is_at_least(3, 0)
    }

    pub(crate) fn has_webhooks(&self) -> bool {
        self.is_at_least(3, 3)
    }

    /// Whether it checks the Host header.
    pub(crate) fn checks_hosts(&self) -> bool {
        self.is_at_least(3, 5)
    }

    fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.release.split('.').map(|number| number.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
    }
}

pub(crate) fn basic(username: &str, password: &str) -> Credentials {
    Credentials::Basic { username: username.to_owned(), password: password.into() }
}
