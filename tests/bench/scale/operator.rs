//! The operator as a process: what it takes of the machine, and what it says of itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    cpu,
    simulated::{
        machine::{self, free_port},
        process::Process,
    },
    site::SYSTEM,
};

/// Time limit to become ready.
const START: Duration = Duration::from_mins(2);

/// Time limit to exit when terminated.
const END: Duration = Duration::from_secs(30);

/// How long the counters must stand still.
const QUIET: Duration = Duration::from_secs(3);

/// An operator that may run.
pub(crate) struct Operator {
    program: PathBuf,
    kubeconfig: PathBuf,
    address: String,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Operator {
    /// Creates one with the permissions of a kubeconfig: of `program`, or of what was built with this benchmark. It
    /// is not running yet.
    pub(crate) fn new(folder: &Path, program: Option<PathBuf>, kubeconfig: PathBuf) -> Result<Self> {
        Ok(Self {
            program: program.map_or_else(|| machine::operator(folder), Ok)?,
            kubeconfig,
            address: format!("127.0.0.1:{}", free_port()?),
            log: folder.join("operator.log"),
            process: Mutex::default(),
        })
    }

    /// Starts it as the chart does, with a Lease, and waits until it is ready. Returns when it was started.
    pub(crate) async fn start(&self) -> Result<Instant> {
        let mut operator = Command::new(&self.program);
        operator.args(["run", "--http-address", &self.address]);
        operator.env("KUBECONFIG", &self.kubeconfig);
        operator.env("LAUREL_LEASE_NAMESPACE", SYSTEM).env("POD_NAME", "laurel-0");
        let began = Instant::now();
        *self.process.lock() = Some(Process::start(&mut operator, &self.log)?);
        while self.get("readyz").await.is_err() {
            ensure!(began.elapsed() < START, "no operator; see {}", self.log.display());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(began)
    }

    /// Starts it while there is nothing to do. Returns its memory in bytes.
    pub(crate) async fn start_empty(&self) -> Result<u64> {
        self.start().await?;
        self.until_quiet().await?;
        self.memory()
    }

    /// Terminates it as the kubelet does, if it is running.
    pub(crate) async fn stop(&self) -> Result<()> {
        let Some(process) = self.process.lock().take() else { return Ok(()) };
        let status = process.terminate(END).await?;
        ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }

    /// Waits until its counters of reconciles stand still. Returns when they last changed.
    pub(crate) async fn until_quiet(&self) -> Result<Instant> {
        let mut last = (self.reconciles().await?, Instant::now());
        while last.1.elapsed() < QUIET {
            sleep(Duration::from_millis(50)).await;
            let now = self.reconciles().await?;
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        Ok(last.1)
    }

    async fn reconciles(&self) -> Result<u64> {
        Ok(self.count("laurel_reconciles_total{kind=\"ModelAlias\"").await?
            + self.count("laurel_reconciles_total{kind=\"RegisteredModel\"").await?)
    }

    /// Returns how often registries were polled with success.
    pub(crate) async fn polls(&self) -> Result<u64> {
        self.count("laurel_registry_polls_total{outcome=\"answered\"").await
    }

    /// Returns the sum of all counters whose lines begin so.
    async fn count(&self, prefix: &str) -> Result<u64> {
        let text = self.get("metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| Ok(line.rsplit(' ').next().context("no value")?.parse::<u64>()?)).sum()
    }

    async fn get(&self, path: &str) -> Result<String> {
        let answer = reqwest::get(format!("http://{}/{path}", self.address)).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    fn pid(&self) -> Result<u32> {
        self.process.lock().as_ref().context("the operator is not running")?.program_id()
    }

    /// Returns its resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(1024 * line.trim().trim_end_matches(" kB").parse::<u64>()?)
    }

    /// Returns the CPU time that it has used since it was started; none if it is not running.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        if self.process.lock().is_none() {
            return Ok(Duration::ZERO);
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        Ok(stat.parse::<cpu::Process>()?.cpu)
    }
}
