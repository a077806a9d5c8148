//! The `laurel` binary.

use std::process::ExitCode;

use clap::Parser;
use laurel::{
    cli::{Cli, Command, print_crds},
    controllers, telemetry,
};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Crds => print_crds(std::io::stdout().lock()).map_err(|error| error.to_string()),
        Command::Run(options) => {
            telemetry::logs::init(options.log_format);
            run(*options)
        }
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
async fn run(options: laurel::cli::RunOptions) -> Result<(), String> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider was installed already".to_owned())?;
    controllers::run(options).await.map_err(|error| error.to_string())
}
