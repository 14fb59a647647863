//! Fuzzing, short and long.

use crate::run::{Failure, root, run, succeeds};

/// Seconds that CI gives each target.
const SMOKE_SECONDS: u32 = 6;

/// Each target for some seconds.
pub(crate) fn smoke() -> Result<(), Failure> {
    targets()?.iter().try_for_each(|target| fuzz(target, SMOKE_SECONDS))
}

/// One target, or each, for long.
pub(crate) fn long(target: Option<&str>, seconds: u32) -> Result<(), Failure> {
    let targets = targets()?;
    match target {
        None => targets.iter().try_for_each(|target| fuzz(target, seconds)),
        Some(target) if targets.iter().any(|known| known == target) => fuzz(target, seconds),
        Some(target) => {
            Err(Failure::new(format!("there is no target `{target}`; the targets are {targets:?}")))
        }
    }
}

/// The targets, once what they need is installed.
fn targets() -> Result<Vec<String>, Failure> {
    if !succeeds("cargo +nightly --version") {
        return Err(Failure::new(
            "fuzzing needs a nightly toolchain for its sanitizers; install one with \
             `rustup toolchain install nightly`",
        ));
    }
    if !succeeds("cargo +nightly fuzz --version") {
        run("cargo install cargo-fuzz --locked --version ^0.13")?;
    }
    let files = std::fs::read_dir(root().join("fuzz/fuzz_targets"))
        .map_err(|error| Failure::new(format!("cannot read fuzz/fuzz_targets: {error}")))?;
    let mut targets: Vec<_> = files
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort();
    Ok(targets)
}

/// Starts from the seeds that are kept, and what this machine has found itself before. Failures stay in
/// `fuzz/artifacts`.
fn fuzz(target: &str, seconds: u32) -> Result<(), Failure> {
    let found = format!("fuzz/corpus/{target}");
    std::fs::create_dir_all(root().join(&found))
        .map_err(|error| Failure::new(format!("cannot make {found}: {error}")))?;
    run(&format!(
        "cargo +nightly fuzz run {target} {found} fuzz/seeds/{target} -- \
         -max_total_time={seconds} -rss_limit_mb=4096 -print_final_stats=0 -verbosity=0"
    ))
}
