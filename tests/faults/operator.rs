//! The operator of one fixture, restricted to its namespace.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    simulated::{machine::free_port, process::Process},
    wire::Proxy,
};

/// Time limit until it is ready.
const START: Duration = Duration::from_secs(30);

/// Time limit to exit when terminated.
const END: Duration = Duration::from_secs(30);

/// An operator; cheap to clone.
#[derive(Clone)]
pub(crate) struct Operator(Arc<Inner>);

struct Inner {
    program: PathBuf,
    namespace: String,
    kubeconfig: PathBuf,
    address: String,
    log: PathBuf,
    /// Its name in the election; `None` if it acts alone.
    candidate: Mutex<Option<&'static str>>,
    process: Mutex<Option<Process>>,
}

impl Operator {
    /// Creates an operator that reaches the API server through this proxy. It is not running yet. `name` is
    /// that of its files.
    pub(crate) fn new(folder: &Path, namespace: &str, name: &str, kubernetes: &Proxy) -> Result<Self> {
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        let server = kubernetes.url();
        std::fs::write(
            &kubeconfig,
            format!(
                "
apiVersion: v1
kind: Config
current-context: proxy
clusters: [{{name: proxy, cluster: {{server: '{server}'}}}}]
contexts: [{{name: proxy, context: {{cluster: proxy, user: operator}}}}]
users: [{{name: operator, user: {{}}}}]
"
            ),
        )?;
        Ok(Self(Arc::new(Inner {
            program: folder.join("laurel"),
            namespace: namespace.to_owned(),
            kubeconfig,
            address: format!("127.0.0.1:{}", free_port()?),
            log: folder.join(format!("{name}.log")),
            candidate: Mutex::default(),
            process: Mutex::default(),
        })))
    }

    fn process(&self) -> parking_lot::MutexGuard<'_, Option<Process>> {
        self.0.process.lock()
    }

    /// Lets it take part in the election, under this name.
    pub(crate) fn take_part(&self, name: &'static str) {
        *self.0.candidate.lock() = Some(name);
    }

    /// Starts it, without waiting until it is ready.
    pub(crate) fn launch(&self) -> Result<()> {
        ensure!(!self.is_running(), "the operator is already running");
        let Inner { program, namespace, kubeconfig, address, log, .. } = &*self.0;
        let mut operator = Command::new(program);
        operator.args(["run", "--namespace", namespace, "--http-address", address]);
        operator.env("KUBECONFIG", kubeconfig);
        operator.env("RUST_LOG", "info,laurel=debug");
        if let Some(name) = *self.0.candidate.lock() {
            operator.env("LAUREL_LEASE_NAMESPACE", namespace).env("POD_NAME", name);
        }
        *self.process() = Some(Process::start(&mut operator, log)?);
        Ok(())
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(&self) -> Result<()> {
        self.launch()?;
        let began = Instant::now();
        while !self.is_ready().await {
            ensure!(began.elapsed() < START, "the operator does not become ready: {}", self.log(20));
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Whether `/readyz` reports that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        self.readiness().await.is_ok_and(|(status, _)| status == 200)
    }

    /// Returns the status and the text of `/readyz`.
    pub(crate) async fn readiness(&self) -> Result<(u16, String)> {
        let answer = reqwest::get(format!("http://{}/readyz", self.0.address)).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Whether it is running.
    pub(crate) fn is_running(&self) -> bool {
        self.process().is_some()
    }

    fn take(&self) -> Result<Process> {
        self.process().take().context("no operator is running")
    }

    /// Kills it, and waits until it is gone: a few milliseconds.
    pub(crate) fn kill(&self) -> Result<()> {
        self.take()?.kill()
    }

    /// Terminates it. Returns its exit status.
    pub(crate) async fn terminate(&self) -> Result<ExitStatus> {
        let process = self.take()?;
        process.terminate(END).await
    }

    /// Stops the process where it is, and lets it continue.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        self.process().as_ref().context("no operator is running")?.signal(signal)
    }

    /// Kills and restarts it.
    pub(crate) async fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start().await
    }

    /// Returns its metrics in Prometheus format.
    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("http://{}/metrics", self.0.address)).await?.text().await?)
    }

    /// Returns the last lines of its log, over all its starts.
    pub(crate) fn log(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(&self.0.log).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
