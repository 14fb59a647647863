//! The project's chores: `cargo xtask test` and the others, so that nobody needs to remember them.

mod clients;
mod counts;
mod crash;
mod engines;
mod environment;
mod fuzz;
mod gateway;
mod models;
mod mutants;
mod planted;
mod python;
mod run;
mod sanitize;
mod servers;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// All tests, as CI runs them: format, lints, docs, tests, models, proofs, a short fuzzing.
    Test {
        /// Only these steps, by the names that are printed
        #[arg(value_name = "STEP")]
        only: Vec<String>,
    },
    /// Compares every hot path with peers and with what the machine allows, in one table; or the gateway
    /// with nginx and LiteLLM (`bench gateway`); or leases and scripts on a Redis with plain scripts (`bench
    /// redis`, with the seconds for each).
    #[command(disable_help_flag = true)]
    Bench {
        /// What the comparison takes: see `cargo xtask bench --help` and `cargo xtask bench gateway --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Counts the instructions of each hot path, and compares with benches/counts.toml.
    Counts {
        /// Writes the record anew
        #[arg(long)]
        record: bool,
    },
    /// Kills processes that share a file: at random, and at every instruction of every operation.
    Crash {
        /// How many are killed at random, for each algorithm and kind of call
        #[arg(long, default_value_t = 1_000)]
        kills: u32,
    },
    /// Fuzzes for long: each target, or one, for so many seconds.
    Fuzz {
        /// The target [default: all, one after the other]
        target: Option<String>,
        /// How long each
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Changes the core at random, one place at a time, and lists the changes that no test notices.
    Mutants {
        /// One part of so many, such as `0/8` [default: all, about three hours]
        shard: Option<String>,
    },
    /// Plants known bugs in a copy of the code, one at a time, and counts those that are caught.
    Planted {
        /// Only those whose reason or file contains one of these [default: all, an hour or more]
        only: Vec<String>,
    },
    /// Simulates a thousand nodes that lease units of a million keys: round trips, stranded units, fairness.
    #[command(disable_help_flag = true)]
    Simulate {
        /// `--plot FILE.svg` draws it; `--nodes`, `--calls` (a second), `--seed` and `--seconds` (the longest that
        /// it may take) are numbers
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Tests shared memory under AddressSanitizer, and threads under ThreadSanitizer where that can judge.
    Sanitize,
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Test { only } => test::all(&only),
        Chore::Mutants { shard } => mutants::all(shard.as_deref()),
        Chore::Planted { only } => planted::plant_all(&only),
        Chore::Sanitize => sanitize::all(),
        Chore::Simulate { arguments } => run::quietly(
            "cargo run --quiet --profile quick --package tidegate-redis --features simulation --example \
             simulate --",
            &arguments,
        ),
        Chore::Bench { arguments } => bench(&arguments),
        Chore::Crash { kills } => crash::all(kills),
        Chore::Counts { record } => counts::all(record),
        Chore::Fuzz { target, seconds } => fuzz::long(target.as_deref(), seconds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Result<(), run::Failure> {
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("gateway", rest)) => return gateway::bench(rest),
        Some(("redis", rest)) => {
            servers::ready()?;
            return run::quietly(
                "cargo run --quiet --profile quick --package tidegate-redis --example throughput --",
                rest,
            );
        }
        _ => {}
    }
    // Quietly: with --json, the list is all that is printed.
    run::quietly(
        "cargo run --quiet --release --package tidegate-benches --bin compare --",
        arguments,
    )
}
