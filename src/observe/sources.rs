//! What observation reads from.

use std::time::Duration;

use kube::runtime::reflector::Store;

use crate::{
    api::{ModelAlias, condition::ReasonMessage},
    cluster::{Guarded, Readiness, Requeue, cache::Cache},
    registry::{VersionFacts, VersionState, polled::VersionEvidence},
    resolve::{References, index::Index},
    state::{
        FRESH, Reads, alias_writes::AliasWrites, audit_writes::AuditWrites, live::LiveWatches,
        pod_events::PodEvents, smoke_tests::SmokeTests,
    },
    status::ModelListing,
};

/// Reads of versions: whether one exists, its state, and what is pinned of it.
pub type VersionReads = Reads<Result<Option<VersionFacts>, ReasonMessage>>;

/// Reads of evidence about versions.
pub type EvidenceReads = Reads<Result<Option<VersionEvidence>, ReasonMessage>>;

/// Reads of the newest versions of models, for the status of `RegisteredModels`.
pub type ListingReads = Reads<Result<ModelListing, ReasonMessage>>;

/// Creates the reads of the newest versions. A status shows those of before until the next are known.
#[must_use]
pub fn listing_reads(requeue: Requeue) -> ListingReads {
    Reads::new(requeue, FRESH, |_| true)
}

/// Creates the reads of versions. What a version is may not be out of date, but that its registration is
/// pending may.
#[must_use]
pub fn version_reads(requeue: Requeue) -> VersionReads {
    Reads::new(requeue, FRESH, |read| match read {
        Ok(version) => version.as_ref().is_some_and(|facts| facts.state == VersionState::Pending),
        Err(_) => true,
    })
}

/// Creates the reads of evidence. What a version is judged by may not be out of date: somebody may set a tag
/// and then the alias again, right after Laurel has put it back.
#[must_use]
pub fn evidence_reads(requeue: Requeue) -> EvidenceReads {
    Reads::new(requeue, Duration::ZERO, Result::is_err)
}

/// The part of the context that observation needs.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// All `ModelAliases`.
    pub aliases: &'a Store<Guarded<ModelAlias>>,
    /// The cache of our own objects in the cluster.
    pub cluster: &'a Cache,
    /// Whether the view of the cluster may be out of date.
    pub readiness: &'a Readiness,
    /// Where references lead.
    pub references: References<'a>,
    /// Running smoke tests, and their results.
    pub smoke: &'a SmokeTests,
    /// The versions that are judged by their live traffic.
    pub live: &'a LiveWatches,
    /// The Events about pods that are waited for.
    pub pod_events: &'a PodEvents,
    /// Alias writes in progress.
    pub alias_writes: &'a AliasWrites,
    /// Audit writes in progress.
    pub audit_writes: &'a AuditWrites,
    /// Reads of versions that no poll lists.
    pub version_reads: &'a VersionReads,
    /// Reads of what the promotion rules judge a version by.
    pub evidence_reads: &'a EvidenceReads,
    /// Whether the API server records who changed a ModelAlias.
    pub trusts_changed_by: bool,
    /// Whether `HTTPRoutes` are managed.
    pub manages_routes: bool,
}

impl<'a> Sources<'a> {
    /// Returns who refers to what.
    pub(super) fn index(&self) -> &'a Index {
        &self.references.registry_objects.index
    }
}
