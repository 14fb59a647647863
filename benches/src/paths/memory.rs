//! What a live key weighs.

use tidegate::core::Line;
use tidegate::{Cost, KeyedLimiter, Quota, TokenBucket};

use crate::measure::Effort;
use crate::memory::weighed;
use crate::peers::{GovernorKeyed, governor_keyed};
use crate::report::{Row, Target};

/// All memory of a limiter that is as full as it may be, by the keys that live in it.
///
/// Other lengths of measuring weigh the same.
pub(super) fn rows(_: Effort) -> Vec<Row> {
    const COUNT: u64 = 1_000_000;
    // One in an hour: all keys live, none gives its slot to another. Each must find room, which in one
    // of four hundred runs one does not.
    let bucket = TokenBucket::new(Quota::per_hour(1)).expect("a rate");
    let ours = weighed(|| {
        let limiter = KeyedLimiter::<u64, _>::new(bucket, COUNT as usize);
        assert!((0..COUNT).all(|key| limiter.decide(&key, Cost::ONE).is_allow()), "room for all");
        limiter
    });
    let theirs = weighed(|| governor_keyed(0..COUNT));
    let (Some((limiter, ours)), Some(theirs)) = (ours, theirs) else {
        eprintln!("memory: not weighed, since this system does not tell how much is mapped");
        return Vec::new();
    };
    assert!((0..COUNT).all(|key| !limiter.decide(&key, Cost::ONE).is_allow()), "all are kept");
    let (governor, theirs): (GovernorKeyed<u64, ahash::RandomState>, _) = theirs;
    assert_eq!(governor.len(), COUNT as usize);
    let slots = Line::for_keys(COUNT as usize) * Line::SLOTS;
    let load = COUNT as f64 / slots as f64 * 100.0;
    let path = format!("bytes per live key, 1 M keys, {load:.1}% load");
    // Ours maps its table itself. What the allocator maps for governor is on the heap, and counted.
    let each = |bytes: usize| bytes as f64 / COUNT as f64;
    let (ours, theirs) = (each(ours.heap + ours.mapped), each(theirs.heap));
    vec![Row::new(path, ours, "governor", theirs, Target::Bytes(20.0))]
}
