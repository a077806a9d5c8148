//! A restart, and a while in which nothing changes.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::site::{Site, writes};

/// How long nothing changes: two polls of the registry.
const REST: Duration = Duration::from_secs(65);

/// A poll of the registry, and a little more.
const SETTLED: Duration = Duration::from_secs(40);

/// What a restart took.
pub(crate) struct Restart {
    /// From the start of the process until it reconciles nothing more.
    pub(crate) took: Duration,
    /// What it wrote to the API server.
    pub(crate) writes: usize,
    /// The memory afterwards, in bytes.
    pub(crate) memory: u64,
}

/// What the operator does while nothing changes.
pub(crate) struct Rest {
    /// The share of one core.
    pub(crate) cpu: f64,
    /// What it wrote to the API server.
    pub(crate) writes: usize,
    /// The requests that the registry answered.
    pub(crate) registry_requests: usize,
    pub(crate) polls: u64,
}

/// Waits until nothing is written for longer than a poll takes to come: what it finds may have to be written, too.
async fn settled(site: &Site) -> Result<()> {
    println!("Laurel: waiting until it writes nothing for {} s", SETTLED.as_secs());
    let began = Instant::now();
    let mut written = writes()?;
    loop {
        sleep(SETTLED).await; // Time itself is what is waited for.
        let now = writes()?;
        if now == written {
            return Ok(());
        }
        ensure!(began.elapsed() < site.options.patience(), "it does not come to rest");
        written = now;
    }
}

/// Ends the operator and starts it again, while all is as desired.
pub(crate) async fn restart(site: &Site) -> Result<Restart> {
    settled(site).await?;
    println!("Laurel: a restart");
    site.operator.stop().await?;
    let before = writes()?;
    let began = site.operator.start().await?;
    println!("  ready after {:.1} s", began.elapsed().as_secs_f64());
    let took = site.operator.until_quiet().await? - began;
    println!("Laurel: {:.1} s", took.as_secs_f64());
    Ok(Restart { took, writes: writes()? - before, memory: site.operator.memory()? })
}

/// Watches the operator for a while.
pub(crate) async fn at_rest(site: &Site) -> Result<Rest> {
    println!("Laurel: {} s at rest", REST.as_secs());
    let written = writes()?;
    let (requests, polls) = (site.registry_requests()?, site.operator.polls().await?);
    let (cpu, began) = (site.operator.cpu()?, Instant::now());
    sleep(REST).await; // Time itself is measured.
    let cpu = site.operator.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok(Rest {
        cpu,
        writes: writes()? - written,
        registry_requests: site.registry_requests()? - requests,
        polls: site.operator.polls().await? - polls,
    })
}
