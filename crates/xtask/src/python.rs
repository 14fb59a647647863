//! The Python package: built, installed into an environment of its own, and tested there.

use std::fs;

use crate::environment::Environment;
use crate::run::{Failure, root, run, run_with};

/// The release of `limits` whose suite our storage must pass.
const LIMITS: &str = "5.8.0";

/// The environment and what is built for it, all below `target`.
const PLACE: &str = "target/python";
const BIN: &str = "target/python/venv/bin";

const ENVIRONMENT: Environment = Environment {
    tests: "crates/python",
    place: PLACE,
    requirements: "crates/python/tests/requirements.txt",
};

/// Builds the wheel, and runs its tests, the suite of `limits`, and the checks of its types.
pub(crate) fn test() -> Result<(), Failure> {
    ENVIRONMENT.make()?;
    install_wheel()?;
    let python = format!("{BIN}/python");
    run(&format!("{python} crates/python/tests/clean_install.py {}", wheel()?))?;
    run(&format!(
        "{python} -m pytest -q -n 4 --dist loadgroup -c crates/python/pyproject.toml crates/python/tests"
    ))?;
    run_suite_of_limits()?;
    run(&format!("{python} -m mypy --config-file crates/python/pyproject.toml"))?;
    run(&format!("{python} -m mypy.stubtest tidegate._native"))
}

fn install_wheel() -> Result<(), Failure> {
    let dist = root().join(PLACE).join("dist");
    // A wheel of an earlier version would be installed too.
    let _ = fs::remove_dir_all(&dist);
    run(&format!(
        "{BIN}/python -m maturin build -q --profile quick -m crates/python/Cargo.toml \
         --interpreter {BIN}/python --out {PLACE}/dist"
    ))?;
    run(&format!(
        "{BIN}/python -m pip install -q --no-index --no-deps --force-reinstall \
         --find-links {PLACE}/dist tidegate"
    ))
}

fn wheel() -> Result<String, Failure> {
    let missing = |error| Failure::new(format!("{PLACE}/dist has no wheel: {error}"));
    let mut files = fs::read_dir(root().join(PLACE).join("dist")).map_err(missing)?;
    let first = files.next().transpose().map_err(missing)?;
    let name = first.map(|file| file.file_name().to_string_lossy().into_owned());
    name.map(|name| format!("{PLACE}/dist/{name}"))
        .ok_or_else(|| Failure::new(format!("{PLACE}/dist has no wheel")))
}

/// The suite that `limits` has for storages, from its source: the tests are not in its wheel.
fn run_suite_of_limits() -> Result<(), Failure> {
    let suite = format!("{PLACE}/limits-{LIMITS}");
    if !root().join(&suite).join("tests").is_dir() {
        run(&format!(
            "{BIN}/python -m pip download -q --no-deps --no-binary limits -d {PLACE} limits=={LIMITS}"
        ))?;
        run(&format!("{BIN}/python -m tarfile -e {suite}.tar.gz {PLACE}"))?;
    }
    // What is tested is the `limits` that is installed.
    let _ = fs::remove_dir_all(root().join(&suite).join("limits"));
    let plugin = root().join("crates/python/tests/conformance").display().to_string();
    let tests = [
        "test_strategy.py",
        "aio/test_strategy.py",
        "integration/test_concurrency.py",
        "test_storage.py",
        "aio/test_storage.py",
    ];
    let tests: String = tests.iter().map(|test| format!(" {suite}/tests/{test}")).collect();
    let paths = format!("{plugin}:{}", root().join(&suite).display());
    run_with(
        &format!(
            "{BIN}/python -m pytest -q -n 4 -p tidegate_plugin --noconftest -c /dev/null \
             --rootdir={suite} -o asyncio_mode=auto -W ignore --no-flaky-report{tests}"
        ),
        &[("PYTHONPATH", paths.as_str())],
    )
}
