//! CPU time of processes on this machine. Unlike the time on the clock it hardly depends on what else runs.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::site::Site;

/// The control plane, as the kernel names its processes: cut after 15 characters.
const CONTROL_PLANE: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kwok"];

/// CPU times since the processes were started.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) control_plane: Duration,
    pub(crate) registry: Duration,
    pub(crate) operator: Duration,
}

impl Usage {
    /// Returns the usage so far.
    pub(crate) fn now(site: &Site) -> Result<Self> {
        let registry = site.mlflow.process_group();
        let mut usage =
            Self { control_plane: Duration::ZERO, registry: Duration::ZERO, operator: Duration::ZERO };
        for entry in fs::read_dir("/proc")? {
            // Most entries are not processes, and a process may end in the meantime.
            let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
            let Ok(process) = stat.parse::<Process>() else { continue };
            if CONTROL_PLANE.contains(&process.name.as_str()) {
                usage.control_plane += process.cpu;
            } else if Some(process.group) == registry {
                usage.registry += process.cpu;
            }
        }
        usage.operator = site.operator.cpu()?;
        Ok(usage)
    }

    /// Returns what was used since an earlier time. An operator that was restarted in between used all of it.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            control_plane: self.control_plane.saturating_sub(before.control_plane),
            registry: self.registry.saturating_sub(before.registry),
            operator: self.operator.checked_sub(before.operator).unwrap_or(self.operator),
        }
    }
}

/// A process in `/proc`.
pub(crate) struct Process {
    name: String,
    group: u32,
    pub(crate) cpu: Duration,
}

impl std::str::FromStr for Process {
    type Err = anyhow::Error;

    fn from_str(stat: &str) -> Result<Self> {
        // The name in brackets may contain anything; the fields after it are numbered from 3.
        let (name, fields) = stat.rsplit_once(") ").context("no name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).context("too short");
        // Linux counts in hundredths of a second here.
        let ticks = field(14)?.parse::<u64>()? + field(15)?.parse::<u64>()?;
        Ok(Self {
            name: name.split_once('(').context("no name")?.1.to_owned(),
            group: field(5)?.parse()?,
            cpu: Duration::from_millis(10 * ticks),
        })
    }
}

/// What something took.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// On the clock.
    pub(crate) took: Duration,
    pub(crate) cpu: Usage,
}
