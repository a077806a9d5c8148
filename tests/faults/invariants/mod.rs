//! What is never to happen, watched from outside: by watches of the cluster and by reads of MLflow that do
//! not go through the proxies.
//!
//! ```text
//! audit (tests/support)  no Service is written with an empty selector, or to where no pod is ready
//! invariants                no version is deleted or scaled to zero while the Service selects it or its endpoints name it
//!                        with `spec.version`, the alias names no version before the Service has selected it
//! ```

mod poll;
mod shown;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt, runtime::watcher};
use laurel::{api::ModelAlias, render::labels};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

pub(crate) use self::poll::Poll;
use self::{
    poll::{Named, Subject, Subjects, locked},
    shown::{Selection, in_order, last_before, names, present_before, set_alias},
};
use crate::{
    simulated::{audit::revision, place::Place},
    support::watch::{Seen, Watch},
    wire::{Exchange, Journal},
};

/// The invariants of one fixture.
pub(crate) struct Invariants {
    deployments: Watch<Deployment>,
    endpoints: Watch<EndpointSlice>,
    aliases: Watch<ModelAlias>,
    subject: Arc<Subject>,
    model: String,
    subjects: Subjects,
    by_hand: Mutex<BTreeSet<u64>>,
    /// Since when the namespace ends.
    ends_since: Mutex<Option<u64>>,
}

impl Invariants {
    pub(crate) fn begin(place: &Place, poll: &Poll) -> Self {
        let subject = Subject::new(place.api());
        locked(&poll.subjects).insert(place.model.clone(), subject.clone());
        Self {
            deployments: Watch::start(place.api(), watcher::Config::default()),
            endpoints: Watch::start(place.api(), watcher::Config::default()),
            aliases: Watch::start(place.api(), watcher::Config::default()),
            subject,
            model: place.model.clone(),
            subjects: poll.subjects.clone(),
            by_hand: Mutex::default(),
            ends_since: Mutex::default(),
        }
    }

    /// Leaves out a write that the test itself made.
    pub(crate) fn excuse(&self, written: &Deployment) {
        locked(&self.by_hand).insert(revision(written));
    }

    /// Leaves out what is deleted from now on: the namespace ends, and with it the cluster takes away
    /// everything in it.
    pub(crate) fn excuse_the_end(&self, namespace: &Namespace) {
        *locked(&self.ends_since) = Some(revision(namespace));
    }

    /// Leaves out that the alias names a version that the test itself lets it name.
    pub(crate) fn excuse_alias(&self, version: &str) {
        locked(&self.subject.excused).insert(version.to_owned());
    }

    /// Reads the alias no more.
    pub(crate) fn end(&self) {
        locked(&self.subjects).remove(&self.model);
    }

    /// An error when something happened that is never to happen.
    pub(crate) async fn verdict(&self, place: &Place, journal: &Journal) -> Result<()> {
        // One watch may lag behind the other.
        const LAG: Duration = Duration::from_secs(10);
        let began = Instant::now();
        loop {
            match self.nothing_was_taken_away(place).and_then(|()| self.alias_was_true(place, journal)) {
                Err(_) if began.elapsed() < LAG => sleep(Duration::from_millis(100)).await,
                verdict => return verdict,
            }
        }
    }

    /// No version was deleted or scaled to zero while the Service selected it or its endpoints named it. What
    /// the cluster does after their ModelAlias or the namespace was deleted is left out.
    fn nothing_was_taken_away(&self, place: &Place) -> Result<()> {
        let ends_since = *locked(&self.ends_since);
        let deleted_since = self.deleted_since();
        let by_hand = locked(&self.by_hand).clone();
        let services = in_order(place.audit.services.seen());
        let slices = in_order(self.endpoints.seen());
        let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
        for Seen { object, gone, .. } in in_order(self.deployments.seen()) {
            let (at, name) = (revision(&object), object.name_any());
            let size =
                if gone { 0 } else { object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) };
            let before = sizes.insert(name.clone(), size).unwrap_or_default();
            let owners = object.owner_references().iter();
            let ends_at =
                owners.filter_map(|owner| deleted_since.get(&owner.uid)).copied().chain(ends_since).min();
            if before == 0 || size > 0 || by_hand.contains(&at) || ends_at.is_some_and(|end| end <= at) {
                continue;
            }
            let version = object.labels().get(labels::VERSION).cloned().unwrap_or_default();
            let done = if gone { "deleted" } else { "scaled to zero" };
            let selects = |service: &Service| Selection::of(service).is_some_and(|by| by.covers(&version));
            ensure!(
                !last_before(&services, at).is_some_and(selects),
                "{name} was {done} at revision {at} while the Service selected it"
            );
            ensure!(
                !present_before(&slices, at).iter().any(|slice| names(slice, &format!("{name}-"))),
                "{name} was {done} at revision {at} while the Service's endpoints named its pods"
            );
        }
        Ok(())
    }

    /// Since which revision each ModelAlias, by its UID, is deleted.
    fn deleted_since(&self) -> BTreeMap<String, u64> {
        let mut since = BTreeMap::new();
        for seen in in_order(self.aliases.seen()) {
            if seen.gone || seen.object.metadata.deletion_timestamp.is_some() {
                since.entry(seen.object.uid().unwrap_or_default()).or_insert_with(|| revision(&seen.object));
            }
        }
        since
    }

    /// While `spec.version` decides, the alias named no version before the Service had selected it: by reads
    /// of MLflow, and by the order of the operator's own writes.
    fn alias_was_true(&self, place: &Place, journal: &Journal) -> Result<()> {
        let follows = |seen: &Seen<ModelAlias>| {
            seen.object.spec.version.is_none() || seen.object.spec.serving.is_none()
        };
        if place.champion.seen().iter().any(follows) {
            return Ok(());
        }
        let excused = locked(&self.subject.excused).clone();
        let services = in_order(place.audit.services.seen());
        let selects =
            |service: &Service, version: &str| Selection::of(service).is_some_and(|by| by.covers(version));
        for Named { version, revision: at } in &*locked(&self.subject.named) {
            let before = services.iter().take_while(|seen| revision(&seen.object) <= *at);
            ensure!(
                excused.contains(version)
                    || before.into_iter().any(|seen| !seen.gone && selects(&seen.object, version)),
                "the alias named version {version} before revision {at}; the Service had not selected it by \
                 then"
            );
        }
        let exchanges = journal.exchanges();
        for exchange in &exchanges {
            let Some(version) = set_alias(exchange) else { continue };
            let moved = |earlier: &Exchange| {
                earlier.ended.is_some_and(|ended| ended <= exchange.arrived)
                    && earlier.succeeded()
                    && Selection::written_by(earlier).is_some_and(|by| by.covers(&version))
            };
            ensure!(
                excused.contains(&version) || exchanges.iter().any(moved),
                "the operator let the alias name version {version} before it had moved the Service there: \
                 {exchange}"
            );
        }
        Ok(())
    }
}
