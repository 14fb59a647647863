//! Kills a process at every instruction of every operation on a shared file, and lets a survivor go on.
//!
//! ```text
//! crash (this program) ── starts ──> victim (the same program): one operation, stepped, killed
//!          │                                    │
//!          └── survivor: goes on in the file <──┘
//! ```
//!
//! Two controls, a lock and a state of two words, go through the same and must fail, so that the
//! harness is seen to find what it looks for.

mod control;
mod operation;
mod step;
mod survivor;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use operation::{Operation, Subject};
use survivor::Outcome;

/// Kills a process at every instruction of every operation on a shared file.
#[derive(Parser)]
#[command(bin_name = "cargo xtask crash --")]
struct Cli {
    /// Only operations whose name contains this
    only: Option<String>,

    /// Kill at every n-th instruction only (the controls, which are short, at every one)
    #[arg(long, value_name = "N", default_value_t = 1)]
    every: u64,

    /// Used by this program to start itself as a victim
    #[arg(long, hide = true, num_args = 2)]
    victim: Option<Vec<String>>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(victim) = &cli.victim {
        step::be_the_victim(&victim[0], victim[1].as_ref());
        return ExitCode::SUCCESS;
    }
    println!(
        "{:<36} {:>12} {:>8} {:>10} {:>8}",
        "operation", "instructions", "blocked", "overspent", "lost"
    );
    let mut is_sound = true;
    let start = Instant::now();
    for subject in Subject::all().iter().filter(|subject| {
        cli.only.as_ref().is_none_or(|only| subject.name().contains(only.as_str()))
    }) {
        // A control fails within a few instructions, which steps of n could miss.
        let is_control = matches!(subject.operation, Operation::Control(_));
        let total = kill_everywhere(subject, if is_control { 1 } else { cli.every });
        let fails = total.blocked > 0 || total.overspent > 0 || total.unsound > 0;
        let verdict = match (is_control, fails) {
            (true, true) => "fails, as it must",
            (true, false) => "NOT FOUND OUT",
            (false, true) => "FAILS",
            (false, false) => "holds",
        };
        is_sound &= fails == is_control;
        println!(
            "{}{:<36} {:>12} {:>8} {:>10} {:>8}  {verdict}",
            if std::io::stdout().is_terminal() { "\r" } else { "" },
            subject.name(),
            total.kills,
            total.blocked,
            total.overspent,
            total.lost
        );
    }
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of all kills within one operation.
#[derive(Default)]
struct Total {
    kills: u64,
    blocked: u64,
    overspent: u64,
    lost: u64,
    unsound: u64,
}

fn kill_everywhere(subject: &Subject, every: u64) -> Total {
    let mut total = Total::default();
    let is_watched = std::io::stdout().is_terminal();
    for instructions in (0..).step_by(every.max(1) as usize) {
        let folder = tempfile::tempdir_in(memory()).expect("a folder");
        let path = folder.path().join("state");
        subject.prepare(&path);
        let is_through = step::kill_after(subject, &path, instructions);
        let outcome = subject.survive(&path);
        total.kills += 1;
        match outcome {
            Outcome::Blocked => total.blocked += 1,
            Outcome::Unsound => total.unsound += 1,
            Outcome::Overspent => total.overspent += 1,
            Outcome::Lost => total.lost += 1,
            Outcome::Exact => {}
        }
        if is_watched && instructions % 64 == 0 {
            print!("\r{:<36} {:>12}", subject.name(), total.kills);
            let _ = std::io::stdout().flush();
        }
        if is_through {
            break;
        }
    }
    total
}

/// A folder in memory, where there is one: thousands of files come and go.
fn memory() -> std::path::PathBuf {
    let shm = std::path::PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}
