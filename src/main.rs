//! The `laurel` binary.

use std::process::ExitCode;

use clap::Parser;
use laurel::cli::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crds => laurel::cli::print_crds(std::io::stdout().lock())
            .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Command::Run(_) => ExitCode::FAILURE,
    }
}
