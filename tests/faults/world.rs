//! What all tests of a run share: the cluster, MLflow, a folder. It ends with the run.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use laurel::api::{ModelAlias, RegisteredModel};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    invariants::Poll,
    simulated::{
        machine::{self, Company, admitted, install_crds},
        mlflow::Mlflow,
    },
    support::cluster::Cluster,
    wire::Upstream,
};

/// The purpose that the namespaces of these tests are labelled with.
pub(crate) const PURPOSE: &str = "faults-test";

static WORLD: OnceCell<World> = OnceCell::const_new();

/// What all tests of a run share.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) mlflow: Mlflow,
    pub(crate) api_server: Upstream,
    /// Logs and MLflow's files, of this run alone.
    pub(crate) folder: PathBuf,
    /// Reads the aliases of all cases.
    pub(crate) poll: Poll,
    /// Runs of these tests may go on side by side; one of `control_plane` may not.
    _admission: File,
}

impl World {
    /// The one world; the first test that asks for it builds it.
    pub(crate) async fn get() -> Result<&'static Self> {
        let world = WORLD.get_or_try_init(Self::build).await?;
        world.poll.begin(&world.mlflow);
        Ok(world)
    }

    async fn build() -> Result<Self> {
        // There may be one already; it is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Cluster::connect_control_plane().await?;
        let admission = admitted(Company::Shared).await?;
        let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        let folder = runs.join(std::process::id().to_string());
        std::fs::create_dir_all(&folder)?;
        forget_runs(&runs)?;
        machine::operator(&folder)?;
        let (mlflow, crds) = tokio::join!(Mlflow::start(&folder), install_crds(&cluster));
        crds?;
        sweep(&cluster).await?;
        Ok(Self {
            api_server: Upstream::api_server(&cluster).await?,
            cluster,
            mlflow: mlflow?,
            folder,
            poll: Poll::default(),
            _admission: admission,
        })
    }
}

/// Whether a run still goes on.
fn goes_on(run: &str) -> bool {
    Path::new("/proc").join(run).exists()
}

/// Deletes what runs have written that ended a while ago.
fn forget_runs(runs: &Path) -> Result<()> {
    const KEPT: Duration = Duration::from_hours(1);
    for run in std::fs::read_dir(runs)? {
        let run = run?;
        let old = run.metadata()?.modified()?.elapsed().is_ok_and(|age| age > KEPT);
        if old && !run.file_name().to_str().is_some_and(goes_on) {
            // A run beside this one may have done it.
            let _ = std::fs::remove_dir_all(run.path());
        }
    }
    Ok(())
}

/// Deletes the namespaces of runs that ended without doing so. No operator is there to end what is in them.
async fn sweep(cluster: &Cluster) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let ours = ListParams::default().labels(&format!("laurel.dev/throwaway={PURPOSE}"));
    for namespace in namespaces.list_metadata(&ours).await? {
        let name = namespace.name_any();
        if name.rsplit('-').next().is_some_and(goes_on) {
            continue;
        }
        release_all(cluster, &name).await?;
        match namespaces.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            deleted => drop(deleted.with_context(|| format!("the namespace {name} of an earlier run"))?),
        }
    }
    Ok(())
}

/// Takes the finalizers off everything in a namespace, where no operator does it any more.
pub(crate) async fn release_all(cluster: &Cluster, namespace: &str) -> Result<()> {
    release::<ModelAlias>(cluster, namespace).await?;
    release::<RegisteredModel>(cluster, namespace).await
}

async fn release<K>(cluster: &Cluster, namespace: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    for object in api.list_metadata(&ListParams::default()).await? {
        let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        match api.patch_metadata(&object.name_any(), &PatchParams::default(), &none).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            released => drop(released?),
        }
    }
    Ok(())
}
