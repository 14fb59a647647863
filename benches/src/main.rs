//! `cargo xtask bench`: ours, the peers and the floor, in turns.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tidegate_benches::measure::Effort;
use tidegate_benches::memory::Scales;
use tidegate_benches::paths::TOPICS;
use tidegate_benches::plot;
use tidegate_benches::report::HEAD;

#[global_allocator]
static ALLOCATOR: Scales = Scales;

/// Compares every path with the strongest peers and with the bare operations, in the same run.
///
/// Figures are medians. Absolute times hold for this machine and this run; look at the ratios.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    after_help = "Examples:\n  \
    cargo xtask bench                 everything, some minutes, 3 GiB of memory\n  \
    cargo xtask bench --quick lone    a quick look at the topics with `lone` in their names\n  \
    cargo xtask bench --json > bench.json"
)]
struct Cli {
    /// Only topics whose names contain this
    only: Option<String>,
    /// Fewer and shorter rounds: seconds instead of minutes, with more noise
    #[arg(long)]
    quick: bool,
    /// A list of objects instead of a table
    #[arg(long)]
    json: bool,
    /// Draws the keyed paths, by keys and threads, into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let only = cli.only.as_deref().unwrap_or_default();
    let topics: Vec<_> = TOPICS.iter().filter(|(name, _)| name.contains(only)).collect();
    if topics.is_empty() {
        let names: Vec<_> = TOPICS.iter().map(|(name, _)| *name).collect();
        eprintln!("error: no topic contains `{only}`; the topics are: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let effort = if cli.quick { Effort::QUICK } else { Effort::FULL };
    let shows_progress = std::io::stderr().is_terminal();
    let mut all = Vec::new();
    if !cli.json {
        println!("{HEAD}");
    }
    for (name, rows) in topics {
        if shows_progress {
            eprint!("measuring: {name} ...\r");
        }
        let rows = rows(effort);
        if !cli.json {
            rows.iter().for_each(|row| println!("{row}"));
            let _ = std::io::stdout().flush();
        }
        all.extend(rows);
    }
    if let Some(file) = &cli.plot
        && let Err(error) = plot::draw(&all, file)
    {
        eprintln!("error: cannot draw {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if cli.json {
        match serde_json::to_string_pretty(&all) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
