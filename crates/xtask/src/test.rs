//! `cargo xtask test`: everything that must hold, cheapest first.

use std::time::Instant;

use crate::run::{Failure, root, run, run_with};
use crate::{clients, counts, crash, engines, fuzz, models, python, servers};

type Step = (&'static str, fn() -> Result<(), Failure>);

const STEPS: [Step; 13] = [
    ("format", format),
    ("lints", lints),
    ("docs", docs),
    ("tests", tests),
    ("engines", engines::test),
    ("models", models::all),
    ("crash", crash::smoke),
    ("no-std", no_std),
    ("clients", clients::test),
    ("python", python::test),
    ("benches", benches),
    ("counts", || counts::all(false)),
    ("fuzz", fuzz::smoke),
];

/// Runs all steps, or only those named.
pub(crate) fn all(only: &[String]) -> Result<(), Failure> {
    let names: Vec<_> = STEPS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(Failure::new(format!("there is no step `{unknown}`; the steps are {names:?}")));
    }
    let chosen = STEPS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|n| n == name));
    let chosen: Vec<_> = chosen.collect();
    let mut summary = String::new();
    for (index, (name, step)) in chosen.iter().enumerate() {
        println!("\n=== {name} ({} of {})", index + 1, chosen.len());
        let start = Instant::now();
        step()?;
        summary.push_str(&format!("  {name:<8} {:>6.1} s\n", start.elapsed().as_secs_f64()));
    }
    println!("\nAll of it holds:\n{summary}");
    Ok(())
}

fn format() -> Result<(), Failure> {
    run("cargo fmt --all --check")?;
    run("cargo fmt --manifest-path fuzz/Cargo.toml --check")?;
    run("cargo fmt --manifest-path crates/core/proofs/no_std/Cargo.toml --check")
}

fn lints() -> Result<(), Failure> {
    run("cargo clippy --workspace --all-targets --all-features -- -D warnings")?;
    // As who depends on one crate builds it: no other one's features make up for what it lacks.
    let alone = ["core", "", "tower", "tower --features axum", "tower --features grpc", "redis"];
    alone.into_iter().try_for_each(|name| {
        let dash = if name.is_empty() { "" } else { "-" };
        run(&format!("cargo clippy -p tidegate{dash}{name} -- -D warnings"))
    })
}

fn docs() -> Result<(), Failure> {
    let strict = [("RUSTDOCFLAGS", "-D warnings")];
    run_with("cargo doc --workspace --no-deps --all-features", &strict)
}

fn tests() -> Result<(), Failure> {
    servers::ready()?;
    servers::browser();
    run("cargo test --workspace --all-features")?;
    run("cargo run --quiet -p tidegate-core --example custom_algorithm")
}

/// The core links and runs without std, allocator and libc.
fn no_std() -> Result<(), Failure> {
    let arguments = ["-nostdlib", "-static", "-nostartfiles", "-no-pie"];
    let linker: String =
        arguments.iter().map(|argument| format!(" -C link-arg={argument}")).collect();
    run(&format!(
        "cargo rustc --release --manifest-path crates/core/proofs/no_std/Cargo.toml \
         --target-dir target/no_std -- -C relocation-model=static{linker}"
    ))?;
    run(&root().join("target/no_std/release/no_std").display().to_string())
}

/// All benches build. Not as they are measured: optimizing each as a whole program takes minutes.
fn benches() -> Result<(), Failure> {
    run("cargo bench --workspace --no-run --profile quick")
}
