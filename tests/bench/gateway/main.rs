//! What a Gateway in front of a model costs, and what Laurel adds to the same done by hand.
//!
//! `make bench-gateway` runs it. It needs the cluster of `make demo GATEWAY=1`, prints figures and ratios,
//! and asserts nothing. What is compared is measured in turns, so that a busy machine affects all of it
//! equally.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_types, reason = "effects: runs against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "effects: a turn lasts as long as it lasts")]

mod harness;
mod latency;
mod moves;
#[path = "../../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use the rest")]
mod support;
#[path = "../../demo/table.rs"]
mod table;

use anyhow::Result;

#[tokio::main]
async fn main() -> Result<()> {
    let harness = harness::Harness::create().await?;
    moves::run(&harness).await?;
    latency::run(&harness).await?;
    harness.clean_up().await
}
