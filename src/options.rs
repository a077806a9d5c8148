//! `laurel run`: the operator's options.

use std::{net::SocketAddr, path::PathBuf};

use clap::ArgAction;

mod hosts;

pub use hosts::{HostPattern, RegistryHosts};

/// Options of the operator. Each can be set by an environment variable.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// The namespace to watch. Defaults to all namespaces.
    #[arg(long, env = "LAUREL_NAMESPACE")]
    pub namespace: Option<String>,

    /// The hosts that the URLs of `ModelRegistries` may name: `mlflow.mlops.svc`, or all below a domain with
    /// `*.mlops.svc`; `mlflow.mlops.svc:5000` allows that port only. Defaults to every host.
    /// ClusterModelRegistries, which belong to those who administer the cluster, may name any.
    #[arg(long, env = "LAUREL_REGISTRY_HOSTS", value_delimiter = ',')]
    pub registry_hosts: Vec<HostPattern>,

    /// The namespace of the Lease by which several operators with the same scope agree on which one acts.
    /// Without it, this operator acts alone: make sure that it does.
    #[arg(long, env = "LAUREL_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

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

    /// Manage `HTTPRoutes` for `ModelAliases` with `spec.traffic`. The cluster needs the CRDs of the Gateway
    /// API.
    #[arg(
        long,
        env = "LAUREL_GATEWAY_API",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub gateway_api: bool,

    /// How large an input example may be, in bytes, to be sent as a smoke test. The smoke test of a version
    /// with a larger one is skipped. At most two examples larger than 1 MiB are held in memory at a time.
    #[arg(long, env = "LAUREL_INPUT_EXAMPLE_MAX_BYTES", default_value_t = 32 << 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1 << 30))]
    pub input_example_max_bytes: usize,

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

    /// The log format.
    #[arg(long, env = "LAUREL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
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
