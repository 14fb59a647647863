//! What goes on in the file after the kill.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidegate::{Clock, Cost, FakeClock, SharedFile, Timestamp};

use crate::operation::{LIMIT, Table, VICTIM};

/// What a survivor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It waited for the one that is dead.
    Blocked,
    /// It found what no call leaves behind.
    Unsound,
    /// It was admitted more than was left.
    Overspent,
    /// It was admitted less than was left, by no more than the operation under way.
    Lost,
    /// It was admitted what was left before the operation, or after it.
    Exact,
}

/// How long a survivor may take for what takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Spends what is left, of `left` units before an operation that charges `charges` of them when it is
/// through and at most `most` on the way; then spends the limit again, much later, and brings in other
/// keys.
pub(crate) fn go_on(table: Table, path: &Path, left: u64, charges: u64, most: u64) -> Outcome {
    let path = path.to_owned();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let admitted = spend(&table, VICTIM);
        let later = table.clock().now() + Duration::from_secs(10_000);
        let is_sound = faults(&path, table.clock().now()) == 0;
        let table = table.with_clock(FakeClock::at(later));
        // One more than fit at a time.
        let mut keys = std::iter::once(VICTIM).chain(1..=table.table().slots() as u32);
        let is_fresh = keys.all(|key| {
            let admitted = spend(&table, key);
            table.clock().advance(Duration::from_secs(1_000));
            admitted == LIMIT
        });
        let _ = done.send((admitted, is_sound && is_fresh));
    });
    match is_done.recv_timeout(PATIENCE) {
        Err(_) => Outcome::Blocked,
        Ok((_, false)) => Outcome::Unsound,
        Ok((admitted, _)) if admitted > left || admitted + most < left => Outcome::Overspent,
        Ok((admitted, _)) if admitted == left || admitted + charges == left => Outcome::Exact,
        Ok(_) => Outcome::Lost,
    }
}

/// How many units are admitted until one is not.
fn spend(table: &Table, key: u32) -> u64 {
    (0..2 * LIMIT).take_while(|_| table.decide(&key, Cost::ONE).is_allow()).count() as u64
}

fn faults(path: &Path, now: Timestamp) -> usize {
    let file = SharedFile::open_existing(path).expect("the file");
    file.tables().expect("its tables").iter().map(|table| table.faults(now).len()).sum()
}
