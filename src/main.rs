//! The `laurel` binary.

use std::{io::stdout, process::ExitCode};

use clap::Parser;
use laurel::{
    cli::{Cli, Command, Ending, RunOptions, Unanswered, print_crds},
    controllers, telemetry,
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crds => ended(print_crds(stdout().lock()).map_err(|error| error.to_string())),
        Command::Run(options) => {
            telemetry::logs::init(options.log_format);
            ended(run(options))
        }
        Command::Check(options) => answered(options.run(stdout().lock())),
        Command::Compare(options) => answered(options.run(stdout().lock())),
        Command::Best(options) => answered(options.run(stdout().lock())),
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "laurel cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the answer to a question; its exit code says how it ended.
#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "a question on the command line is answered there")]
async fn answered(answer: impl Future<Output = Result<Ending, Unanswered>>) -> ExitCode {
    install_tls();
    let ending = answer.await.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        Ending::Unanswered
    });
    ending.into()
}

#[tokio::main]
async fn run(options: RunOptions) -> Result<(), String> {
    install_tls();
    controllers::run(options).await.map_err(|error| error.to_string())
}

/// ring is the one TLS provider. Nobody can have installed another one before.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
