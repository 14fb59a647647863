//! `cargo xtask counts`: instructions and branches of each hot path, by valgrind. Timings on a shared
//! machine prove little; these are the same in every run.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::run::{Failure, command, root, run, succeeds};

/// What was counted, for one run of a path.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Count {
    instructions: f64,
    branches: f64,
}

const RECORD: &str = "benches/counts.toml";
const RUNS: u32 = 10_000;

/// How much a path may grow before it must be recorded anew.
const SLACK: f64 = 1.03;

/// Counts all paths and holds them against the record; with `anew`, makes the record.
pub(crate) fn all(anew: bool) -> Result<(), Failure> {
    need_valgrind()?;
    run("cargo build --release --package tidegate-benches --bin count")?;
    let counted = count_all()?;
    if anew {
        return record(&counted);
    }
    let recorded = recorded()?;
    println!("{:<36} {:>12} {:>10} {:>10}", "path", "instructions", "recorded", "branches");
    let mut wrong = Vec::new();
    for (path, count) in &counted {
        let before = recorded.get(path).map(|before| before.instructions);
        let shown = before.map_or_else(|| "-".to_owned(), |before| format!("{before:.1}"));
        println!("{path:<36} {:>12.1} {shown:>10} {:>10.1}", count.instructions, count.branches);
        if before.is_none_or(|before| count.instructions > before * SLACK) {
            wrong.push(path.as_str());
        }
    }
    let gone = recorded.keys().filter(|path| !counted.contains_key(*path));
    wrong.extend(gone.map(String::as_str));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "these paths are more than 3% longer than {RECORD} says, or not in it: {}. If that must be, \
         record them with `cargo xtask counts --record`, and say why in the commit",
        wrong.join("; ")
    )))
}

fn need_valgrind() -> Result<(), Failure> {
    if succeeds("valgrind --version") || succeeds("apt-get install --yes valgrind") {
        return Ok(());
    }
    Err(Failure::new(
        "counting needs valgrind; install it, such as with `apt-get install valgrind`",
    ))
}

fn count_all() -> Result<BTreeMap<String, Count>, Failure> {
    let program = root().join("target/release/count").display().to_string();
    let names = command(&program).output();
    let names = names.map_err(|error| Failure::new(format!("cannot run {program}: {error}")))?;
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    names.lines().map(|name| Ok((name.to_owned(), count(&program, name)?))).collect()
}

fn count(program: &str, path: &str) -> Result<Count, Failure> {
    let out = root().join("target/callgrind.out").display().to_string();
    let output = command("valgrind --tool=callgrind --branch-sim=yes")
        .arg("--toggle-collect=*counts*counted*")
        .arg(format!("--callgrind-out-file={out}"))
        .args([program, path, &RUNS.to_string()])
        .output()
        .map_err(|error| Failure::new(format!("cannot run valgrind: {error}")))?;
    let text = fs::read_to_string(&out).unwrap_or_default();
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let totals = field("events:").zip(field("totals:")).map(|(events, totals)| {
        let totals = totals.split_whitespace().filter_map(|total| total.parse::<f64>().ok());
        events.split_whitespace().zip(totals).collect::<BTreeMap<_, _>>()
    });
    let totals = totals.filter(|_| output.status.success()).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        Failure::new(format!("valgrind did not count `{path}`:\n{said}"))
    })?;
    let each = |event| totals.get(event).copied().unwrap_or_default() / f64::from(RUNS);
    Ok(Count { instructions: rounded(each("Ir")), branches: rounded(each("Bc") + each("Bi")) })
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn recorded() -> Result<BTreeMap<String, Count>, Failure> {
    let text = fs::read_to_string(root().join(RECORD))
        .map_err(|error| Failure::new(format!("cannot read {RECORD}: {error}")))?;
    toml::from_str(&text).map_err(|error| Failure::new(format!("{RECORD}: {error}")))
}

fn record(counted: &BTreeMap<String, Count>) -> Result<(), Failure> {
    let mut text = String::from(
        "# Instructions and branches of one run of each hot path, its loop included (`nothing` is the\n\
         # loop alone). `cargo xtask counts` fails when a path grows by more than 3%.\n",
    );
    for (path, count) in counted {
        text.push_str(&format!(
            "\n[\"{path}\"]\ninstructions = {:.1}\nbranches = {:.1}\n",
            count.instructions, count.branches
        ));
    }
    fs::write(root().join(RECORD), text)
        .map_err(|error| Failure::new(format!("cannot write {RECORD}: {error}")))?;
    println!("recorded {} paths in {RECORD}", counted.len());
    Ok(())
}
