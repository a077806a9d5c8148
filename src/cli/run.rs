//! `laurel run`: the operator's options.

use std::{ffi::OsStr, net::SocketAddr};

use clap::{ArgAction, builder::TypedValueParser, error::ErrorKind};
use url::Url;

/// How the operator runs. Every option can be given as an environment variable.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// The namespace to watch; all namespaces without it.
    #[arg(long, env = "LAUREL_NAMESPACE")]
    pub namespace: Option<String>,

    /// The registry for objects that name none, for instance <http://mlflow.mlops.svc:5000>.
    #[arg(long, env = "LAUREL_REGISTRY_URL", hide_env_values = true, value_parser = RegistryUrl)]
    pub registry_url: Option<Url>,

    /// The workspace in that registry.
    #[arg(long, env = "LAUREL_REGISTRY_WORKSPACE", requires = "registry_url")]
    pub registry_workspace: Option<String>,

    /// How often that registry is read, in seconds.
    #[arg(long, env = "LAUREL_REGISTRY_POLL_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub registry_poll_seconds: u64,

    /// Whether the annotation `laurel.dev/changed-by` says who changed a ModelAlias. Set it only where the API server stamps it
    /// by the `MutatingAdmissionPolicy` that comes with Laurel; without that, anybody may write there what they like.
    #[arg(long, env = "LAUREL_TRUST_CHANGED_BY", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub trust_changed_by: bool,

    /// Where `/healthz`, `/readyz` and `/metrics` answer.
    #[arg(long, env = "LAUREL_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    pub http_address: SocketAddr,

    /// How logs are written.
    #[arg(long, env = "LAUREL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Reads a registry's URL. Clap's own refusal quotes the value, and a URL with a login in it is refused as well.
#[derive(Clone)]
struct RegistryUrl;

impl TypedValueParser for RegistryUrl {
    type Value = Url;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Url, clap::Error> {
        Url::parse(&value.to_string_lossy()).map_err(|error| {
            let message = format!("--registry-url (LAUREL_REGISTRY_URL) is not a URL: {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Text,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn promise_12_a_login_in_the_url_is_never_shown() {
        for url in ["http://us:s3cret@mlflow:999999", "http://us:s3cret@", "//us:s3cret@mlflow"] {
            let error = Cli::try_parse_from(["laurel", "run", "--registry-url", url]).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(!told.contains("s3cret") && told.contains("--registry-url"), "{told}");
        }
    }
}
