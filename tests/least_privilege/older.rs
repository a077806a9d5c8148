//! An older installation acts on the same objects: the newer one does nothing, says why, and begins when the
//! older one has gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{install::Operator, simulated::place::PATIENCE, support::cluster::Cluster};

/// What an operator logs when it begins to act.
const ACTS: &str = "this operator acts";

/// Another installation for the whole cluster. Nobody but its Lease is there.
pub(crate) struct Older {
    leases: Api<Lease>,
    namespace: String,
}

impl Older {
    /// `namespace` exists. Nobody renews the Lease, so it is believed for a minute.
    pub(crate) async fn create(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let leases = Api::namespaced(cluster.client.clone(), namespace);
        let lease = json!({
            "metadata": { "name": "laurel", "annotations": { "laurel.dev/scope": "cluster" } },
            "spec": { "holderIdentity": "laurel-7d9f", "leaseDurationSeconds": 60 },
        });
        leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
        Ok(Self { leases, namespace: namespace.to_owned() })
    }

    /// The operator, which has been started, waits until this one has released its Lease.
    pub(crate) async fn holds_back(&self, operator: &Operator) -> Result<()> {
        let wanted =
            format!("another Laurel, with scope cluster, runs in the namespace {:?}", self.namespace);
        let began = Instant::now();
        loop {
            let (status, text) = operator.ask("readyz").await.unwrap_or_default();
            if text.contains(&wanted) {
                ensure!(status == 503, "it is ready beside an older one: {text}");
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "/readyz does not say it: {status} {text}");
            sleep(Duration::from_millis(50)).await;
        }
        ensure!(!operator.log()?.contains(ACTS), "it acts beside an older one");
        let released = json!({ "spec": { "holderIdentity": "" } });
        self.leases.patch("laurel", &PatchParams::default(), &Patch::Merge(released)).await?;
        Ok(())
    }
}
