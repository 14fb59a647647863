//! `cargo xtask sanitize`: tests on real threads and on shared memory, under AddressSanitizer; and those
//! on threads under ThreadSanitizer, where that can judge them. What is `unsafe` is in `tidegate`, where
//! memory is mapped.

use std::path::Path;
use std::process::Command;

use crate::run::{Failure, command, root, run_with, succeeds};

/// Both, one after the other. They take a nightly compiler, and know x86-64 Linux.
pub(crate) fn all() -> Result<(), Failure> {
    if !succeeds("cargo +nightly --version") {
        return Err(Failure::new(
            "sanitizers need a nightly toolchain; install one with `rustup toolchain install nightly`",
        ));
    }
    // Some tests forget a reservation on purpose, as a process that dies does.
    let shared = "-p tidegate --lib --test shared";
    test("address", "", shared, ("ASAN_OPTIONS", "detect_leaks=0"))?;
    if !has_sources(command("rustc +nightly --print sysroot")) {
        println!(
            "\nThreadSanitizer has NOT run: it must see how the standard library hands memory from one \
             thread to the next, and takes that for races where the library was built without it. To \
             build the library with it, `rustup component add rust-src --toolchain nightly`."
        );
        return Ok(());
    }
    let known = root().join("crates/xtask/src/sanitize.supp").display().to_string();
    // Not the tests of shared files: ThreadSanitizer's swap of 128 bits holds a lock that is the
    // process's own, and so is none between processes.
    let threads = "-p tidegate-core -p tidegate --lib --test threads --test peers";
    let options = format!("suppressions={known}");
    test("thread", "-Zbuild-std", threads, ("TSAN_OPTIONS", &options))
}

/// Whether a toolchain has the sources of its library.
fn has_sources(mut sysroot: Command) -> bool {
    let Ok(told) = sysroot.output() else { return false };
    let sysroot = String::from_utf8_lossy(&told.stdout);
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").exists()
}

fn test(sanitizer: &str, std: &str, tests: &str, options: (&str, &str)) -> Result<(), Failure> {
    let flags = format!(
        "-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer -Ctarget-feature=+cmpxchg16b"
    );
    // A target of its own, so that build scripts are not sanitized.
    run_with(
        &format!(
            "cargo +nightly test {std} --target x86_64-unknown-linux-gnu --target-dir \
             target/sanitize/{sanitizer} {tests}"
        ),
        &[("RUSTFLAGS", &flags), options],
    )
}
