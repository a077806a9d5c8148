//! What observation reads from.

use kube::runtime::reflector::Store;

use crate::{
    api::ModelAlias,
    cluster::{Guarded, Readiness, Requeue, cache::Cache},
    resolve::References,
    state::{alias_writes::AliasWrites, audit_writes::AuditWrites, smoke_tests::SmokeTests},
};

/// The part of the context that observation needs.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The cache of our own objects in the cluster.
    pub cluster: &'a Cache,
    /// Whether the view of the cluster may be out of date.
    pub readiness: &'a Readiness,
    /// All `ModelAliases`.
    pub aliases: &'a Store<Guarded<ModelAlias>>,
    /// Where references lead.
    pub references: References<'a>,
    /// Running smoke tests, and their results.
    pub smoke: &'a SmokeTests,
    /// Alias writes in progress.
    pub alias_writes: &'a AliasWrites,
    /// Audit writes in progress.
    pub audit_writes: &'a AuditWrites,
    /// Requests a reconcile when a read has finished.
    pub requeue: &'a Requeue,
    /// Whether the API server records who changed a ModelAlias.
    pub trusts_changed_by: bool,
}
