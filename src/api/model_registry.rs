//! `ModelRegistry`: where the registry is and how to log in.

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

    /// How Laurel logs in. Without it requests carry no credentials. The login needs the right to read models
    /// and to set aliases. It is for Laurel alone: what serving pods need is named under `serving`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.basic) != has(self.bearer)").message("auth takes exactly one of basic and bearer"))]
    pub auth: Option<Auth>,

    /// How to trust the server's certificate, when a public authority did not sign it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// How often aliases and models are read. The default is 30s, the least is 5s.
    #[serde(default = "default_poll_interval")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s')").message("pollInterval is at least 5s"))]
    pub poll_interval: Duration,

    /// How long one request to the registry may take, from 1s to 2m. The default is 10s.
    #[serde(default = "default_request_timeout")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('2m')").message("requestTimeout is from 1s to 2m"))]
    pub request_timeout: Duration,

    /// Lets the registry's webhooks wake Laurel, so that a change there is seen within a second instead of
    /// within `pollInterval`. A delivery is a wake-up only: Laurel believes nothing that it says, and reads
    /// the registry itself. Polling goes on, because webhooks get lost. It needs the operator's webhook
    /// endpoint (`webhook.enabled` of the chart), where deliveries arrive at `/webhooks/NAMESPACE/NAME`, and
    /// for a ClusterModelRegistry at `/webhooks/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,

    /// What serving pods need to read artifacts from this registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<RegistryServing>,
}

/// The poll interval where none is given.
#[must_use]
pub fn default_poll_interval() -> Duration {
    std::time::Duration::from_secs(30).into()
}

fn default_request_timeout() -> Duration {
    std::time::Duration::from_secs(10).into()
}

/// An MLflow tracking server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlflowServer {
    /// The server's URL with its path prefix, if it has one, for instance `http://mlflow.mlops.svc:5000`.
    /// Serving pods use it too, so it has to be a name that they can resolve.
    #[schemars(with = "Url", length(max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("mlflow.url is an http:// or https:// URL with a host"))]
    #[x_kube(validation = Rule::new("!self.contains('@') && !self.contains('?') && !self.contains('#')").message("mlflow.url carries no login, query or fragment; credentials belong in auth"))]
    pub url: String,

    /// The workspace to use, on a server that has workspaces. Without it, the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = LABEL_PATTERN))]
    pub workspace: Option<String>,

    /// What the stages `Staging` and `Production` are, which MLflow had before aliases: nothing (`Ignore`,
    /// the default), or the same as aliases of these names (`AsAliases`): a ModelAlias with `alias:
    /// Production` then reads and moves the stage. A stage that Laurel moves names one version; others that
    /// were in it are archived. MLflow tells of no change of a stage by webhook. Where the server has
    /// aliases, use those: MLflow will drop stages.
    #[serde(default, skip_serializing_if = "Stages::are_ignored")]
    pub stages: Stages,
}

/// What the stages of a server's versions are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stages {
    /// Nothing.
    #[default]
    Ignore,
    /// `Staging` and `Production` are aliases.
    AsAliases,
}

impl Stages {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn are_ignored(&self) -> bool {
        *self == Self::Ignore
    }
}

impl MlflowServer {
    /// The URL, or why it is none. The API server reads URLs as Go does, and takes some that nobody can
    /// connect to: a port above 65535, `http://1.2.3.4.5`.
    ///
    /// # Errors
    /// When it is none.
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

/// How to trust the server's certificate.
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
    /// The Secret, in the same namespace (for a ClusterModelRegistry, in the operator's), that deliveries are
    /// signed with (HMAC-SHA256). It is read again every minute, and when a delivery arrives that is signed
    /// otherwise. After a change, the secret before it is accepted for ten minutes more. The default key is
    /// `secret`.
    pub secret_ref: WebhookSecretReference,

    /// Lets Laurel register the webhook in MLflow, keep it as it has to be, and delete it when this field or
    /// the object is deleted. It needs a login with the right to administer the server, where the server has
    /// logins. Without this field, somebody registers the webhook by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.encryptionKeySet) && self.encryptionKeySet").message("webhook.register needs encryptionKeySet: true. Without MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, each process of an MLflow server makes up a key of its own: after a webhook with a secret was registered, all others, and all after a restart, deliver no webhook any more and answer HTTP 500 to every request about webhooks, and only deleting it from the database by hand heals that. Set the variable on the server first, then confirm it here"))]
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
    /// Where MLflow reaches the operator's webhook endpoint, with the path prefix of an ingress, if there is
    /// one, for instance `https://laurel.example`. Laurel adds `/webhooks/NAMESPACE/NAME`, or
    /// `/webhooks/NAME` for a ClusterModelRegistry. By default, MLflow accepts only https:// and public
    /// addresses: see `MLFLOW_WEBHOOK_ALLOWED_SCHEMES` and `MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS`.
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("webhook.register.url is an http:// or https:// URL with a host"))]
    #[x_kube(validation = Rule::new("!self.contains('@') && !self.contains('?') && !self.contains('#')").message("webhook.register.url carries no login, query or fragment"))]
    pub url: String,

    /// Confirms that the MLflow server has `MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY`, which Laurel cannot see.
    /// Has to be true.
    #[serde(default)]
    pub encryption_key_set: bool,
}

/// What serving pods need to read artifacts from the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryServing {
    /// Secrets and `ConfigMaps` whose keys every serving pod of this registry gets as environment variables,
    /// for instance `AWS_ACCESS_KEY_ID` or `MLFLOW_TRACKING_USERNAME`. They are in the namespace of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
}

/// What Laurel sees of the registry.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRegistryStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The server's version, where it tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// How many models of this registry are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub watched_models: Option<u32>,
    /// What Laurel knows of the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// `Ready` (reachable and authorised), `Reconciling`, `Stalled`; with `spec.webhook` also `WebhookReady`;
    /// with the annotation `laurel.dev/default` also `Default`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What Laurel knows of the webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// The webhook that Laurel registered in MLflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The hour of the last delivery, in UTC. It is not kept more exactly, so that a busy registry costs one
    /// write an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Timestamp>,
}
