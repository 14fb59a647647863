//! The models: loom explores every interleaving of each, up to its bounds; shuttle runs longer histories
//! on random schedules.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::run::{Failure, command};

/// One of the two schedulers that the core is built for, and its tests.
struct Scheduler {
    name: &'static str,
    test: &'static str,
}

const LOOM: Scheduler = Scheduler { name: "loom", test: "loom" };
const SHUTTLE: Scheduler = Scheduler { name: "shuttle", test: "histories" };

/// What takes longest by far, so that it is begun first.
const LONGEST: &str = "counter::the_bound_holds_while_threads_turn_epochs_at_different_times";

/// Runs all models, as many at a time as there are processors, up to the first that fails.
pub(crate) fn all() -> Result<(), Failure> {
    let mut tests = LOOM.tests()?;
    tests.extend(SHUTTLE.tests()?);
    tests.sort_by_key(|test| test.name != LONGEST); // the others stay in their order
    let workers = thread::available_parallelism().map_or(1, usize::from);
    println!("{} models, {workers} at a time, each in a process of its own", tests.len());
    let (left, failed) = (Mutex::new(VecDeque::from(tests)), Mutex::new(None));
    let next = || left.lock().ok()?.pop_front();
    let work = || {
        while let Some(test) = next() {
            if let Err(failure) = test.run()
                && let (Ok(mut left), Ok(mut failed)) = (left.lock(), failed.lock())
            {
                left.clear();
                failed.get_or_insert(failure);
            }
        }
    };
    thread::scope(|scope| (0..workers).for_each(|_| _ = scope.spawn(work)));
    failed.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

/// A test in a program.
struct Test {
    scheduler: &'static str,
    program: String,
    name: String,
}

impl Scheduler {
    /// Builds the tests, and lists them.
    fn tests(&self) -> Result<Vec<Test>, Failure> {
        let Self { name, test } = self;
        let line = format!(
            "cargo test --no-run --message-format=json-render-diagnostics --release -p tidegate-core \
             --test {test} --target-dir target/{name}"
        );
        println!("$ RUSTFLAGS='--cfg {name}' {line}");
        // Whole-program optimization takes longer than what it saves here.
        let mut cargo = command(&line);
        cargo.env("RUSTFLAGS", format!("--cfg {name}")).env("CARGO_PROFILE_RELEASE_LTO", "off");
        cargo
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .stderr(std::process::Stdio::inherit());
        let messages = said_by(&mut cargo, &line)?;
        let programs = messages.lines().filter_map(|message| {
            let message: serde_json::Value = serde_json::from_str(message).ok()?;
            Some(message.get("executable")?.as_str()?.to_owned())
        });
        let [program] = <[String; 1]>::try_from(programs.collect::<Vec<_>>())
            .map_err(|programs| Failure::new(format!("`{line}` built {programs:?}, not one")))?;
        let listed = said_by(command(&program).arg("--list"), &program)?;
        let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let names: Vec<_> = names
            .map(|test| Test { scheduler: name, program: program.clone(), name: test.to_owned() })
            .collect();
        if names.is_empty() {
            return Err(Failure::new(format!("{program} has no tests")));
        }
        Ok(names)
    }
}

impl Test {
    /// Runs it, in a process of its own: loom maps and unmaps a stack for each thread of each execution,
    /// and two models of one process would wait for each other in the kernel for most of the time.
    fn run(&self) -> Result<(), Failure> {
        let Self { scheduler, program, name } = self;
        let start = Instant::now();
        let mut test = command(program);
        test.args(["--exact", name]).env("SHUTTLE_SILENCE_ORDERING_WARNING", "1");
        let output = test
            .output()
            .map_err(|error| Failure::new(format!("`{program}` cannot be run: {error}")))?;
        let told = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !told.contains("test result: ok. 1 passed") {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("{scheduler}: {name} failed:\n{told}{errors}")));
        }
        println!("{scheduler:<8} {:>6.1} s  {name}", start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// What a program prints, if it succeeds.
fn said_by(command: &mut Command, line: &str) -> Result<String, Failure> {
    let output = command
        .output()
        .map_err(|error| Failure::new(format!("`{line}` cannot be run: {error}")))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("`{line}` ended with {}:\n{errors}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
