//! The gateway: layered limits and LLM budgets in front of an API, with one command.

mod address;
mod cli;
mod config;
mod inspect;
mod state;

mod banner;
mod server;

mod answer;
mod gateway;
mod identity;
mod llm;

mod demo;
mod upstream;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Bad arguments and bad configuration, as clap has it too.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if cli.print_config {
        let written = std::io::stdout().write_all(config::DEFAULT.as_bytes());
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(cli::Command::Inspect(inspect)) = &cli.command {
        return show(inspect.run());
    }
    let config = match cli.config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    init_log();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(server::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was found, and fails when it is not sound.
fn show(findings: Result<inspect::Findings, tidegate::SharedFileError>) -> ExitCode {
    match findings {
        Ok(findings) => {
            let written = std::io::stdout().write_all(findings.text.as_bytes());
            if written.is_ok() && findings.is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Logs to stderr, at the level that `RUST_LOG` says (by default, `info`).
fn init_log() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;

    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
