//! Which cluster, its clients, and namespaces of our own in it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Where the operator is installed.
pub(crate) const OPERATOR_NAMESPACE: &str = "laurel-system";

/// Selects the operator's pod.
pub(crate) const OPERATOR_PODS: &str = "app.kubernetes.io/name=laurel";

/// The label of namespaces that tests and demo made, and so may delete. Its value says for what.
const OURS: &str = "laurel.dev/throwaway";

/// How long a namespace may take to end: pods drain first.
const NAMESPACE_END: Duration = Duration::from_mins(2);

/// A cluster and how to reach it.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// A client with an administrator's rights.
    pub(crate) client: Client,
    /// The file that `client` and kubectl read; `None` is kubectl's own default.
    kubeconfig: Option<PathBuf>,
}

impl Cluster {
    /// Connects to the cluster that `make cluster` started; with `CLUSTER=existing`, to the one that kubectl
    /// uses. `KUBECONFIG` alone does not decide it: tests make and delete namespaces, and nobody should do
    /// that to a cluster by having it in an environment variable.
    pub(crate) async fn connect() -> Result<Self> {
        if std::env::var("CLUSTER").is_ok_and(|cluster| cluster == "existing") {
            let hint = "CLUSTER=existing, but kubectl's configuration cannot be used";
            return Self::with(Config::infer().await.context(hint)?, None, "the cluster does not answer")
                .await;
        }
        let hint = "there is no cluster: run `make cluster`, or set CLUSTER=existing to use your own";
        Self::of_the_rig("full", hint).await
    }

    /// Connects to the control plane with simulated pods that `make cluster-api` started.
    pub(crate) async fn connect_control_plane() -> Result<Self> {
        Self::of_the_rig("api", "there is no control plane: run `make cluster-api`").await
    }

    async fn of_the_rig(tier: &str, hint: &'static str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cluster").join(tier).join("kubeconfig");
        let file = Kubeconfig::read_from(&path).context(hint)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Self::with(config, Some(path), hint).await
    }

    async fn with(config: Config, kubeconfig: Option<PathBuf>, hint: &'static str) -> Result<Self> {
        let client = Client::try_from(config)?;
        timeout(Duration::from_secs(10), client.apiserver_version()).await.context(hint)?.context(hint)?;
        Ok(Self { client, kubeconfig })
    }

    /// The file that says how to reach the cluster; `None` is kubectl's own default.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// A kubectl that talks to this cluster.
    pub(crate) fn kubectl(&self) -> Command {
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cluster/bin/kubectl");
        let mut kubectl = Command::new(if bundled.exists() { bundled } else { "kubectl".into() });
        if let Some(path) = &self.kubeconfig {
            kubectl.env("KUBECONFIG", path);
        }
        kubectl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        kubectl
    }

    /// Runs kubectl and returns what it prints; its errors, too.
    pub(crate) async fn run_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = self.kubectl();
        command.args(arguments);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut running = command.spawn().context("kubectl cannot be run")?;
        if let (Some(input), Some(mut stdin)) = (input, running.stdin.take()) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = running.wait_with_output().await?;
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "kubectl {}: {printed}", arguments.join(" "));
        Ok(printed)
    }

    /// Makes sure that Laurel runs here.
    pub(crate) async fn require_laurel(&self) -> Result<()> {
        let hint = "Laurel is not installed in laurel-system; `make demo` installs it";
        let namespace = ["-n", OPERATOR_NAMESPACE];
        let wait = ["wait", "--for=condition=Available", "deployment", "-l", OPERATOR_PODS, "--timeout=60s"];
        self.run_kubectl(&[&namespace[..], &wait[..]].concat(), None).await.context(hint).map(drop)
    }

    /// A new namespace that enforces the `restricted` Pod Security Standard. One of that name that is left
    /// from an earlier run goes first; one that is not ours stays, and is an error.
    pub(crate) async fn fresh_namespace(&self, name: &str, purpose: &str) -> Result<()> {
        self.delete_namespace(name).await?;
        let labels = [(OURS, purpose), ("pod-security.kubernetes.io/enforce", "restricted")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// Deletes every ModelAlias in a namespace of ours, then the namespace, and waits until it is gone. In
    /// this order, because an alias can only be removed from a registry while the object that says which
    /// registry is still there.
    pub(crate) async fn delete_namespace(&self, name: &str) -> Result<()> {
        let ours = |found: Namespace| found.labels().contains_key(OURS);
        if Api::<Namespace>::all(self.client.clone()).get_opt(name).await?.is_some_and(ours) {
            let end = format!("--timeout={}s", NAMESPACE_END.as_secs());
            self.run_kubectl(&["delete", "modelaliases", "--all", "-n", name, &end], None).await?;
        }
        self.terminate_namespace(name).await
    }

    /// Deletes a namespace of ours, if it is there, as it is, and waits until it is gone.
    pub(crate) async fn terminate_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let Some(found) = namespaces.get_opt(name).await? else { return Ok(()) };
        if !found.labels().contains_key(OURS) {
            bail!(
                "the namespace {name} is there and has no label {OURS}: delete or rename it, it will not be \
                 touched"
            );
        }
        let uid = found.uid().unwrap_or_default();
        if found.metadata.deletion_timestamp.is_none() {
            namespaces.delete(name, &DeleteParams::default()).await?;
        }
        let gone = await_condition(namespaces, name, is_deleted(&uid));
        timeout(NAMESPACE_END, gone)
            .await
            .with_context(|| format!("the namespace {name} does not terminate"))??;
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
