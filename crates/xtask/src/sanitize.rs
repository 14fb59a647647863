//! `cargo xtask sanitize`: tests on real threads and on shared memory, under AddressSanitizer and
//! ThreadSanitizer. What is `unsafe` is in `tidegate`, where memory is mapped.

use crate::run::{Failure, root, run_with, succeeds};

/// Both, one after the other. They take a nightly compiler, and know x86-64 Linux.
pub(crate) fn all() -> Result<(), Failure> {
    if !succeeds("cargo +nightly --version") {
        return Err(Failure::new(
            "sanitizers need a nightly toolchain; install one with `rustup toolchain install nightly`",
        ));
    }
    // Some tests forget a reservation on purpose, as a process that dies does.
    test("address", "-p tidegate --lib --test shared", ("ASAN_OPTIONS", "detect_leaks=0"))?;
    let known = root().join("crates/xtask/src/sanitize.supp").display().to_string();
    let options = format!("suppressions={known}");
    let threads = "-p tidegate-core -p tidegate --lib --test threads --test peers --test shared";
    test("thread", threads, ("TSAN_OPTIONS", &options))
}

fn test(sanitizer: &str, tests: &str, options: (&str, &str)) -> Result<(), Failure> {
    let flags = format!(
        "-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer -Ctarget-feature=+cmpxchg16b"
    );
    // A target of its own, so that build scripts are not sanitized.
    run_with(
        &format!(
            "cargo +nightly test --target x86_64-unknown-linux-gnu --target-dir \
             target/sanitize/{sanitizer} {tests}"
        ),
        &[("RUSTFLAGS", &flags), options],
    )
}
