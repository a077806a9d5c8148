//! The rows.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};

use crate::{
    Options,
    cpu::Cost,
    laurel::Storm,
    load,
    rest::{Rest, Restart},
    rollback::Turns,
    support::load::quantile,
};

/// What was measured, beside the same by hand.
pub(crate) struct Table {
    options: Options,
    rows: Vec<Row>,
    loads: Vec<f64>,
}

struct Row {
    what: String,
    by_hand: String,
    laurel: String,
    ratio: String,
    goal: &'static str,
}

impl Table {
    pub(crate) fn new(options: Options) -> Result<Self> {
        Ok(Self { options, rows: Vec::new(), loads: vec![load()?] })
    }

    fn add(&mut self, what: impl Into<String>, laurel: String, goal: &'static str) {
        let (by_hand, ratio) = (String::new(), String::new());
        self.rows.push(Row { what: what.into(), by_hand, laurel, ratio, goal });
    }

    fn beside(
        &mut self,
        what: impl Into<String>,
        (by_hand, laurel): (Duration, Duration),
        format: impl Fn(Duration) -> String,
        goal: &'static str,
    ) {
        let ratio = format!("{:.2}", laurel.as_secs_f64() / by_hand.as_secs_f64());
        self.rows.push(Row {
            what: what.into(),
            by_hand: format(by_hand),
            laurel: format(laurel),
            ratio,
            goal,
        });
    }

    pub(crate) fn storm(&mut self, by_hand: &Cost, storm: &Storm) {
        let all = self.options.aliases;
        let took = (by_hand.took, storm.serve.took);
        self.beside(format!("{all} created → all serve"), took, seconds, "≤ 1.3 × by hand");
        self.add("  → all Ready, in the registry as well", seconds(storm.ready), "");
        self.cpu(by_hand, &storm.serve);
    }

    pub(crate) fn promotions(&mut self, by_hand: &Cost, laurel: &Cost) {
        let half = self.options.models();
        let what = format!("{half} promotions at once → all Services moved");
        self.beside(what, (by_hand.took, laurel.took), seconds, "≤ 1.3 × by hand");
        self.cpu(by_hand, laurel);
    }

    fn cpu(&mut self, by_hand: &Cost, laurel: &Cost) {
        let control_plane = (by_hand.cpu.control_plane, laurel.cpu.control_plane);
        self.beside("  CPU time of the control plane", control_plane, seconds, "");
        self.add("  CPU time of the registry", seconds(laurel.cpu.registry), "");
        self.add("  CPU time of the operator", seconds(laurel.cpu.operator), "");
    }

    pub(crate) fn memory(&mut self, empty: u64, storm: &Storm, restart: &Restart) {
        self.add("memory of the empty process", megabytes(empty), "");
        for (when, memory, goals) in [
            ("after the creation", storm.memory, ["", ""]),
            ("after a restart", restart.memory, ["≤ 10 KB", "≤ 120 MB at 10,000"]),
        ] {
            let each = memory.saturating_sub(empty) / self.options.aliases as u64;
            self.add(format!("memory per ModelAlias, {when}"), kilobytes(each), goals[0]);
            self.add(format!("memory of the process, {when}"), megabytes(memory), goals[1]);
        }
    }

    pub(crate) fn restart(&mut self, restart: &Restart) {
        self.add("restart → quiet", seconds(restart.took), "≤ 2 s at 2,000, ≤ 10 s at 10,000");
        self.add("  writes to the API server", restart.writes.to_string(), "0");
    }

    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    pub(crate) fn rest(&mut self, rest: &Rest) {
        self.add("at rest: CPU of a core", format!("{:.2} %", rest.cpu * 100.0), "< 1 % at 10,000");
        self.add("  writes to the API server", rest.writes.to_string(), "0");
        let hundreds = self.options.models() as f64 / 100.0;
        let requests = rest.registry_requests as f64 / rest.polls as f64 / hundreds;
        self.add("  registry requests per 100 models and poll", format!("{requests:.2}"), "≤ 1");
    }

    pub(crate) fn rollbacks(&mut self, what: &str, turns: &Turns) -> Result<()> {
        for (share, name, goal) in [(0.5, "p50", "≤ 1.5 × by hand"), (0.99, "p99", ""), (1.0, "max", "")] {
            let at = |times: &[Duration]| quantile(times.to_vec(), share).context("no turns");
            let both = (at(&turns.by_hand)?, at(&turns.laurel)?);
            self.beside(format!("{what}, {name}"), both, milliseconds, goal);
        }
        if let (Some(least), Some(most)) = (turns.waiting.iter().min(), turns.waiting.iter().max()) {
            self.add("  ModelAliases that waited for it", format!("{least} to {most}"), "");
        }
        Ok(())
    }

    /// Everything is measured.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.loads.push(load()?);
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1_000.0)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory, rounded")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory, rounded")]
fn kilobytes(bytes: u64) -> String {
    format!("{:.1} KB", bytes as f64 / 1e3)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let (aliases, models) = (self.options.aliases, self.options.models());
        writeln!(f, "{aliases} ModelAliases of {models} models; {cores} cores, load {:.1?}", self.loads)?;
        writeln!(f, "{:50}{:>12}{:>14}{:>8}  wanted", "", "by hand", "Laurel", "ratio")?;
        for Row { what, by_hand, laurel, ratio, goal } in &self.rows {
            writeln!(f, "{what:50}{by_hand:>12}{laurel:>14}{ratio:>8}  {goal}")?;
        }
        Ok(())
    }
}
