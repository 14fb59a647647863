//! `cargo xtask mutants`: random changes to the core, by cargo-mutants.

use crate::run::{Failure, run, succeeds};

/// All mutants, or a part of them. `.cargo/mutants.toml` says which code and which tests, and explains
/// those that may survive. What was found is in `target/mutants.out`.
pub(crate) fn all(shard: Option<&str>) -> Result<(), Failure> {
    if !succeeds("cargo mutants --version") {
        run("cargo install cargo-mutants --locked --version ^27")?;
    }
    let shard = shard.map(|part| format!("--sharding round-robin --shard {part}"));
    let shard = shard.unwrap_or_default();
    run(&format!("cargo mutants -p tidegate-core --no-shuffle --output target {shard}"))
}
