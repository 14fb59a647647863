//! The gateway: layered limits and LLM budgets in front of an API, with one command.

mod address;
mod check;
mod cli;
mod config;
mod inspect;
mod keys;
mod state;
mod tasks;

mod banner;
mod connection;
mod lanes;
mod live;
mod log;
mod metrics;
mod reload;
mod server;
mod traces;

mod admin;

mod answer;
mod client;
mod gateway;
mod identity;
mod llm;
mod prices;

mod demo;
mod idle;
mod providers;
mod upstream;
mod whole_file;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// A call allocates some dozens of times, much of it buffers of one size. It asks for no large pages, which
/// would take half as much memory again for open streams.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bad arguments and bad configuration, as clap has it too.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if cli.print_config {
        let written = std::io::stdout().write_all(config::DEFAULT.as_bytes());
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match &cli.command {
        Some(cli::Command::Check(check)) => return check.run(),
        Some(cli::Command::Inspect(inspect)) => return show(inspect.run()),
        Some(cli::Command::Keys(keys)) => return done(keys.run()),
        None => {}
    }
    let started = cli.origin().and_then(|origin| Ok((origin.config(None)?, origin)));
    let (config, origin) = match started {
        Ok(started) => started,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    log::init(config.operation.log);
    if let (Some(file), None) = (&origin.file, &config.providers.main) {
        tracing::warn!("{} has no [upstream], so the demo API stands in its place", file.display());
    }
    // Calls have runtimes of their own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let sending = config.operation.traces.as_ref().map(|traces| traces.start(runtime.handle()));
    if let Some(Err(error)) = &sending {
        tracing::warn!("there are no traces: {error}");
    }
    match runtime.block_on(server::run(config, origin)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a command did what it should.
fn done(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_USAGE)
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
