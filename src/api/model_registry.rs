//! `ModelRegistry`: where the registry is and how to log in.

use std::num::NonZeroU32;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::EnvFromSource, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{DURATION_MAX, DURATION_PATTERN, KEY_PATTERN, LABEL_PATTERN, LocalReference, NAME_PATTERN};

/// Where a model registry is, and how to log in to it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "laurel.dev",
    version = "v1alpha1",
    kind = "ModelRegistry",
    plural = "modelregistries",
    shortname = "mreg",
    category = "laurel",
    namespaced,
    status = "ModelRegistryStatus",
    derive = "PartialEq",
    doc = "A model registry (MLflow) for one namespace: where it is and how to log in to it. \
         RegisteredModels of the namespace name it in spec.registryRef. With the annotation \
         laurel.dev/default: \"true\" it is used by those that name no registry.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.mlflow.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.serverVersion"),
    printcolumn(name = "Models", type_ = "integer", json_path = ".status.watchedModels"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelRegistrySpec {
    /// An MLflow tracking server. The only kind of registry so far.
    pub mlflow: MlflowServer,

    /// Laurel's credentials. Without them requests are sent unauthenticated. They need permission to read
    /// models and to set aliases. They are for Laurel alone: what serving pods need goes under `serving`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.basic) != has(self.bearer)").message("auth takes exactly one of basic and bearer"))]
    pub auth: Option<Auth>,

    /// How to verify the server's certificate if no public authority signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Interval between polls of aliases and models. The default is 30s, the minimum 5s.
    #[serde(default = "default_poll_interval")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s')").message("pollInterval is at least 5s"))]
    pub poll_interval: Duration,

    /// Timeout of one request to the registry, from 1s to 2m. The default is 10s.
    #[serde(default = "default_request_timeout")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('2m')").message("requestTimeout is from 1s to 2m"))]
    pub request_timeout: Duration,

    /// What Laurel may ask of this server at a time. All its requests to the registry share these limits. Those
    /// that move an alias go first, then those that something waits for, then polls, and last the audit log and
    /// metrics that are only displayed.
    #[serde(default)]
    pub limits: RegistryLimits,

    /// Lets the registry's webhooks wake Laurel, so that a change there is seen within a second instead of
    /// within `pollInterval`. A delivery is only a wake-up: Laurel trusts none of its content and reads the
    /// registry itself. Polling continues, because deliveries can get lost. Needs the operator's webhook
    /// endpoint (`webhook.enabled` in the chart), which receives deliveries at `/webhooks/NAMESPACE/NAME`,
    /// and for a ClusterModelRegistry at `/webhooks/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,

    /// What serving pods need to read artifacts from this registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<RegistryServing>,
}

/// The default poll interval.
#[must_use]
pub fn default_poll_interval() -> Duration {
    std::time::Duration::from_secs(30).into()
}

fn default_request_timeout() -> Duration {
    std::time::Duration::from_secs(10).into()
}

/// What Laurel may ask of a server at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryLimits {
    /// Maximum number of requests in flight. The default is 16. Some of them are kept free for urgent requests.
    #[serde(default = "default_in_flight")]
    #[schemars(with = "i32", range(min = 1, max = 256))]
    pub in_flight: NonZeroU32,
    /// Maximum number of requests per second on average; a burst may have half as many more. The default is
    /// 50.
    #[serde(default = "default_per_second")]
    #[schemars(with = "i32", range(min = 1, max = 1000))]
    pub per_second: NonZeroU32,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self { in_flight: default_in_flight(), per_second: default_per_second() }
    }
}

fn default_in_flight() -> NonZeroU32 {
    const { NonZeroU32::new(16).unwrap() }
}

fn default_per_second() -> NonZeroU32 {
    const { NonZeroU32::new(50).unwrap() }
}

/// An MLflow tracking server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlflowServer {
    /// The server's URL with its path prefix, if it has one, for instance `http://mlflow.mlops.svc:5000`.
    /// Serving pods use it as well, so its host must resolve in their namespaces.
    #[schemars(with = "Url", length(max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("mlflow.url is an http:// or https:// URL with a host"))]
    #[x_kube(validation = Rule::new("!self.contains('@') && !self.contains('?') && !self.contains('#')").message("mlflow.url carries no login, query or fragment; credentials belong in auth"))]
    pub url: String,

    /// The workspace, on a server that has workspaces. Defaults to the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = LABEL_PATTERN))]
    pub workspace: Option<String>,

    /// How to treat the stages `Staging` and `Production`, which MLflow had before aliases: not at all
    /// (`Ignore`, the default), or like aliases of these names (`AsAliases`): a ModelAlias with `alias:
    /// Production` then reads and moves the stage. A stage that Laurel moves holds one version; others that
    /// were in it are archived. MLflow sends no webhook for a change of stage. Prefer aliases where the
    /// server has them: MLflow will drop stages.
    #[serde(default, skip_serializing_if = "Stages::are_ignored")]
    pub stages: Stages,
}

/// How to treat the stages of a server's versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stages {
    /// Nothing.
    #[default]
    Ignore,
    /// `Staging` and `Production` are aliases.
    AsAliases,
}

impl Stages {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
    fn are_ignored(&self) -> bool {
        *self == Self::Ignore
    }
}

impl MlflowServer {
    /// Parses the URL. The API server parses URLs as Go does, and accepts some that nobody can connect to: a
    /// port above 65535, `http://1.2.3.4.5`.
    ///
    /// # Errors
    /// When it is not a valid URL.
    pub fn url(&self) -> Result<Url, url::ParseError> {
        self.url.parse()
    }
}

/// Exactly one way to log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Auth {
    /// A user name and a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The Secret, in the same namespace (for a ClusterModelRegistry, in the operator's), with the keys
    /// `username` and `password`.
    pub secret_ref: LocalReference,
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BearerAuth {
    /// The Secret, in the same namespace (for a ClusterModelRegistry, in the operator's), and its key. The
    /// default key is `token`.
    pub secret_ref: TokenReference,
}

/// A key of a Secret that holds a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The key in the Secret. The default is `token`.
    #[serde(default = "token_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn token_key() -> String {
    "token".to_owned()
}

/// How to verify the server's certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The Secret, in the same namespace (for a ClusterModelRegistry, in the operator's), with the
    /// certificate authority in PEM. The default key is `ca.crt`. Serving pods mount a Secret of this name
    /// and key from their own namespace, so with a ClusterModelRegistry it has to be in each namespace that
    /// serves.
    pub ca_secret_ref: CaReference,
}

/// A key of a Secret that holds certificates in PEM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The key in the Secret. The default is `ca.crt`.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// Which deliveries wake Laurel, and whether it registers the webhook itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The Secret, in the same namespace (for a ClusterModelRegistry, in the operator's), with which
    /// deliveries are signed (HMAC-SHA256). It is read again every minute, and when a delivery with a
    /// different signature arrives. After a change, the old secret is accepted for another ten minutes. The
    /// default key is `secret`.
    pub secret_ref: WebhookSecretReference,

    /// Lets Laurel register the webhook in MLflow, keep it up to date, and delete it when this field or the
    /// object is deleted. On a server with authentication it needs administrator credentials. Without this
    /// field, the webhook has to be registered by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.encryptionKeySet) && self.encryptionKeySet").message("webhook.register needs encryptionKeySet: true. Without MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, each process of an MLflow server generates its own key: once a webhook with a secret is registered, the other processes, and all of them after a restart, deliver no webhooks and return HTTP 500 to every request about webhooks until it is deleted from the database by hand. Set the variable on the server first, then confirm it here"))]
    pub register: Option<WebhookRegistration>,
}

/// A key of a Secret that deliveries are signed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookSecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The key in the Secret. The default is `secret`.
    #[serde(default = "secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn secret_key() -> String {
    "secret".to_owned()
}

/// How MLflow reaches Laurel.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRegistration {
    /// The base URL at which MLflow reaches the operator's webhook endpoint, including an ingress's path
    /// prefix, for instance `https://laurel.example`. Laurel adds `/webhooks/NAMESPACE/NAME`, or
    /// `/webhooks/NAME` for a ClusterModelRegistry. By default, MLflow accepts only https:// and public
    /// addresses: see `MLFLOW_WEBHOOK_ALLOWED_SCHEMES` and `MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS`.
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("webhook.register.url is an http:// or https:// URL with a host"))]
    #[x_kube(validation = Rule::new("!self.contains('@') && !self.contains('?') && !self.contains('#')").message("webhook.register.url carries no login, query or fragment"))]
    pub url: String,

    /// Confirms that the MLflow server has `MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY`, which Laurel cannot check.
    /// Must be true.
    #[serde(default)]
    pub encryption_key_set: bool,
}

/// What serving pods need to read artifacts from the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryServing {
    /// Secrets and `ConfigMaps` whose keys every serving pod of this registry gets as environment variables,
    /// for instance `AWS_ACCESS_KEY_ID` or `MLFLOW_TRACKING_USERNAME`. They must exist in the namespace of
    /// the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
}

/// The observed state of the registry.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRegistryStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The server's version, if it reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Number of watched models in this registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub watched_models: Option<u32>,
    /// The observed state of the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// `Ready` (reachable and authorised), `Reconciling`, `Stalled`; with `spec.webhook` also `WebhookReady`;
    /// with the annotation `laurel.dev/default` also `Default`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The observed state of the webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// The webhook that Laurel registered in MLflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The hour of the last delivery, in UTC. Rounded down, so that a busy registry causes only one write an
    /// hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Timestamp>,
}
