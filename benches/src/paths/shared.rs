//! A table in a file that processes share, beside the same table in memory.

use std::hint::black_box;

use tidegate::{Clock, Cost, KeyedLimiter, Limit, SharedFile, Timestamp};

use crate::keys::Uniform;
use crate::measure::{Effort, Entrant, medians};
use crate::report::{Row, Target};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Keys, and what to call so many.
const SIZES: [(u64, &str); 2] = [(1_000, "1 k"), (1_000_000, "1 M")];

pub(super) fn rows(effort: Effort) -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = SharedFile::open(folder.path().join("state")).expect("a file");
    let mut rows = Vec::new();
    for (count, name) in SIZES {
        let shared = file.limiter(name, limit(), count as usize).expect("a table");
        let alone = KeyedLimiter::new(limit(), count as usize);
        let times = medians(&mut [decides(alone, count), decides(shared, count)], effort);
        let path = format!("in a shared file, {name} keys");
        rows.push(Row::new(path, times[1], "in memory", times[0], Target::AtMost(1.1)));
    }
    rows
}

fn limit() -> Limit {
    let rate = "500000000 per second".parse().expect("a rate");
    Limit::token_bucket(rate, None).expect("a bucket")
}

/// Decides on keys in a random order, with `now` given.
fn decides<C: Clock + 'static>(
    limiter: KeyedLimiter<u64, Limit, C>,
    count: u64,
) -> Entrant<'static> {
    let mut keys = Uniform::new(count, 1);
    Box::new(move |calls| {
        for _ in 0..calls {
            let key = limiter.key(&keys.key());
            black_box(limiter.table().decide(key, Cost::ONE, START).is_allow());
        }
    })
}
