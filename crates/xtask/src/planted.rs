//! `cargo xtask planted`: plants known bugs in a copy of the core, and counts those that its tests
//! catch. Unlike random mutations, these break protocols and orderings, which take the models to see.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::run::{Failure, command, root};

#[derive(Deserialize)]
struct Planted {
    bug: Vec<Bug>,
}

/// A piece of a file that occurs once, and what takes its place.
#[derive(Deserialize)]
struct Bug {
    why: String,
    file: String,
    from: String,
    to: String,
}

const BUGS: &str = "crates/core/tests/planted/bugs.toml";

/// What may catch a bug, quickest first: a name, flags for the compiler, and arguments for cargo.
const SUITES: [(&str, &str, &str); 3] = [
    ("tests", "", "--lib --tests"),
    ("shuttle", "--cfg shuttle", "--release --test histories"),
    ("loom", "--cfg loom", "--release --test loom"),
];

/// How long a suite may take. A bug that makes threads wait for ever is caught by this.
const TOO_LONG: Duration = Duration::from_secs(400);

/// Plants each bug, or those whose reason or file contains one of these texts.
pub(crate) fn plant_all(only: &[String]) -> Result<(), Failure> {
    let text = read(&root().join(BUGS))?;
    let Planted { bug: bugs } =
        toml::from_str(&text).map_err(|error| Failure::new(format!("{BUGS}: {error}")))?;
    let chosen = |bug: &&Bug| {
        only.is_empty() || only.iter().any(|text| bug.why.contains(text) || bug.file.contains(text))
    };
    let bugs: Vec<_> = bugs.iter().filter(chosen).collect();
    let copy = root().join("target/planted");
    let (mut survivors, start) = (Vec::new(), Instant::now());
    copy_tree(&copy)?;
    if let Some(suite) = caught_by(&copy)? {
        return Err(Failure::new(format!("{suite} fail with no bug planted; mend that first")));
    }
    for (index, bug) in bugs.iter().enumerate() {
        let (file, sound) = plant(bug, &copy)?;
        let caught = caught_by(&copy);
        write(&file, &sound)?;
        let caught = caught?;
        let by = caught.unwrap_or("NOT CAUGHT");
        let minutes = start.elapsed().as_secs() / 60;
        println!(
            "{:>3}/{} {minutes:>3} min  {by:<10}  {}: {}",
            index + 1,
            bugs.len(),
            bug.file,
            bug.why
        );
        if caught.is_none() {
            survivors.push(bug);
        }
    }
    println!("\n{} of {} planted bugs are caught", bugs.len() - survivors.len(), bugs.len());
    if survivors.is_empty() { Ok(()) } else { Err(Failure::new("some bugs are not caught")) }
}

/// The workspace's files as git knows them, afresh; what was built there before stays. Copied once, so
/// that whoever works on while this runs does not disturb it.
fn copy_tree(copy: &Path) -> Result<(), Failure> {
    let listed = command("git ls-files --cached --others --exclude-standard")
        .output()
        .map_err(|error| Failure::new(format!("git cannot be run: {error}")))?;
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let (from, to) = (root().join(file), copy.join(file));
        let Ok(text) = fs::read(&from) else { continue };
        // A file that stays as it is keeps its time, so that it is not built again.
        if fs::read(&to).is_ok_and(|old| old == text) {
            continue;
        }
        let folder = to.parent().expect("a file lies in a folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&to, text))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", to.display())))?;
    }
    Ok(())
}

/// Plants the bug, and gives the file with its sound text.
fn plant(bug: &Bug, copy: &Path) -> Result<(PathBuf, String), Failure> {
    let path = copy.join("crates/core").join(&bug.file);
    let text = read(&path)?;
    if text.matches(&bug.from).count() != 1 {
        return Err(Failure::new(format!(
            "{BUGS}: `from` of \"{}\" must occur once in {}; bring it up to date",
            bug.why, bug.file
        )));
    }
    write(&path, &text.replacen(&bug.from, &bug.to, 1))?;
    Ok((path, text))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// The first suite that fails on the copy. One that cannot be built has caught nothing.
fn caught_by(copy: &Path) -> Result<Option<&'static str>, Failure> {
    for (name, flags, arguments) in SUITES {
        let target = copy.join("target").join(name).display().to_string();
        let cargo = |extra: &str| {
            let mut cargo = command(&format!("cargo test -q -p tidegate-core {arguments} {extra}"));
            cargo.current_dir(copy).env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", &target);
            cargo
        };
        let built = cargo("--no-run").output();
        let built = built.map_err(|error| Failure::new(format!("cargo cannot be run: {error}")))?;
        if !built.status.success() {
            let reason = String::from_utf8_lossy(&built.stderr);
            return Err(Failure::new(format!("a planted bug does not build:\n{reason}")));
        }
        if !passes(cargo(""))? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn passes(mut tests: Command) -> Result<bool, Failure> {
    let cannot = |error| Failure::new(format!("cargo cannot be run: {error}"));
    let mut child = tests
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            return Ok(status.success());
        }
        if start.elapsed() > TOO_LONG {
            // The whole group: cargo's child would go on.
            let _ = command(&format!("kill -KILL -- -{}", child.id())).status();
            let _ = child.wait();
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}
