//! The command line: one file for each command of `laurel`.
//!
//! ```text
//! crds        the custom resource definitions as YAML
//! check       manifests, validated without a cluster
//! compare     versions of a model side by side
//! best        the version that a follower would choose
//! files       the manifests given with -f
//! history     what was live when, from the registry
//! experiment  what an experiment found so far, from the cluster
//! registry    the connection to the registry, shared by the commands that query it
//! table       prints tables for people
//! ```
//!
//! A query ends with one of the exit codes of [`ExitStatus`].
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: reads files and asks registries"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::options::RunOptions;

mod best;
mod check;
mod compare;
mod crds;
pub mod experiment;
mod files;
pub mod history;
pub mod registry;
mod table;

pub use self::{
    best::BestOptions, check::CheckOptions, compare::CompareOptions, crds::CrdsOptions,
    experiment::ExperimentOptions, history::HistoryArgs, registry::RegistryArgs,
};

/// Promotes and rolls back machine-learning models on Kubernetes, in sync with a model registry.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `laurel`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunOptions>),
    /// Print the custom resource definitions as YAML, ready for `kubectl apply --server-side -f -`.
    Crds(CrdsOptions),
    /// Check manifests without a cluster, like the API server; with a registry, also check the promotion
    /// rules.
    Check(CheckOptions),
    /// Compare versions of a model: metrics, aliases, and the tags that differ.
    Compare(CompareOptions),
    /// Find the best version of a model by a metric: the one that `follow.best` would choose.
    Best(BestOptions),
    /// Show what was live when, who requested it and why, from the tags in the registry.
    #[command(after_help = history::EXIT_CODES)]
    History(HistoryArgs),
    /// Show what an experiment found so far: differences, intervals, verdicts, and a picture of them over
    /// time.
    Experiment(ExperimentOptions),
}

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text and tables for people.
    #[default]
    Text,
    /// One JSON document for programs.
    Json,
}

/// The result of a query, which is the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: success.
    Good,
    /// 1: the query succeeded, but found nothing, or found something wrong.
    Bad,
    /// 2: the query failed: wrong arguments, an unreachable registry, an unreadable file.
    CliError,
}

impl From<ExitStatus> for ExitCode {
    fn from(exit_status: ExitStatus) -> Self {
        match exit_status {
            ExitStatus::Good => Self::SUCCESS,
            ExitStatus::Bad => Self::from(1),
            ExitStatus::CliError => Self::from(2),
        }
    }
}

/// Why a command failed: a message for people, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CliError(pub String);

impl CliError {
    /// Creates an error from anything with a message.
    pub fn because(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}
