//! `laurel run`: the operator's options.

use std::{net::SocketAddr, path::PathBuf};

use clap::ArgAction;

/// How the operator runs. Every option can be given as an environment variable.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// The namespace to watch; all namespaces without it.
    #[arg(long, env = "LAUREL_NAMESPACE")]
    pub namespace: Option<String>,

    /// Whether the annotation `laurel.dev/changed-by` says who changed a ModelAlias. Set it only where the API server stamps it
    /// by the `MutatingAdmissionPolicy` that comes with Laurel; without that, anybody may write there what they like.
    #[arg(long, env = "LAUREL_TRUST_CHANGED_BY", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub trust_changed_by: bool,

    /// How large an input example may be, in bytes, to be sent as a smoke test. The smoke test of a version with a larger one is
    /// skipped. At most two examples larger than 1 MiB are held in memory at a time.
    #[arg(long, env = "LAUREL_INPUT_EXAMPLE_MAX_BYTES", default_value_t = 32 << 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1 << 30))]
    pub input_example_max_bytes: usize,

    /// Where `/healthz`, `/readyz` and `/metrics` answer.
    #[arg(long, env = "LAUREL_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    pub http_address: SocketAddr,

    /// Where deliveries of webhooks arrive, for instance 0.0.0.0:9443; nowhere without it.
    #[arg(long, env = "LAUREL_WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,

    /// How that endpoint is spoken to. With `http`, something in front of it has to end TLS.
    #[arg(long, env = "LAUREL_WEBHOOK_SCHEME", value_enum, default_value_t = WebhookScheme::Https)]
    pub webhook_scheme: WebhookScheme,

    /// The folder with the endpoint's tls.crt and tls.key. They are read again when they change.
    #[arg(long, env = "LAUREL_WEBHOOK_TLS_DIR", default_value = "/etc/laurel/webhook-tls")]
    pub webhook_tls_dir: PathBuf,

    /// How logs are written.
    #[arg(long, env = "LAUREL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// How the endpoint for webhooks is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WebhookScheme {
    /// HTTP over TLS.
    Https,
    /// Plain HTTP, behind something that ends TLS.
    Http,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Text,
}
