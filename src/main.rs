//! The `laurel` binary.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use clap::Parser;
use laurel::{
    cli::{Cli, CliError, Command, ExitStatus, history::history},
    controllers, telemetry,
};

/// How it behaves is set in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Crds(options) => return finish(options.run(stdout().lock())),
        Command::Run(options) => {
            telemetry::logs::init(options.log_format);
            run(*options)
        }
        Command::Check(options) => return ask(options.run(stdout().lock())),
        Command::Compare(options) => return ask(options.run(stdout().lock())),
        Command::Best(options) => return ask(options.run(stdout().lock())),
        Command::History(args) => return ask(history(&args, stdout().lock())),
        Command::Experiment(options) => return ask(options.run(stdout().lock())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "laurel cannot run");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(options: laurel::options::RunOptions) -> Result<(), String> {
    install_tls()?;
    controllers::run(options).await.map_err(|error| error.to_string())
}

/// Runs a command that queries a registry.
#[tokio::main(flavor = "current_thread")]
async fn ask(question: impl Future<Output = Result<ExitStatus, CliError>>) -> ExitCode {
    finish(match install_tls() {
        Ok(()) => question.await,
        Err(error) => Err(CliError(error)),
    })
}

/// Maps the result to an exit code; an error is written to standard error.
fn finish(answer: Result<ExitStatus, CliError>) -> ExitCode {
    let exit_status = answer.unwrap_or_else(|why| {
        // If standard error is closed, the exit code has to do.
        let _ = writeln!(stderr(), "error: {why}");
        ExitStatus::CliError
    });
    exit_status.into()
}

fn install_tls() -> Result<(), String> {
    let installed = rustls::crypto::ring::default_provider().install_default();
    installed.map_err(|_| "a TLS provider was installed already".to_owned())
}
