//! The chart's service account and role, and the operator that runs with only these.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    rights::{Right, granted},
    simulated::{
        machine::{self, free_port, repository},
        place::PATIENCE,
        process::Process,
    },
    support::cluster::Cluster,
};

/// The chart's `nameOverride`, to find objects of an earlier run.
const NAME: &str = "least-privilege";

/// The value `scope` of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Namespace,
}

impl Scope {
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Namespace => "namespace",
        }
    }
}

/// What the chart renders, without the CRDs.
pub(crate) struct Install {
    objects: Vec<Value>,
    cluster: Cluster,
    pub(crate) namespace: String,
    pub(crate) token: String,
}

impl Install {
    /// Applies the chart's account, role and binding, but not its Deployment: the operator runs as a process.
    pub(crate) async fn apply(
        cluster: &Cluster,
        scope: Scope,
        release: &str,
        namespace: &str,
    ) -> Result<Self> {
        let left = ["clusterroles,clusterrolebindings", "-l", &format!("app.kubernetes.io/name={NAME}")];
        cluster.run_kubectl(&[&["delete"][..], &left].concat(), None).await?;
        let set = format!("scope={},crds.install=false,nameOverride={NAME}", scope.value());
        let text = helm(&["template", release, "charts/laurel", "--namespace", namespace, "--set", &set])?;
        let objects: Vec<Value> = documents(&text)?;
        let rights: Vec<&Value> = objects.iter().filter(|object| object["kind"] != "Deployment").collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": rights });
        cluster.run_kubectl(&["apply", "-f", "-"], Some(&list.to_string())).await?;
        let mut install =
            Self { objects, cluster: cluster.clone(), namespace: namespace.to_owned(), token: String::new() };
        let account = install.one("ServiceAccount")?["metadata"]["name"].as_str().unwrap_or_default();
        let create = ["create", "token", account, "-n", namespace, "--duration=1h"];
        cluster.run_kubectl(&create, None).await?.trim().clone_into(&mut install.token);
        Ok(install)
    }

    fn one(&self, kind: &str) -> Result<&Value> {
        let found: Vec<&Value> = self.objects.iter().filter(|object| object["kind"] == kind).collect();
        ensure!(found.len() == 1, "the chart renders {} objects of kind {kind}", found.len());
        Ok(found[0])
    }

    pub(crate) fn kinds(&self) -> BTreeSet<String> {
        self.objects.iter().map(|object| object["kind"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the roles grant.
    pub(crate) fn granted(&self) -> Result<BTreeSet<Right>> {
        let roles =
            self.objects.iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role");
        let granted: Vec<BTreeSet<Right>> = roles.map(granted).collect::<Result<_>>()?;
        Ok(granted.into_iter().flatten().collect())
    }

    /// Returns the account's user name in the API server.
    pub(crate) fn account(&self) -> Result<String> {
        let name = &self.one("ServiceAccount")?["metadata"]["name"];
        Ok(format!("system:serviceaccount:{}:{}", self.namespace, name.as_str().unwrap_or_default()))
    }

    /// The operator's pod template.
    pub(crate) fn template(&self) -> Result<Value> {
        Ok(self.one("Deployment")?["spec"]["template"].clone())
    }

    /// Deletes everything that is not deleted with a namespace.
    pub(crate) async fn remove(&self) -> Result<()> {
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            if let Ok(object) = self.one(kind) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                self.cluster.run_kubectl(&["delete", kind, name], None).await?;
            }
        }
        Ok(())
    }

    /// Starts the operator with the arguments and the environment of the chart's Deployment, and with the
    /// account's token instead of a pod's. It logs everything.
    pub(crate) fn start(&self, folder: &Path) -> Result<Operator> {
        self.start_logging(folder, "debug,laurel=trace")
    }

    /// The same, logging what `filter` lets through.
    pub(crate) fn start_logging(&self, folder: &Path, filter: &str) -> Result<Operator> {
        let program = machine::operator(folder)?;
        let container = &self.template()?["spec"]["containers"][0];
        let mut operator = Command::new(&program);
        for word in container["args"].as_array().into_iter().flatten() {
            operator.arg(word.as_str().unwrap_or_default());
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.namespace") => Some(self.namespace.as_str()),
                Some("metadata.name") => Some("laurel-0"),
                _ => variable["value"].as_str(),
            };
            let value = value.with_context(|| format!("the value of {variable}"))?;
            operator.env(variable["name"].as_str().unwrap_or_default(), value);
        }
        let address = format!("127.0.0.1:{}", free_port()?);
        operator.env("LAUREL_HTTP_ADDRESS", &address);
        operator.env("RUST_LOG", filter);
        let kubeconfig = folder.join("kubeconfig");
        machine::kubeconfig(&self.cluster, &self.token, &kubeconfig)?;
        operator.env("KUBECONFIG", kubeconfig);
        let log = folder.join("operator.log");
        let process = Process::start(&mut operator, &log)?;
        Ok(Operator { program, address, log, process: Mutex::new(Some(process)) })
    }
}

/// The operator as a process.
pub(crate) struct Operator {
    program: PathBuf,
    address: String,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Operator {
    pub(crate) async fn until_ready(&self) -> Result<()> {
        let began = Instant::now();
        while self.get("readyz").await.is_err() {
            ensure!(began.elapsed() < PATIENCE, "no operator: {}", self.log()?);
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Returns the status and the text of an endpoint's response.
    pub(crate) async fn ask(&self, path: &str) -> Result<(u16, String)> {
        let answer = reqwest::get(format!("http://{}/{path}", self.address)).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Returns the response of one of its endpoints.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let answer = reqwest::get(format!("http://{}/{path}", self.address)).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Returns its command line, which everybody on its node can read, and its environment, which root can.
    pub(crate) fn process_table(&self) -> Result<String> {
        for entry in fs::read_dir("/proc")? {
            let process = entry?.path();
            // Most entries in /proc are not processes, and a process may exit in the meantime.
            let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            if line.split('\0').next() == self.program.to_str() {
                let environment = fs::read_to_string(process.join("environ"))?;
                return Ok(format!("{line}\n{environment}").replace('\0', "\n"));
            }
        }
        anyhow::bail!("{} is not running", self.program.display())
    }

    /// Ends it as the kubelet does, and waits until it has ended.
    pub(crate) async fn terminate(&self, deadline: Duration) -> Result<()> {
        let process = self.process.lock().take().context("it is not running")?;
        let status = process.terminate(deadline).await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// Kills it if it is still running.
    pub(crate) fn end(&self) -> Result<()> {
        self.process.lock().take().map_or(Ok(()), Process::kill)
    }
}

fn helm(arguments: &[&str]) -> Result<String> {
    let bundled = repository().join(".cluster/bin/helm");
    let mut helm = Command::new(if bundled.exists() { bundled } else { "helm".into() });
    let output = helm.args(arguments).current_dir(repository()).output().context("helm cannot be run")?;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    Ok(documents.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|document| !document.is_null()).collect())
}
