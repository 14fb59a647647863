//! `cargo xtask planted`: plants known bugs in a copy of the code, and counts those that its tests
//! catch. Unlike random mutations, these break protocols and orderings, which take the models to see.

mod graft;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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
    /// The file, from the root.
    file: String,
    from: String,
    to: String,
    /// The suite that is asked first, where that is not the first of its package.
    by: Option<String>,
}

const BUGS: &str = "crates/core/tests/planted/bugs.toml";

/// What may catch a bug in a package's files.
struct Suite {
    name: &'static str,
    package: &'static str,
    /// Flags for the compiler.
    flags: &'static str,
    /// Arguments for cargo.
    arguments: &'static str,
}

/// Quickest first.
const SUITES: [Suite; 6] = [
    Suite {
        name: "properties",
        package: "core",
        flags: "",
        arguments: "-p tidegate-core --lib --test allocation --test peers --test properties --test threads",
    },
    Suite {
        name: "histories",
        package: "core",
        flags: "",
        arguments: "-p tidegate-core --test exhaustive --test histories",
    },
    Suite {
        name: "shuttle",
        package: "core",
        flags: "--cfg shuttle",
        arguments: "-p tidegate-core --release --test histories",
    },
    Suite {
        name: "loom",
        package: "core",
        flags: "--cfg loom",
        arguments: "-p tidegate-core --release --test loom -- --skip the_bound_holds_while_threads_turn",
    },
    // The one model that takes longer than all the others.
    Suite {
        name: "large model",
        package: "core",
        flags: "--cfg loom",
        arguments: "-p tidegate-core --release --test loom -- the_bound_holds_while_threads_turn",
    },
    // The flood takes a minute where nothing is optimized, and looks for nothing that others do not.
    Suite {
        name: "tidegate",
        package: "tidegate",
        flags: "",
        arguments: "-p tidegate --lib --tests -- --skip ten_million_keys",
    },
];

/// Quick to build: nobody debugs these, and the models need no optimization across crates. What picks a
/// bug is of nightly compilers; the stable one can do it too.
const BUILD: [(&str, &str); 5] = [
    ("RUSTC_BOOTSTRAP", "tidegate_core,tidegate"),
    ("CARGO_INCREMENTAL", "1"),
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

/// How long a suite may take that was not seen to pass yet.
const TOO_LONG: Duration = Duration::from_secs(1_800);

/// How long one may take with a bug, which was seen to pass without in so long. A bug that makes threads wait for
/// ever, or go round for ever, is caught by this.
fn too_long(sound: Duration) -> Duration {
    Duration::from_secs(60) + 5 * sound
}

fn bugs() -> Result<Vec<Bug>, Failure> {
    let text = read(&root().join(BUGS))?;
    let planted: Result<Planted, _> = toml::from_str(&text);
    Ok(planted.map_err(|error| Failure::new(format!("{BUGS}: {error}")))?.bug)
}

/// Plants each bug, or those whose reason or file contains one of these texts.
pub(crate) fn plant_all(only: &[String]) -> Result<(), Failure> {
    let bugs = bugs()?;
    let chosen = |bug: &Bug| {
        only.is_empty() || only.iter().any(|text| bug.why.contains(text) || bug.file.contains(text))
    };
    let bugs: Vec<_> = bugs.into_iter().filter(chosen).collect();
    let copy = Copy {
        folder: root().join("target/planted"),
        start: Instant::now(),
        sound: RefCell::default(),
        is_unsound: Cell::default(),
    };
    copy.refresh()?;
    let alone = copy.graft_all(&bugs)?;
    let (mut survivors, mut done) = (Vec::new(), 0);
    let mut note = |bug: &Bug, caught: Result<Option<String>, Failure>| {
        let caught = match caught {
            Err(error) if copy.is_unsound.get() => return Err(error),
            Err(error) => Err(error.to_string()),
            Ok(caught) => caught.ok_or_else(|| "NOT CAUGHT".to_owned()),
        };
        done += 1;
        let by = caught.as_deref().unwrap_or_else(|reason| reason);
        let seconds = copy.start.elapsed().as_secs();
        println!("{done:>3}/{} {seconds:>5} s  {}: {}", bugs.len(), bug.file, bug.why);
        println!("              {by}");
        if let Err(reason) = &caught {
            survivors.push(format!("  {reason}: {}: {}", bug.file, bug.why));
        }
        Ok(())
    };
    for (index, bug) in bugs.iter().enumerate().filter(|(index, _)| !alone.contains(index)) {
        note(bug, bug.catcher(&copy, index + 1))?;
    }
    for index in alone {
        let bug = &bugs[index];
        copy.refresh()?;
        let text = read(&copy.folder.join(&bug.file))?;
        if text.matches(&bug.from).count() != 1 {
            note(bug, Err(Failure::new("`from` must occur once; bring it up to date")))?;
            continue;
        }
        copy.write(&bug.file, &text.replacen(&bug.from, &bug.to, 1))?;
        note(bug, bug.catcher(&copy, 0))?;
    }
    println!("\n{} of {} planted bugs are caught", bugs.len() - survivors.len(), bugs.len());
    survivors.iter().for_each(|survivor| println!("{survivor}"));
    if survivors.is_empty() { Ok(()) } else { Err(Failure::new("some bugs are not caught")) }
}

impl Bug {
    /// The suites that may catch it, in the order in which they are asked.
    fn suites(&self) -> Vec<&'static str> {
        let package = self.file.split('/').nth(1);
        let mut suites: Vec<_> = SUITES
            .iter()
            .filter(|suite| Some(suite.package) == package)
            .map(|suite| suite.name)
            .collect();
        suites.sort_by_key(|suite| Some(*suite) != self.by.as_deref());
        suites
    }

    /// The first test that fails, with its suite.
    fn catcher(&self, copy: &Copy, number: usize) -> Result<Option<String>, Failure> {
        for name in self.suites() {
            for suite in SUITES.iter().filter(|suite| suite.name == name) {
                if let Some(test) = copy.caught_by(suite, number)? {
                    return Ok(Some(format!("{name}: {test}")));
                }
            }
        }
        Ok(None)
    }
}

/// A copy of the workspace, so that whoever works on while this runs does not disturb it.
struct Copy {
    folder: PathBuf,
    start: Instant,
    /// The suites that were seen to pass without a bug, and how long that took.
    sound: RefCell<BTreeMap<&'static str, Duration>>,
    /// Whether one was seen to fail without a bug, so that nothing can be told.
    is_unsound: Cell<bool>,
}

impl Copy {
    /// The workspace's files as git knows them, afresh; what was built there before stays.
    fn refresh(&self) -> Result<(), Failure> {
        let listed = command("git ls-files --cached --others --exclude-standard")
            .output()
            .map_err(|error| Failure::new(format!("git cannot be run: {error}")))?;
        for file in String::from_utf8_lossy(&listed.stdout).lines() {
            if let Ok(text) = fs::read(root().join(file)) {
                self.write_bytes(file, &text)?;
            }
        }
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
        self.write_bytes(file, text.as_bytes())
    }

    /// A file that stays as it is keeps its time, so that it is not built again.
    fn write_bytes(&self, file: &str, text: &[u8]) -> Result<(), Failure> {
        let path = self.folder.join(file);
        if fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let folder = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// Puts all bugs into the copy that fit into one build, each with its number, and gives the indices
    /// of the others.
    fn graft_all(&self, bugs: &[Bug]) -> Result<Vec<usize>, Failure> {
        let mut alone = Vec::new();
        let files: BTreeSet<_> = bugs.iter().map(|bug| &*bug.file).collect();
        for file in &files {
            let text = read(&self.folder.join(file))?;
            let mut changes = Vec::new();
            // One that has no place, or several, is told with those that are planted alone.
            for (index, bug) in bugs.iter().enumerate().filter(|(_, bug)| bug.file == *file) {
                let mut places = text.match_indices(&bug.from);
                if let (Some((start, from)), None) = (places.next(), places.next()) {
                    let place = start..start + from.len();
                    changes.push(graft::Change { number: index + 1, place, to: &bug.to });
                } else {
                    alone.push(index);
                }
            }
            let (grafted, left) = graft::graft(&text, &changes)
                .map_err(|error| Failure::new(format!("{file} cannot be read: {error}")))?;
            self.write(file, &grafted)?;
            alone.extend(left.into_iter().map(|number| number - 1));
        }
        let roots: BTreeSet<_> = files
            .iter()
            .filter_map(|file| Some(format!("{}/src/lib.rs", file.split_once("/src/")?.0)))
            .collect();
        for file in roots {
            let text = read(&self.folder.join(&file))?;
            self.write(&file, &graft::root(&text))?;
        }
        Ok(alone)
    }

    /// As [`fails`](Self::fails), once the suite was seen to pass without a bug.
    fn caught_by(&self, suite: &Suite, number: usize) -> Result<Option<String>, Failure> {
        let name = suite.name;
        let known = self.sound.borrow().get(name).copied();
        if number == 0 || known.is_some() {
            return Ok(self.fails(suite, number, known.map_or(TOO_LONG, too_long))?.0);
        }
        self.is_unsound.set(true);
        let (failed, sound) = self.fails(suite, 0, TOO_LONG)?;
        if let Some(test) = failed {
            return Err(Failure::new(format!(
                "{name}: {test} with no bug planted; mend that first"
            )));
        }
        self.is_unsound.set(false);
        self.sound.borrow_mut().insert(name, sound);
        println!("        {:>5} s  {name} pass without a bug", self.start.elapsed().as_secs());
        Ok(self.fails(suite, number, too_long(sound))?.0)
    }

    /// The test that fails with this bug, or what else went wrong, and how long that took. A suite that cannot be
    /// built has caught nothing.
    fn fails(
        &self,
        suite: &Suite,
        number: usize,
        too_long: Duration,
    ) -> Result<(Option<String>, Duration), Failure> {
        let flags = suite.flags.rsplit(' ').next().filter(|flags| !flags.is_empty());
        let target =
            self.folder.join("target").join(flags.unwrap_or("plain")).display().to_string();
        let cargo = |extra: &str| {
            let mut cargo = command(&format!("cargo test {extra} {}", suite.arguments));
            cargo.current_dir(&self.folder).envs(BUILD).env("CARGO_TARGET_DIR", &target);
            cargo.env(graft::VARIABLE, number.to_string());
            if !suite.flags.is_empty() {
                cargo.env("RUSTFLAGS", suite.flags);
            }
            cargo
        };
        let built = cargo("--no-run").output();
        let built = built.map_err(|error| Failure::new(format!("cargo cannot be run: {error}")))?;
        if !built.status.success() {
            let reason = String::from_utf8_lossy(&built.stderr);
            return Err(Failure::new(format!("a planted bug does not build:\n{reason}")));
        }
        let start = Instant::now();
        Ok((first_failure(cargo(""), too_long)?, start.elapsed()))
    }
}

/// Runs tests up to the first that fails. What the others would say does not matter then. Tests that end
/// without naming one that failed have caught nothing, unless they crashed: a signal that nobody sent is
/// a catch, and anything else is told as an error, with what was said.
fn first_failure(mut tests: Command, too_long: Duration) -> Result<Option<String>, Failure> {
    let cannot = |error| Failure::new(format!("cargo cannot be run: {error}"));
    let mut child = tests
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    // The whole group: cargo's child would go on.
    let kill = format!("kill -KILL -- -{}", child.id());
    let (done, waits) = mpsc::channel::<()>();
    let is_late = Arc::new(AtomicBool::new(false));
    let watch = {
        let (kill, is_late) = (kill.clone(), is_late.clone());
        std::thread::spawn(move || {
            if waits.recv_timeout(too_long) == Err(mpsc::RecvTimeoutError::Timeout) {
                is_late.store(true, Ordering::Relaxed); // read after the join
                let _ = command(&kill).status();
            }
        })
    };
    let mut errors = child.stderr.take().expect("it is piped");
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = errors.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    // A line that is no text is none of the harness's.
    let lines = output.split(b'\n').map_while(Result::ok);
    let failed = lines.map(|line| String::from_utf8_lossy(&line).into_owned()).find_map(|line| {
        let test = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(test.trim_end_matches(" - should panic").to_owned())
    });
    if failed.is_some() {
        let _ = command(&kill).status();
    }
    let status = child.wait().map_err(cannot)?;
    drop(done);
    let _ = watch.join();
    let said = said.join().unwrap_or_default();
    match failed {
        Some(test) => Ok(Some(test)),
        None if is_late.load(Ordering::Relaxed) => Ok(Some("it took too long".to_owned())),
        None if status.success() => Ok(None),
        None => crash(&said).map(Some).ok_or_else(|| {
            Failure::new(format!("the tests ended with {status}, and none failed:\n{said}"))
        }),
    }
}

/// The signal that ended a test's process, as cargo tells it. A kill comes from outside: from whoever
/// ends this run, or where memory runs out.
fn crash(said: &str) -> Option<String> {
    let (_, signal) = said.split_once("(signal: ")?;
    let (signal, _) = signal.split_once(')')?;
    let of = said.lines().rev().find_map(|line| line.trim().strip_prefix("Running "));
    let of = of.map_or("a test", |of| of.split(' ').next().unwrap_or(of));
    (!signal.starts_with("9,")).then(|| format!("{of} crashed with signal {signal}"))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<Option<String>, Failure> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        first_failure(shell, TOO_LONG)
    }

    /// So that whoever changes the code brings the bug along, and a bug is not found gone when it counts.
    #[test]
    fn each_bug_has_its_place() {
        let suites: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        for bug in bugs().unwrap() {
            let places = read(&root().join(&bug.file)).unwrap().matches(&bug.from).count();
            assert_eq!(places, 1, "{}: {}", bug.file, bug.why);
            assert!(bug.from != bug.to && !bug.suites().is_empty(), "{}", bug.why);
            assert!(bug.by.is_none_or(|by| suites.contains(&&*by)), "{}", bug.why);
        }
    }

    #[test]
    fn only_a_test_that_fails_or_crashes_has_caught_a_bug() {
        assert_eq!(run("echo 'test a ... ok'").unwrap(), None);
        let failed = run("printf '\\377\\n'; echo 'test a::b ... FAILED'; sleep 600").unwrap();
        assert_eq!(failed.as_deref(), Some("a::b"), "also after a line that is no text");
        let crashed = run("echo '     Running tests/a.rs (target/a)' >&2; \
                           echo 'process did not exit: `a` (signal: 6, SIGABRT: abort)' >&2; exit 101");
        let crashed = crashed.unwrap();
        assert_eq!(crashed.as_deref(), Some("tests/a.rs crashed with signal 6, SIGABRT: abort"));
        run("echo '`a` (signal: 9, SIGKILL: kill)' >&2; exit 101").unwrap_err();
        let error = run("echo 'error: no such thing' >&2; exit 101").unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
    }
}
