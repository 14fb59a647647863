//! `cargo xtask crash`: processes that share a file are killed, at random and at every instruction.

use crate::run::{Failure, run, run_with};

/// Storms of so many kills for each algorithm and job, and then a kill at every instruction of every
/// operation, with the controls that must fail.
pub(crate) fn all(kills: u32) -> Result<(), Failure> {
    let kills = kills.to_string();
    run_with(
        "cargo test --release -p tidegate --test shared kills -- --nocapture",
        &[("TIDEGATE_KILLS", &kills)],
    )?;
    run("cargo run --release -p tidegate-crash")
}

/// As much of it as a test run has time for: every few instructions. (Its tests have short storms.)
pub(crate) fn smoke() -> Result<(), Failure> {
    run("cargo run --release -p tidegate-crash -- --every 13")
}
