//! Environments of Python's, each with the packages that some tests need.

use std::fs;

use crate::run::{Failure, root, run, succeeds};

/// An environment below `target`, with the packages of a file of requirements.
pub(crate) struct Environment {
    /// Whose tests need it.
    pub(crate) tests: &'static str,
    /// Where it is, and what else is made for it.
    pub(crate) place: &'static str,
    /// The file of requirements, each at the version that is written down.
    pub(crate) requirements: &'static str,
}

impl Environment {
    /// Makes it, unless it is there with what the file says.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        let Self { tests, place, requirements } = self;
        let modern = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
        let has_python = std::process::Command::new("python3").args(["-c", modern]).output();
        if !has_python.is_ok_and(|output| output.status.success()) {
            return Err(Failure::new(format!(
                "the tests of {tests} need `python3`, 3.10 or later, with venv and pip: on Debian, \
                 `apt-get install python3-venv`"
            )));
        }
        let failed = |file: &str, error| Failure::new(format!("{file}: {error}"));
        let wanted = fs::read_to_string(root().join(requirements))
            .map_err(|error| failed(requirements, error))?;
        let installed = root().join(place).join("installed.txt");
        let is_installed = fs::read_to_string(&installed).is_ok_and(|former| former == wanted);
        if is_installed && succeeds(&format!("{place}/venv/bin/python -m pip --version")) {
            return Ok(());
        }
        run(&format!("python3 -m venv --clear {place}/venv"))?;
        run(&format!("{place}/venv/bin/python -m pip install -q -r {requirements}"))?;
        fs::write(&installed, &wanted)
            .map_err(|error| failed(&installed.display().to_string(), error))
    }
}
