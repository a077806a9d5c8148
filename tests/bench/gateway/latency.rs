//! Predictions of the same model with connections closed after each answer (`keepAlive: Disabled`, the
//! default) and with connections kept, by the Service and through the Gateway, in turns.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::{
    harness::{Harness, milliseconds},
    support::{
        load::{Load, Plan, Report, Request, quantile},
        service::Way,
    },
    table::Table,
};

const TURNS: usize = 9;
const TURN: Duration = Duration::from_secs(5);

/// Predictions per second, over connections that are kept where the server allows it.
const PER_SECOND: u32 = 50;

/// One way to one model server.
struct Kind {
    way: Way,
    keep_alive: &'static str,
    by: &'static str,
    reports: Vec<Report>,
}

/// Measures and prints.
pub(crate) async fn run(harness: &Harness) -> Result<()> {
    let request = harness.prediction().await?;
    let mut kinds = Vec::new();
    for (name, keep_alive) in [("closed", "Disabled"), ("kept", "Enabled")] {
        harness.serve(name, keep_alive, true).await?;
        for (by, way) in
            [("the Service", harness.inside(name).await?), ("the Gateway", harness.outside(name).await?)]
        {
            kinds.push(Kind { way, keep_alive, by, reports: Vec::new() });
        }
    }
    for _ in 0..TURNS {
        for kind in &mut kinds {
            kind.reports.push(turn(&kind.way, &request).await);
        }
    }
    println!(
        "\n{PER_SECOND} predictions a second by clients that keep connections, {TURNS} turns of {TURN:?} each."
    );
    println!("Latency in ms, medians of the turns:\n");
    let mut table = Table::new(["KEEPALIVE", "BY", "P50", "P99", "REQUESTS", "LOST"]);
    for kind in &kinds {
        let report = Report::of_all(kind.reports.clone());
        let at = |share| median(&kind.reports, share).context("a turn without answers");
        let in_ms = |share| Ok::<_, anyhow::Error>(format!("{:.1}", milliseconds(at(share)?)));
        table.row([
            kind.keep_alive.to_owned(),
            kind.by.to_owned(),
            in_ms(0.5)?,
            in_ms(0.99)?,
            report.sent().to_string(),
            report.lost().to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// The median over the turns of the latency within which `share` of a turn's requests were answered: a stall
/// of the machine during one turn does not count.
fn median(turns: &[Report], share: f64) -> Option<Duration> {
    let latencies: Option<Vec<Duration>> = turns.iter().map(|turn| turn.latency(share)).collect();
    quantile(latencies?, 0.5)
}

async fn turn(way: &Way, request: &Request) -> Report {
    let plan = Plan { fresh_per_second: 0, ..Plan::both(PER_SECOND, TURN) };
    let load = Load::start(&way.target, request, plan);
    sleep(TURN).await;
    load.stop().await
}
