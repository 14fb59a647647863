//! Runs one path of [`tidegate_benches::counts`] so many times, for `cargo xtask counts` to watch.

use std::process::ExitCode;

use tidegate_benches::counts::PATHS;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, count) = (arguments.next(), arguments.next());
    let path = PATHS.iter().find(|(path, _)| name.as_deref() == Some(path));
    match (path, count.and_then(|count| count.parse().ok())) {
        (Some((_, run)), Some(count)) => {
            run(count);
            ExitCode::SUCCESS
        }
        _ => {
            // Without arguments: the names, one a line.
            PATHS.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::SUCCESS
        }
    }
}
