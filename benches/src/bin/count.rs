//! `count PATH RUNS`: runs a hot path so many times, for `cargo xtask counts` to watch. Without
//! arguments, the paths' names.

use std::process::ExitCode;

use tidegate_benches::counts::{PATHS, counted};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, runs] = arguments.as_slice() else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let path = PATHS.iter().find(|(path, _)| path == name);
    let (Some((_, ready)), Ok(runs)) = (path, runs.parse()) else {
        eprintln!("error: there is no path `{name}`, or `{runs}` is not a number");
        return ExitCode::FAILURE;
    };
    counted(&mut ready(), runs);
    ExitCode::SUCCESS
}
