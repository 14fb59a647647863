//! Running other programs, from the root of the repository.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a chore did not work out.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).expect("this crate is two levels down").to_owned()
}

/// A command line, split at spaces, run from the root.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).current_dir(root());
    // What cargo has set for us is not meant for the cargo that is run here.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command
}

/// Runs a command line; anything but success is a failure.
pub(crate) fn run(line: &str) -> Result<(), Failure> {
    run_with(line, &[])
}

/// As [`run`], with environment variables set.
pub(crate) fn run_with(line: &str, variables: &[(&str, &str)]) -> Result<(), Failure> {
    let shown: String =
        variables.iter().map(|(name, value)| format!("{name}='{value}' ")).collect();
    println!("$ {shown}{line}");
    let status = command(line).envs(variables.iter().copied()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("`{shown}{line}` ended with {status}"))),
        Err(error) => Err(Failure::new(format!("`{line}` cannot be run: {error}"))),
    }
}

/// As [`run`], with more arguments, and without showing the command line.
pub(crate) fn quietly(line: &str, arguments: &[String]) -> Result<(), Failure> {
    match command(line).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("it ended with {status}"))),
        Err(error) => Err(Failure::new(format!("`{line}` cannot be run: {error}"))),
    }
}

/// Whether a command line runs and succeeds. Its output is not shown.
pub(crate) fn succeeds(line: &str) -> bool {
    command(line).output().is_ok_and(|output| output.status.success())
}
