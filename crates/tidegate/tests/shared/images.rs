//! What a power failure leaves on the disk: heads of different times.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tidegate::{Cost, FakeClock, KeyedLimiter, Limit, Protocol, SharedClock, SharedFile};

use crate::worker::{NOW, TABLE, limit};

const LIMIT: u64 = 10;
const KEYS: u32 = 16;

/// The slots of the table: as many as keys, so that some take the place of others.
const SLOTS: usize = 16;

/// The bytes of the table's heads: after the header and the tally.
const HEADS: Range<usize> = 2 << 16..(2 << 16) + SLOTS * 16;

/// The word of the header that says in which boot the tables were last found sound.
const BOOT: Range<usize> = 7 * 8..8 * 8;

/// Calls: a key, a cost, and how many seconds later.
fn calls() -> impl Strategy<Value = Vec<(u32, u64, u64)>> {
    let seconds = prop_oneof![4 => Just(0), 1 => 0..200_u64];
    prop::collection::vec((0..KEYS, 1..4_u64, seconds), 0..40)
}

/// A limiter whose table has so many slots.
fn limiter(file: &SharedFile, text: &str) -> KeyedLimiter<u32, Limit, SharedClock> {
    let limit = limit(text);
    // Eight for each key where they are cheap, two elsewhere.
    let keys = if limit.ring_words() == 0 { SLOTS / 8 } else { SLOTS / 2 };
    let limiter = file.limiter(TABLE, limit, keys).unwrap();
    assert_eq!(limiter.table().slots(), SLOTS);
    limiter
}

fn remaining(path: &Path, text: &str, seconds: u64) -> Vec<u64> {
    let file = SharedFile::open(path).unwrap();
    let limiter = limiter(&file, text);
    let limiter = limiter.with_clock(FakeClock::at(NOW + Duration::from_secs(seconds)));
    (0..KEYS)
        .map(|key| {
            limiter
                .table()
                .peek(limiter.key(&key), Cost::ZERO, NOW + Duration::from_secs(seconds))
                .remaining()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Any mix of heads from before and after some calls: the file is sound, and no key has more left than
    /// it had before them, or after.
    #[test]
    fn any_mix_of_old_and_new_heads_is_sound(
        algorithm in prop::sample::select(vec![
            "token-bucket", "fixed-window", "sliding-window-counter", "sliding-window-log",
        ]),
        before in calls(),
        after in calls(),
        is_old in prop::collection::vec(any::<bool>(), SLOTS),
    ) {
        let text = format!("{algorithm} {LIMIT} per minute");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let mut seconds = 0;
        let mut run = |calls: &[(u32, u64, u64)]| {
            let file = SharedFile::open(&path).unwrap();
            let limiter = limiter(&file, &text);
            let limiter = limiter.with_clock(FakeClock::at(NOW));
            for &(key, cost, later) in calls {
                seconds += later;
                limiter.clock().set(NOW + Duration::from_secs(seconds));
                let _ = limiter.decide(&key, Cost::new(cost));
            }
            drop((limiter, file));
            (fs::read(&path).unwrap(), seconds)
        };
        let (old, _) = run(&before);
        let (mut image, seconds) = run(&after);
        let left_new = remaining(&path, &text, seconds);
        fs::write(&path, &old).unwrap();
        let left_old = remaining(&path, &text, seconds);

        for (index, _) in is_old.iter().enumerate().filter(|(_, is_old)| **is_old) {
            let head = HEADS.start + index * 16..HEADS.start + index * 16 + 16;
            image[head.clone()].copy_from_slice(&old[head]);
        }
        image[BOOT].fill(0xee);
        fs::write(&path, &image).unwrap();

        let file = SharedFile::open(&path).unwrap();
        let table = &file.tables().unwrap()[0];
        prop_assert_eq!(table.faults(NOW + Duration::from_secs(seconds)), []);
        let left = remaining(&path, &text, seconds);
        for key in 0..KEYS as usize {
            prop_assert!(
                left[key] <= left_new[key].max(left_old[key]),
                "key {}: {} left of {} before and {} after", key, left[key], left_old[key], left_new[key]
            );
        }
    }
}
