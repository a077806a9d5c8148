//! Where the benchmark runs: namespaces and accounts on the control plane, an MLflow with models, the operator. Cleans
//! up what it and killed runs leave.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Namespace, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use laurel::api::{ModelAlias, ModelRegistry, RegisteredModel};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    Options, audit,
    operator::Operator,
    parallel::each,
    simulated::{
        machine::{self, Company, admitted, install_crds},
        mlflow::Mlflow,
    },
    support::cluster::Cluster,
};

/// The namespace of the accounts and of the Lease.
pub(crate) const SYSTEM: &str = "laurel-scale-system";
/// The namespace of what is made by hand.
pub(crate) const BY_HAND: &str = "laurel-scale-by-hand";
/// The namespace of the ModelAliases.
pub(crate) const LAUREL: &str = "laurel-scale";
/// The namespace of the ModelAliases whose registry answers late.
pub(crate) const LATE: &str = "laurel-scale-late";

/// The purpose label of these namespaces.
const PURPOSE: &str = "bench-scale";
/// The versions of each model.
const VERSIONS: usize = 2;

/// Where the benchmark runs.
pub(crate) struct Site {
    pub(crate) options: Options,
    /// A client of somebody who does by hand what Laurel does, with an account like the operator's.
    pub(crate) client: Client,
    pub(crate) mlflow: Mlflow,
    pub(crate) operator: Operator,
    cluster: Cluster,
    folder: PathBuf,
    /// Other tests would disturb the measurement.
    _alone: File,
}

impl Site {
    /// Prepares everything up to the models in the registry; the operator is not running yet.
    pub(crate) async fn prepare(options: Options) -> Result<Self> {
        // It may exist already, with the same content.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Cluster::connect_control_plane().await?;
        println!("waiting until no test uses the control plane");
        let alone = admitted(Company::Alone).await?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        sweep(&cluster, options.patience()).await?;
        install_crds(&cluster).await?;
        for namespace in [SYSTEM, BY_HAND, LAUREL, LATE] {
            cluster.fresh_namespace(namespace, PURPOSE).await?;
        }
        permit(&cluster).await?;
        let operator = account(&cluster, "operator", &folder).await?;
        let by_hand = Kubeconfig::read_from(account(&cluster, "by-hand", &folder).await?)?;
        let config = Config::from_custom_kubeconfig(by_hand, &KubeConfigOptions::default()).await?;
        println!("starting MLflow");
        let site = Self {
            client: Client::try_from(config)?,
            mlflow: Mlflow::start(&folder).await?,
            operator: Operator::new(&folder, options.operator.clone(), operator)?,
            options,
            cluster,
            folder,
            _alone: alone,
        };
        site.registry(LAUREL, &site.mlflow.url()).await?;
        println!("registering {} models with {VERSIONS} versions each", site.options.models());
        site.register("model", site.options.models(), VERSIONS).await?;
        Ok(site)
    }

    /// Creates the default registry of a namespace.
    pub(crate) async fn registry(&self, namespace: &str, url: &str) -> Result<()> {
        let registry = serde_json::from_value(json!({
            "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelRegistry",
            "metadata": { "name": "default", "annotations": { "laurel.dev/default": "true" } },
            "spec": { "mlflow": { "url": url } },
        }))?;
        self.api::<ModelRegistry>(namespace).create(&PostParams::default(), &registry).await?;
        Ok(())
    }

    /// Registers models named `prefix-0` and so on.
    pub(crate) async fn register(&self, prefix: &str, models: usize, versions: usize) -> Result<()> {
        each(0..models, |number| async move {
            let model = format!("{prefix}-{number}");
            self.mlflow.create_model(&model).await?;
            for _ in 0..versions {
                self.mlflow.register(&model).await?;
            }
            Ok(())
        })
        .await
    }

    /// Returns an API of a namespace, for who does things by hand.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Returns how many requests MLflow has answered, according to its own log.
    pub(crate) fn registry_requests(&self) -> Result<usize> {
        let log = fs::read_to_string(self.folder.join("mlflow.log"))?;
        Ok(log.lines().filter(|line| line.contains("HTTP/1.1\"")).count())
    }

    /// Deletes everything. MLflow ends with the process.
    pub(crate) async fn clean_up(&self) -> Result<()> {
        println!("cleaning up");
        self.operator.stop().await?;
        sweep(&self.cluster, self.options.patience()).await
    }
}

/// Returns how often the operator wrote to the API server so far, according to the audit log. Without the
/// Lease, which it renews all the time.
pub(crate) fn writes() -> Result<usize> {
    let requests = audit::requests(&format!("system:serviceaccount:{SYSTEM}:operator"))?;
    let rights = requests.into_iter().filter_map(|request| request.right);
    let reads = ["get", "list", "watch"];
    Ok(rights.filter(|it| !reads.contains(&it.verb.as_str()) && it.resource != "leases").count())
}

/// Permits the accounts everything, until their namespace is deleted.
async fn permit(cluster: &Cluster) -> Result<()> {
    let namespace = Api::<Namespace>::all(cluster.client.clone()).get(SYSTEM).await?;
    let binding = serde_json::from_value(json!({
        "metadata": {
            "name": SYSTEM,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Namespace", "name": SYSTEM,
                "uid": namespace.uid().context("a namespace without UID")?,
            }],
        },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
            "name": format!("system:serviceaccounts:{SYSTEM}"),
        }],
    }))?;
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client.clone());
    // One of a killed run may still be there: its owner has just been deleted.
    let forced = PatchParams::apply("bench").force();
    let binding: ClusterRoleBinding = binding;
    bindings.patch(SYSTEM, &forced, &Patch::Apply(&binding)).await?;
    Ok(())
}

/// Creates a service account. Returns the path of its kubeconfig.
async fn account(cluster: &Cluster, name: &str, folder: &Path) -> Result<PathBuf> {
    cluster.run_kubectl(&["create", "serviceaccount", name, "-n", SYSTEM], None).await?;
    let create = ["create", "token", name, "-n", SYSTEM, "--duration=6h"];
    let token = cluster.run_kubectl(&create, None).await?;
    let path = folder.join(format!("{name}.kubeconfig"));
    machine::kubeconfig(cluster, token.trim(), &path)?;
    Ok(path)
}

/// Deletes all namespaces of this purpose, and waits until they are gone. No operator is running that could remove
/// finalizers.
async fn sweep(cluster: &Cluster, deadline: Duration) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let ours = ListParams::default().labels(&format!("laurel.dev/throwaway={PURPOSE}"));
    let began = Instant::now();
    for namespace in namespaces.list_metadata(&ours).await? {
        let name = namespace.name_any();
        release::<ModelAlias>(cluster, &name).await?;
        release::<RegisteredModel>(cluster, &name).await?;
        release::<ModelRegistry>(cluster, &name).await?;
        if namespace.metadata.deletion_timestamp.is_none() {
            namespaces.delete(&name, &DeleteParams::background()).await?;
        }
    }
    while !namespaces.list_metadata(&ours).await?.items.is_empty() {
        ensure!(began.elapsed() < deadline, "the namespaces do not end within {deadline:?}");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Removes the finalizers of all objects of a kind.
async fn release<K>(cluster: &Cluster, namespace: &str) -> Result<()>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    let mut held = match api.list_metadata(&ListParams::default()).await {
        // The CRDs may not be there yet.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        held => held?.items,
    };
    held.retain(|object| !object.finalizers().is_empty());
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    each(held, |object| {
        let (api, none) = (api.clone(), none.clone());
        async move {
            match api.patch_metadata(&object.name_any(), &PatchParams::default(), &none).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                released => Ok(released.map(drop)?),
            }
        }
    })
    .await
}
