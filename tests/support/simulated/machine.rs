//! This machine: the checkout, free ports, which tests may run at the same time, the CRDs in the cluster.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::spawn_blocking};

use crate::support::cluster::Cluster;

/// The runtime of all tests: clients and watches run on it.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// The checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Which tests may run at the same time on the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// No others: an operator for all namespaces is running.
    Alone,
    /// Others whose operators are restricted to their own namespaces.
    Shared,
}

/// Waits until these tests may run; they may as long as the file is held.
pub(crate) async fn admitted(company: Company) -> Result<File> {
    let lock = File::create(repository().join(".cluster/api/control-plane-tests.lock"))?;
    let wait = move || match company {
        Company::Alone => lock.lock().map(|()| lock),
        Company::Shared => lock.lock_shared().map(|()| lock),
    };
    Ok(spawn_blocking(wait).await??)
}

/// Installs the CRDs of the checkout, and waits until they are served.
pub(crate) async fn install_crds(cluster: &Cluster) -> Result<()> {
    let crds = repository().join("crds");
    let crds = crds.to_str().context("the path of the checkout is not UTF-8")?;
    cluster.run_kubectl(&["apply", "--server-side", "--force-conflicts", "-k", crds], None).await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=30s", "crd"];
    let kinds =
        ["modelregistries", "clustermodelregistries", "registeredmodels", "modelaliases", "modelexperiments"];
    let names = kinds.map(|kind| format!("{kind}.laurel.dev"));
    let names = names.each_ref().map(String::as_str);
    cluster.run_kubectl(&[&wait[..], &names[..]].concat(), None).await.map(drop)
}

/// Installs the CRDs of the Gateway API, as most clusters have them, and waits until they are served.
pub(crate) fn install_gateway_api() -> Result<()> {
    let program = repository().join("tests/rig/rig");
    let output = Command::new(program).args(["gateway-crds", "api"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes the rig's kubeconfig with the token of a service account.
pub(crate) fn kubeconfig(cluster: &Cluster, token: &str, path: &Path) -> Result<()> {
    let administrator = cluster.kubeconfig().context("the rig has a kubeconfig")?;
    let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(administrator)?)?;
    for user in config["users"].as_array_mut().context("a kubeconfig without users")? {
        user["user"] = json!({ "token": token });
    }
    Ok(std::fs::write(path, config.to_string())?)
}

/// The operator binary as it was when the run began, unaffected by later builds.
pub(crate) fn operator(folder: &Path) -> Result<PathBuf> {
    let (built, kept) = (env!("CARGO_BIN_EXE_laurel"), folder.join("laurel"));
    std::fs::hard_link(built, &kept).or_else(|_| std::fs::copy(built, &kept).map(drop))?;
    Ok(kept)
}

/// Returns a free port. It is below the ephemeral range, so that no outgoing connection takes it first, and
/// is returned only once.
pub(crate) fn free_port() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        // Concurrent runs start at different ports.
        let place = std::process::id().wrapping_mul(997) % u32::from(COUNT);
        AtomicU16::new(u16::try_from(place).unwrap_or_default())
    });
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}
