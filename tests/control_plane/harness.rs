//! The harness of all tests: the cluster, one MLflow server, one operator. They end with the test run.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    simulated::{
        machine::{self, Company, admitted, free_port, install_crds, install_gateway_api},
        mlflow::Mlflow,
        process::Process,
    },
    support::cluster::Cluster,
};

/// The purpose label of these tests' namespaces.
pub(crate) const PURPOSE: &str = "control-plane-test";

/// The ClusterModelRegistry of models that name none.
pub(crate) const DEFAULT_REGISTRY: &str = "control-plane-test";

static WORLD: OnceCell<World> = OnceCell::const_new();

/// The harness of all tests.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) mlflow: Mlflow,
    folder: PathBuf,
    operator_address: String,
    /// The operator's webhook endpoint.
    pub(crate) webhook_address: String,
    operator: Mutex<Option<Process>>,
    /// Held by a test that kills the operator, or that must not have it killed.
    pub(crate) keeps_running: tokio::sync::Mutex<()>,
    /// One run at a time: two operators would reconcile the same objects.
    _alone: File,
}

impl World {
    /// Returns the world; the first test that needs it builds it.
    pub(crate) async fn get() -> Result<&'static Self> {
        WORLD.get_or_try_init(Self::build).await
    }

    async fn build() -> Result<Self> {
        // It may exist already, with the same content.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Cluster::connect_control_plane().await?;
        let alone = admitted(Company::Alone).await?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("control_plane");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        machine::operator(&folder)?;
        install_gateway_api()?;
        let (mlflow, crds) = tokio::join!(Mlflow::start(&folder), install_crds(&cluster));
        crds?;
        let world = Self {
            cluster,
            mlflow: mlflow?,
            folder,
            operator_address: format!("127.0.0.1:{}", free_port()?),
            webhook_address: format!("127.0.0.1:{}", free_port()?),
            operator: Mutex::new(None),
            keeps_running: tokio::sync::Mutex::default(),
            _alone: alone,
        };
        world.apply_default_registry().await?;
        world.start_operator().await?;
        world.sweep().await?;
        Ok(world)
    }

    /// The default registry of the cluster, for tests whose models name none.
    async fn apply_default_registry(&self) -> Result<()> {
        let registry = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ClusterModelRegistry",
            "metadata": { "name": DEFAULT_REGISTRY, "annotations": { "laurel.dev/default": "true" } },
            "spec": { "mlflow": { "url": self.mlflow.url() }, "pollInterval": "5s" },
        });
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.cluster.run_kubectl(&apply, Some(&registry.to_string())).await.map(drop)
    }

    /// Starts the operator, and waits until it is ready to decide.
    pub(crate) async fn start_operator(&self) -> Result<()> {
        let mut operator = Command::new(self.folder.join("laurel"));
        operator.args([
            "run",
            "--http-address",
            &self.operator_address,
            "--trust-changed-by",
            "--gateway-api",
        ]);
        operator.args(["--webhook-address", &self.webhook_address, "--webhook-scheme", "http"]);
        operator.env("KUBECONFIG", self.cluster.kubeconfig().context("the rig has a kubeconfig")?);
        operator.env("RUST_LOG", "info,laurel=debug");
        let process = Process::start(&mut operator, &self.operator_log())?;
        *self.operator.lock() = Some(process);
        let began = Instant::now();
        loop {
            let readiness = reqwest::get(format!("http://{}/readyz", self.operator_address)).await;
            if readiness.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(began.elapsed() < Duration::from_secs(30), "no operator: {}", self.log_about(""));
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The program, as the operator runs it.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("laurel")
    }

    /// A new folder for a test.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Kills the operator.
    pub(crate) fn kill_operator(&self) -> Result<()> {
        let operator = self.operator.lock().take();
        operator.context("no operator runs")?.kill()
    }

    fn operator_log(&self) -> PathBuf {
        self.folder.join("operator.log")
    }

    /// Returns the last log lines of the operator about something.
    pub(crate) fn log_about(&self, what: &str) -> String {
        const LINES: usize = 40;
        let log = std::fs::read_to_string(self.operator_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(what)).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Deletes namespaces left by an earlier run.
    async fn sweep(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        let ours = ListParams::default().labels(&format!("laurel.dev/throwaway={PURPOSE}"));
        for namespace in namespaces.list_metadata(&ours).await? {
            namespaces.delete(&namespace.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }
}
