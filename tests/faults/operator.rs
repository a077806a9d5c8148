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

/// How long it may take until it is ready to decide.
const START: Duration = Duration::from_secs(30);

/// How long it may take to end when it is asked to.
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
    process: Mutex<Option<Process>>,
}

impl Operator {
    /// An operator that reaches the API server by this proxy. It does not run yet.
    pub(crate) fn new(folder: &Path, namespace: &str, kubernetes: &Proxy) -> Result<Self> {
        let kubeconfig = folder.join(format!("{namespace}.kubeconfig"));
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
            log: folder.join(format!("{namespace}.log")),
            process: Mutex::default(),
        })))
    }

    fn process(&self) -> parking_lot::MutexGuard<'_, Option<Process>> {
        self.0.process.lock()
    }

    /// Starts it, and does not wait until it is ready.
    pub(crate) fn launch(&self) -> Result<()> {
        ensure!(!self.is_running(), "the operator runs already");
        let Inner { program, namespace, kubeconfig, address, log, .. } = &*self.0;
        let mut operator = Command::new(program);
        operator.args(["run", "--namespace", namespace, "--http-address", address]);
        operator.env("KUBECONFIG", kubeconfig);
        operator.env("RUST_LOG", "info,laurel=debug");
        *self.process() = Some(Process::start(&mut operator, log)?);
        Ok(())
    }

    /// Starts it, and waits until it is ready to decide.
    pub(crate) async fn start(&self) -> Result<()> {
        self.launch()?;
        let began = Instant::now();
        while !self.is_ready().await {
            ensure!(began.elapsed() < START, "the operator does not become ready: {}", self.log(20));
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Whether `/readyz` says so.
    pub(crate) async fn is_ready(&self) -> bool {
        self.readiness().await.is_ok_and(|(status, _)| status == 200)
    }

    /// What `/readyz` says: its status and its text.
    pub(crate) async fn readiness(&self) -> Result<(u16, String)> {
        let answer = reqwest::get(format!("http://{}/readyz", self.0.address)).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Whether it was started and neither killed nor terminated since.
    pub(crate) fn is_running(&self) -> bool {
        self.process().is_some()
    }

    fn take(&self) -> Result<Process> {
        self.process().take().context("no operator runs")
    }

    /// Kills it without a word, and waits until it is gone: a few milliseconds.
    pub(crate) fn kill(&self) -> Result<()> {
        self.take()?.kill()
    }

    /// Lets it end in order; how it ended.
    pub(crate) async fn terminate(&self) -> Result<ExitStatus> {
        let process = self.take()?;
        process.terminate(END).await
    }

    /// Kills it and starts it again.
    pub(crate) async fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start().await
    }

    /// Its metrics, as Prometheus reads them.
    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("http://{}/metrics", self.0.address)).await?.text().await?)
    }

    /// The end of what it wrote, over all its starts.
    pub(crate) fn log(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(&self.0.log).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
