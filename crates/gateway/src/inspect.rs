//! `tidegate inspect FILE`: what a file of state holds.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidegate::{Clock, Fault, SharedFile, SharedFileError, SharedTable, SystemClock, Timestamp};

/// Shows what a file of state holds: its tables, how full they are, and who has used most.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate inspect /var/lib/tidegate/tidegate.state
  tidegate inspect --verify --top 0 tidegate.state    exits with 1 if anything is wrong
")]
pub(crate) struct Inspect {
    /// The file; the gateway's first lines say where its own is
    file: PathBuf,

    /// Check every slot of every table
    #[arg(long)]
    verify: bool,

    /// How many keys to show of each table
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
}

/// What to print, and whether all is well.
pub(crate) struct Findings {
    pub(crate) text: String,
    pub(crate) is_sound: bool,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<Findings, SharedFileError> {
        let file = SharedFile::open_existing(&self.file)?;
        let tables = file.tables()?;
        let now = file.clock().now();
        let mut out = String::new();
        let plural = if tables.len() == 1 { "" } else { "s" };
        let size = bytes(file.bytes()?);
        let place = file.path().display();
        line(
            &mut out,
            format_args!("{place}: {} table{plural}, {size}{}", tables.len(), clock(now)),
        );
        let mut faults = 0;
        for table in &tables {
            self.show(&mut out, table, now);
            if self.verify {
                let found = table.faults(now);
                found.iter().for_each(|fault| line(&mut out, format_args!("  {}", told(*fault))));
                faults += found.len();
            }
        }
        if self.verify {
            let slots: usize = tables.iter().map(SharedTable::slots).sum();
            let verdict = if faults == 0 { "all sound" } else { "NOT sound; see above" };
            line(&mut out, format_args!("\n{slots} slots checked: {verdict}"));
        }
        Ok(Findings { text: out, is_sound: faults == 0 })
    }

    fn show(&self, out: &mut String, table: &SharedTable, now: Timestamp) {
        let (live, slots) = (table.live_keys(now), table.slots());
        line(out, format_args!("\n{}: {}", table.name(), table.limit()));
        let plural = if live == 1 { "" } else { "s" };
        line(
            out,
            format_args!(
                "  {live} live key{plural} in {slots} slots ({:.1} %), {}; new keys denied for want of room: {}",
                100.0 * live as f64 / slots as f64,
                bytes(table.bytes() as u64),
                table.tally().denied(),
            ),
        );
        if let Some((open, units)) = table.open_holds() {
            let plural = if open == 1 { "" } else { "s" };
            line(out, format_args!("  {open} open reservation{plural} of {units} units"));
        }
        let top = table.top_consumers(self.top, now);
        if top.is_empty() {
            return;
        }
        let capacity = table.limit().capacity();
        let width = capacity.to_string().len().max(4);
        line(
            out,
            format_args!(
                "  {:12}  {:>width$}  {:>width$}  all back in",
                "key (hash)", "used", "left"
            ),
        );
        for key in top {
            let left = key.standing.remaining();
            let used = capacity.saturating_sub(left);
            let wait = wait(key.standing.reset_after());
            line(
                out,
                format_args!("  {:012x}  {used:>width$}  {left:>width$}  {wait}", key.fingerprint),
            );
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Strings take everything.
    let _ = writeln!(out, "{text}");
}

/// A word on the file's time, where it is not that of the machine.
fn clock(now: Timestamp) -> String {
    let ahead = now.since(SystemClock::new().now());
    if ahead < Duration::from_secs(2) {
        String::new()
    } else {
        format!(", {} ahead of this machine's clock", wait(ahead))
    }
}

fn told(fault: Fault) -> String {
    match fault {
        Fault::TwoSlots { first, second } => {
            format!("slots {first} and {second} hold one key; the second is never found")
        }
        Fault::TooLate { slot, .. } => {
            format!("slot {slot} holds a key that is in debt for more than a year, or is damaged")
        }
        fault => format!("{fault:?}"),
    }
}

fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "bytes");
    for next in ["KiB", "MiB", "GiB"] {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, next);
        }
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

/// The two largest units of a span, rounded up to a second.
fn wait(span: Duration) -> String {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_told_in_units_that_people_use() {
        assert_eq!(wait(Duration::from_millis(1)), "1 s");
        assert_eq!(wait(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(wait(Duration::from_secs(7_260)), "2 h 1 min");
        assert_eq!(wait(Duration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(bytes(1_000), "1000 bytes");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
    }
}
