//! `spec.serving.metrics`: what serving pods count, and where they show it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::traffic::PATH_PATTERN;

/// What Prometheus accepts as the name of a metric.
const METRIC_PATTERN: &str = "^[a-zA-Z_:][a-zA-Z0-9_:]*$";
/// What Prometheus accepts as the name of a label.
const LABEL_PATTERN: &str = "^[a-zA-Z_][a-zA-Z0-9_]*$";
/// The maximum length of each.
const NAME_MAX: usize = 128;

/// The default of [`ServingMetrics::path`].
pub const METRICS_PATH: &str = "/metrics";
/// The default of [`ServingMetrics::requests`].
pub const REQUESTS: &str = "http_server_request_duration_seconds";
/// The default of [`ServingMetrics::status_label`].
pub const STATUS_LABEL: &str = "http_response_status_code";

/// What the serving pods count, and where they show it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.port) || !(has(self.path) || has(self.requests) || has(self.statusLabel))").message("metrics.path, metrics.requests and metrics.statusLabel need metrics.port, which is for the runtime custom"))]
pub struct ServingMetrics {
    /// How predictions are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<Predictions>,

    /// The port of the pod at which a server of the runtime `custom` shows its metrics as Prometheus text,
    /// without a password. It becomes the container port `metrics`. It differs from `serving.port`. Without
    /// it, nothing is known of what a custom server counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1024, max = 65535))]
    pub port: Option<u16>,

    /// The path of the metrics at `port`. The default is `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = PATH_PATTERN))]
    pub path: Option<String>,

    /// The name of the histogram, at `port`, of how long requests took in seconds, without `_bucket`. Its
    /// count is the number of requests. The default is `http_server_request_duration_seconds`, the name that
    /// OpenTelemetry gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = METRIC_PATTERN))]
    pub requests: Option<String>,

    /// The label of that histogram with the HTTP status of the response. The default is
    /// `http_response_status_code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = LABEL_PATTERN))]
    pub status_label: Option<String>,
}

/// How predictions are counted. `Classes` (the default), for classifiers: how often each value was predicted;
/// the first 20 values by name, all others as `other`. `Numbers`, for regressions: how many values, their sum
/// and the sum of their squares. `Disabled`: only whether the model answered. Requests, their status and
/// duration always count. It cannot be set for the runtime `custom`.
// An optional field gets this text as its description, not its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
pub enum Predictions {
    /// By class.
    #[default]
    Classes,
    /// As numbers.
    Numbers,
    /// Not at all.
    Disabled,
}
