//! `laurel run`: the operator's options.

use std::{ffi::OsStr, net::SocketAddr, path::PathBuf};

use clap::{ArgAction, builder::TypedValueParser, error::ErrorKind};
use url::Url;

/// Options of the operator. Each can be set by an environment variable.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// The namespace to watch. Defaults to all namespaces.
    #[arg(long, env = "LAUREL_NAMESPACE")]
    pub namespace: Option<String>,

    /// The registry for objects without a registry reference, for instance <http://mlflow.mlops.svc:5000>.
    #[arg(
        long,
        env = "LAUREL_REGISTRY_URL",
        hide_env_values = true,
        value_parser = QuietUrl("--registry-url (LAUREL_REGISTRY_URL)")
    )]
    pub registry_url: Option<Url>,

    /// The workspace in that registry.
    #[arg(long, env = "LAUREL_REGISTRY_WORKSPACE", requires = "registry_url")]
    pub registry_workspace: Option<String>,

    /// How often that registry is polled, in seconds.
    #[arg(
        long,
        env = "LAUREL_REGISTRY_POLL_SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(5..=3600)
    )]
    pub registry_poll_seconds: u64,

    /// Trust the annotation `laurel.dev/changed-by` for who changed a ModelAlias. Set it only if the API
    /// server writes the annotation through the `MutatingAdmissionPolicy` that comes with Laurel; otherwise
    /// anybody can write anything there.
    #[arg(
        long,
        env = "LAUREL_TRUST_CHANGED_BY",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub trust_changed_by: bool,

    /// The address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, env = "LAUREL_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    pub http_address: SocketAddr,

    /// The address of the webhook endpoint, for instance 0.0.0.0:9443. Without it there is no endpoint.
    #[arg(long, env = "LAUREL_WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,

    /// The scheme of that endpoint. With `http`, a proxy in front of it must terminate TLS.
    #[arg(long, env = "LAUREL_WEBHOOK_SCHEME", value_enum, default_value_t = WebhookScheme::Https)]
    pub webhook_scheme: WebhookScheme,

    /// The directory with the endpoint's tls.crt and tls.key. They are reloaded when they change.
    #[arg(long, env = "LAUREL_WEBHOOK_TLS_DIR", default_value = "/etc/laurel/webhook-tls")]
    pub webhook_tls_dir: PathBuf,

    /// The file with the secret that the default registry's webhook signs with. It is reloaded when it
    /// changes.
    #[arg(
        long,
        env = "LAUREL_REGISTRY_WEBHOOK_SECRET_FILE",
        requires = "registry_url",
        requires = "webhook_address"
    )]
    pub registry_webhook_secret_file: Option<PathBuf>,

    /// Register that webhook in MLflow, with this URL of the endpoint, for instance <https://laurel.example>.
    #[arg(
        long,
        env = "LAUREL_REGISTRY_WEBHOOK_URL",
        hide_env_values = true,
        value_parser = QuietUrl("--registry-webhook-url (LAUREL_REGISTRY_WEBHOOK_URL)"),
        requires = "registry_webhook_secret_file",
        requires = "registry_webhook_encryption_key_set"
    )]
    pub registry_webhook_url: Option<Url>,

    /// Confirm that the MLflow server has `MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY`. Without the key, a webhook
    /// with a secret makes every webhook request to that server fail until the webhook is deleted from the
    /// database by hand.
    #[arg(
        long,
        env = "LAUREL_REGISTRY_WEBHOOK_ENCRYPTION_KEY_SET",
        action = ArgAction::Set,
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub registry_webhook_encryption_key_set: bool,

    /// The log format.
    #[arg(long, env = "LAUREL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Parses a URL for the option of this name. Clap's own error would quote the value, which may contain a
/// login.
#[derive(Clone)]
struct QuietUrl(&'static str);

impl TypedValueParser for QuietUrl {
    type Value = Url;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Url, clap::Error> {
        Url::parse(&value.to_string_lossy()).map_err(|error| {
            let message = format!("{} is not a valid URL: {error}\n", self.0);
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// The scheme of the webhook endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WebhookScheme {
    /// HTTP over TLS.
    Https,
    /// Plain HTTP, behind a proxy that terminates TLS.
    Http,
}

/// The log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text for people.
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
            let reported = format!("{error} {error:?}");
            assert!(!reported.contains("s3cret") && reported.contains("--registry-url"), "{reported}");
            let error = Cli::try_parse_from(["laurel", "run", "--registry-webhook-url", url]).unwrap_err();
            let reported = format!("{error} {error:?}");
            assert!(
                !reported.contains("s3cret") && reported.contains("--registry-webhook-url"),
                "{reported}"
            );
        }
    }
}
