//! This machine: the checkout, free ports, who may run beside whom, the CRDs in the cluster.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use tokio::{runtime::Runtime, task::spawn_blocking};

use crate::support::cluster::Cluster;

/// The one runtime of all tests: clients and watches live on it.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// The checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Who may run at the same time on the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nobody else: an operator that takes all namespaces in hand runs.
    Alone,
    /// Others whose operators keep to namespaces of their own.
    Shared,
}

/// Waits until these tests may run; as long as the file is held, they may.
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
    let crds = crds.to_str().context("the path of the checkout is no text")?;
    cluster.run_kubectl(&["apply", "--server-side", "--force-conflicts", "-k", crds], None).await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=30s", "crd"];
    let kinds = ["modelregistries", "clustermodelregistries", "registeredmodels", "modelaliases"];
    let names = kinds.map(|kind| format!("{kind}.laurel.dev"));
    let names = names.each_ref().map(String::as_str);
    cluster.run_kubectl(&[&wait[..], &names[..]].concat(), None).await.map(drop)
}

/// The operator as it was when the run began: a build meanwhile changes nothing for it.
pub(crate) fn operator(folder: &Path) -> Result<PathBuf> {
    let (built, kept) = (env!("CARGO_BIN_EXE_laurel"), folder.join("laurel"));
    std::fs::hard_link(built, &kept).or_else(|_| std::fs::copy(built, &kept).map(drop))?;
    Ok(kept)
}

/// A port that nobody listens on. It lies below the ports that outgoing connections are given, so that none
/// of those takes it before it is used, and this process gives it out once.
pub(crate) fn free_port() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        // Runs side by side begin at different places.
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
