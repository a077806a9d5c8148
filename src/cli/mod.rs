//! The command line: one file for each thing that `laurel` can do.
//!
//! ```text
//! crds      the custom resource definitions as YAML
//! check     manifests, judged without a cluster
//! compare   versions of a model side by side
//! best      the version that a follower would choose
//! files     the manifests that -f names
//! history   what was live when, from the registry
//! registry  how a question for the registry reaches it, shared by those that ask one
//! table     how an answer is laid out for a person
//! ```
//!
//! A command that asks something ends with one of the exit codes of [`ExitStatus`].
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
mod files;
pub mod history;
pub mod registry;
mod table;

pub use self::{
    best::BestOptions, check::CheckOptions, compare::CompareOptions, crds::CrdsOptions, history::HistoryArgs,
    registry::RegistryArgs, table::table,
};

/// Promotes and rolls back machine-learning models on Kubernetes, true to a model registry.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `laurel` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunOptions>),
    /// Print the custom resource definitions as YAML, ready for `kubectl apply --server-side -f -`.
    Crds(CrdsOptions),
    /// Check manifests without a cluster, as the API server would; with a registry, also the promotion rules.
    Check(CheckOptions),
    /// Show versions of a model side by side: metrics, aliases, and the tags that differ.
    Compare(CompareOptions),
    /// Name the best version of a model by a metric: the one that a follower `best` would choose.
    Best(BestOptions),
    /// Tell what was live when, who asked for it and why, from the tags in the registry.
    #[command(after_help = history::EXIT_CODES)]
    History(HistoryArgs),
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for a person.
    #[default]
    Text,
    /// One JSON document for a program.
    Json,
}

/// How a command that asks something ended, which is the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: there is an answer, and nothing is wrong.
    Good,
    /// 1: there is an answer, and it is that there is nothing, or that something is wrong.
    Bad,
    /// 2: it could not be asked: wrong arguments, a registry that is away, a file that cannot be read.
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

/// Why a command has no answer: one sentence for a person, without a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CliError(pub String);

impl CliError {
    /// From anything that can say what is wrong.
    pub fn because(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}
