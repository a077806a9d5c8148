//! The connection to the registry: its arguments, and the environment variables of MLflow's own client.
//!
//! Secrets come from the environment only, so that none appears in a process list or in a shell's history.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use secrecy::SecretString;
use url::Url;

use super::CliError;
use crate::{
    api::model_registry::Stages,
    fence::Fence,
    registry::{
        Registry,
        limiter::Limiter,
        mlflow::{Connection, Credentials, MlflowRegistry},
    },
};

/// Maximum duration of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The registry to query. The credentials come from the environment variables of MLflow's client:
/// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`.
#[derive(Clone, Debug, Default, Args)]
pub struct RegistryArgs {
    /// The MLflow server, for instance <http://mlflow.mlops.svc:5000>. The login comes from the environment:
    /// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`.
    #[arg(long, value_name = "URL", env = "MLFLOW_TRACKING_URI", hide_env_values = true)]
    pub registry: Option<String>,

    /// The workspace, for servers with workspaces.
    #[arg(long, value_name = "NAME", env = "MLFLOW_WORKSPACE")]
    pub registry_workspace: Option<String>,

    /// Read the stages `Staging` and `Production` of an older server as aliases with these names, like
    /// `mlflow.stages: AsAliases` of a ModelRegistry.
    #[arg(long)]
    pub registry_stages: bool,

    /// A file with CA certificates (PEM) to trust in addition to those of the system.
    #[arg(long, value_name = "FILE", env = "MLFLOW_TRACKING_SERVER_CERT_PATH")]
    pub registry_ca: Option<PathBuf>,
}

impl RegistryArgs {
    /// Whether a registry is given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.registry.is_some()
    }

    /// Creates a client for it. It sends nothing yet.
    ///
    /// # Errors
    /// When no registry is given, or an argument is not valid. Errors contain no credentials.
    pub fn connect(&self) -> Result<Arc<dyn Registry>, CliError> {
        let connection = self.connection(|name| std::env::var(name).ok())?;
        let client = MlflowRegistry::new(connection).map_err(CliError::because)?;
        Ok(Arc::new(client))
    }

    fn connection(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Connection, CliError> {
        let url = self.registry.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            CliError::because("no registry given: use --registry URL, or set MLFLOW_TRACKING_URI")
        })?;
        // The value itself is not quoted: it may contain a login.
        let url = Url::parse(url).map_err(|error| {
            CliError(format!("--registry (MLFLOW_TRACKING_URI) is not a valid URL: {error}"))
        })?;
        let ca_pem = self
            .registry_ca
            .as_ref()
            .map(|path| {
                std::fs::read(path)
                    .map_err(|error| CliError(format!("--registry-ca {}: {error}", path.display())))
            })
            .transpose()?;
        let workspace = self.registry_workspace.clone().filter(|name| !name.is_empty());
        Ok(Connection {
            url,
            workspace,
            stages: if self.registry_stages { Stages::AsAliases } else { Stages::Ignore },
            credentials: credentials(environment),
            ca_pem,
            timeout: TIMEOUT,
            fence: Fence::default(),
            limiter: Limiter::default(),
        })
    }
}

/// Returns the credentials by the rules of MLflow's own client: a name and a password take precedence over a
/// token.
fn credentials(environment: impl Fn(&str) -> Option<String>) -> Option<Credentials> {
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    let basic = given("MLFLOW_TRACKING_USERNAME").zip(given("MLFLOW_TRACKING_PASSWORD"));
    let bearer = || given("MLFLOW_TRACKING_TOKEN").map(|token| Credentials::Bearer(token.into()));
    basic
        .map(|(username, password)| Credentials::Basic { username, password: SecretString::from(password) })
        .or_else(bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(registry: &str, environment: &[(&str, &str)]) -> Result<Connection, CliError> {
        let args = RegistryArgs { registry: Some(registry.to_owned()), ..RegistryArgs::default() };
        args.connection(|name| {
            let mut entries = environment.iter();
            entries.find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_name_and_a_password_take_precedence_over_a_token() {
        let user = [("MLFLOW_TRACKING_USERNAME", "ana"), ("MLFLOW_TRACKING_PASSWORD", "s3cret")];
        let token = ("MLFLOW_TRACKING_TOKEN", "t0ken");
        let of = |environment: &[_]| asked("http://mlflow:5000", environment).unwrap().credentials;
        assert!(
            matches!(of(&[user[0], user[1], token]), Some(Credentials::Basic { username, .. }) if username == "ana")
        );
        assert!(matches!(of(&[user[0], token]), Some(Credentials::Bearer(_))));
        assert!(of(&[("MLFLOW_TRACKING_TOKEN", "")]).is_none());
    }

    #[test]
    fn promise_12_an_error_shows_no_login() {
        for url in ["http://us:s3cret@mlflow:999999", "//us:s3cret@mlflow", "http://us:s3cret@mlflow"] {
            let reported = match asked(url, &[]) {
                Err(error) => error.to_string(),
                Ok(connection) => MlflowRegistry::new(connection).unwrap_err().to_string(),
            };
            assert!(!reported.contains("s3cret"), "{reported}");
        }
    }

    #[test]
    fn without_a_registry_the_error_explains_how_to_set_one() {
        let error = RegistryArgs::default().connection(|_| None).unwrap_err();
        assert!(error.to_string().contains("MLFLOW_TRACKING_URI"), "{error}");
    }
}
