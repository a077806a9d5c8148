//! Reads the aliases of all cases from MLflow, past the proxies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Once},
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::ListParams};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::sleep;

use crate::simulated::mlflow::Mlflow;

/// How often the aliases are read.
const PERIOD: Duration = Duration::from_millis(200);

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Reads the alias `champion` of all cases, in one request for all of them.
pub(crate) struct Poll {
    begun: Once,
    pub(super) subjects: Subjects,
}

/// By model.
pub(super) type Subjects = Arc<Mutex<BTreeMap<String, Arc<Subject>>>>;

/// What is known of one fixture's alias.
pub(super) struct Subject {
    services: Api<Service>,
    pub(super) named: Mutex<Vec<Named>>,
    /// Versions that the test itself lets the alias name.
    pub(super) excused: Mutex<BTreeSet<String>>,
}

/// That the alias named a version.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) version: String,
    /// The cluster's revision right after it was read.
    pub(super) revision: u64,
}

impl Default for Poll {
    fn default() -> Self {
        Self { begun: Once::new(), subjects: Arc::default() }
    }
}

impl Poll {
    /// Begins to read, if it has not.
    pub(crate) fn begin(&self, mlflow: &'static Mlflow) {
        let subjects = self.subjects.clone();
        self.begun.call_once(|| {
            tokio::spawn(async move {
                loop {
                    let models: Vec<String> = locked(&subjects).keys().cloned().collect();
                    if !models.is_empty() {
                        // One read that fails is followed by the next.
                        let read = mlflow.aliases(&models, "champion").await.unwrap_or_default();
                        for (model, version) in read {
                            let subject = locked(&subjects).get(&model).cloned();
                            if let (Some(subject), Some(version)) = (subject, version) {
                                subject.cause(version).await;
                            }
                        }
                    }
                    sleep(PERIOD).await;
                }
            });
        });
    }
}

impl Subject {
    /// The alias of a model that is served in the namespace of `services`.
    pub(super) fn new(services: Api<Service>) -> Arc<Self> {
        Arc::new(Self { services, named: Mutex::default(), excused: Mutex::default() })
    }

    async fn cause(&self, version: String) {
        if locked(&self.named).last().is_some_and(|named| named.version == version) {
            return;
        }
        // What the Service selects by now was written up to this revision.
        let list = self.services.list_metadata(&ListParams::default()).await;
        let revision = list.ok().and_then(|list| list.metadata.resource_version?.parse().ok());
        if let Some(revision) = revision {
            locked(&self.named).push(Named { version, revision });
        }
    }
}
