//! What is known of a registry: plain data. What is missing is unknown, never absent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AliasRole, follow::Candidates, gates::Evidence};
use crate::api::{
    condition::ReasonMessage,
    model_alias::Recorded,
    names::{ModelUri, Version},
};

/// The state of the registry. What is missing here is unknown, never absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryView {
    /// Why the registry cannot be read at present. If set, nothing else here can be relied on.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
    /// The version that the alias names.
    #[serde(default)]
    pub alias: Option<Version>,
    /// The version that the previous alias names.
    #[serde(default)]
    pub previous_alias: Option<Version>,
    /// What is known of the alias that was kept on the version that served before, where that is not desired
    /// any more.
    #[serde(default)]
    pub former_alias: Option<FormerAlias>,
    /// The versions that were read.
    #[serde(default)]
    pub versions: BTreeMap<Version, VersionView>,
    /// The versions that a follower chooses from.
    #[serde(default)]
    pub candidates: Candidates,
    /// The aliases that promotion rules refer to, and the versions they name.
    #[serde(default)]
    pub aliases: BTreeMap<String, Version>,
    /// The alias in the registry that differs from ours only in letter case, where ours names no version.
    #[serde(default)]
    pub similar_alias: Option<String>,
    /// The same for the aliases that promotion rules name.
    #[serde(default)]
    pub similar_aliases: BTreeMap<String, String>,
    /// When the last of the reads that are running was begun, if nothing was known before of what they read.
    #[serde(default)]
    pub reading_since: Option<Timestamp>,
    /// The evidence for promotion rules, of the versions that may have to be judged.
    #[serde(default)]
    pub evidence: BTreeMap<Version, Evidence>,
    /// The tags about drift, of the versions that a rule about it may be applied to.
    #[serde(default)]
    pub drift: BTreeMap<Version, BTreeMap<String, String>>,
    /// The version that we set the alias to last, if this process knows: if the alias names it, nobody else
    /// moved it.
    #[serde(default)]
    pub written: Option<Version>,
    /// The same for the previous alias.
    #[serde(default)]
    pub previous_written: Option<Version>,
    /// The aliases that are being written: what they name will be known when that ends.
    #[serde(default)]
    pub writing: Vec<AliasRole>,
}

/// What is known of an alias that is not desired any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormerAlias {
    /// It belongs to another ModelAlias now, or is the main alias of this one.
    Claimed,
    /// It may belong to a ModelAlias that cannot be parsed. Unknown is not absent.
    MayBeClaimed {
        /// The namespace and name of that ModelAlias.
        by: String,
    },
    /// It names this version.
    Names(Option<Version>),
}

/// The results of audit writes since this operator started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// The final results, by the time of the entry.
    #[serde(default)]
    pub settled: BTreeMap<Timestamp, Recorded>,
    /// Why the last attempt failed.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
}

/// The state of one version in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionView {
    /// A direct read found that the version does not exist.
    Absent,
    /// It could not be read; the cause.
    Unread(ReasonMessage),
    /// Its registration is pending.
    Pending,
    /// Its registration failed.
    Failed,
    /// It can be served.
    Ready {
        /// The model URI that its pods load.
        model_uri: ModelUri,
        /// Whether its audit tags show that it was live under our alias.
        #[serde(default)]
        was_live: bool,
    },
}
