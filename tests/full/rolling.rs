//! The strategy for clusters without room for two versions.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, run},
    support::pods::Count,
};

const REPLICAS: usize = 2;
const MAX_SURGE: usize = 1;

#[test]
fn rolling_stays_within_its_bounds_and_loses_no_request() {
    run("rolling", 3, async |fixture| {
        fixture.good_versions(2).await?;
        fixture.get(desired("1")).await?;
        let clients = fixture.clients().await?;
        for (from, to) in [("1", "2"), ("2", "1")] {
            let before = Instant::now();
            let change = fixture.get(desired(to)).await?;
            clients.move_to(change, from, to).await?;
            check(fixture, before)?;
        }
        clients.leave().await.map(drop)
    });
}

fn desired(version: &str) -> serde_json::Value {
    json!({
        "version": version,
        "serving": { "replicas": REPLICAS },
        "rollout": { "strategy": "Rolling", "maxSurge": MAX_SURGE },
    })
}

fn check(fixture: &Fixture, since: Instant) -> Result<()> {
    let counts = fixture.pods.counts_since(since);
    let wrong: Vec<&Count> = counts
        .iter()
        .filter(|count| count.existing > REPLICAS + MAX_SURGE || count.ready < REPLICAS)
        .collect();
    ensure!(wrong.is_empty(), "{wrong:?} of {} counts", counts.len());
    Ok(())
}
