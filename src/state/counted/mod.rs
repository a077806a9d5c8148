//! What pods counted: read from all pods of the versions that are compared, at one time.
//!
//! ```text
//! scrape      reads the pods of one round
//! exposition  what the text of a pod says
//! wanted      what is to be found in it
//! ```

mod exposition;
mod scrape;
mod wanted;

use crate::{
    analysis::ledger::Arm,
    api::{
        model_alias::{AliasKey, Serving},
        names::Version,
        serving_metrics::{METRICS_PATH, REQUESTS, STATUS_LABEL},
    },
    render,
};

pub(super) use self::scrape::round;
pub use self::{
    exposition::Names,
    wanted::{Counted, Wanted},
};

/// Where pods serve what they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The port.
    pub port: u16,
    /// The path of the URL.
    pub path: String,
    /// What the series are called.
    pub names: Names,
}

impl Source {
    /// Returns where the pods of a ModelAlias say what they counted; `None` where a server of the user's does
    /// not.
    #[must_use]
    pub fn of(serving: &Serving) -> Option<Self> {
        let metrics = serving.metrics.clone().unwrap_or_default();
        let names = Names {
            requests: metrics.requests.unwrap_or_else(|| REQUESTS.to_owned()),
            status: metrics.status_label.unwrap_or_else(|| STATUS_LABEL.to_owned()),
        };
        let path = metrics.path.unwrap_or_else(|| METRICS_PATH.to_owned());
        Some(Self { port: render::metrics_port(serving)?, path, names })
    }
}

/// The pods of one version that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmPods {
    /// Its name in the comparison.
    pub arm: Arm,
    /// The ModelAlias.
    pub alias: AliasKey,
    /// The version.
    pub version: Version,
    /// Where its pods say what they counted.
    pub source: Source,
}
