//! A flood of keys: memory is flat, exhausted keys stay exhausted, and the overflow is counted.

use tidegate::core::Storage;
use tidegate::{Cost, FakeClock, KeyedLimiter, Quota, Timestamp, TokenBucket, WhenFull};

const KEYS: usize = 100_000;
const FLOOD: u64 = 10_000_000;

#[test]
fn ten_million_keys_through_a_table_for_a_hundred_thousand() {
    let clock = FakeClock::at(Timestamp::from_secs(1_700_000_000));
    let limit = TokenBucket::new(Quota::per_minute(1)).unwrap();
    let limiter: KeyedLimiter<u64, _, _> = KeyedLimiter::new(limit, KEYS).with_clock(&clock);
    let mine = || (0..1_000).map(|key| u64::MAX - key);
    assert!(mine().all(|key| limiter.decide(&key, Cost::ONE).is_allow()));

    let slots = limiter.table().slots() as u64;
    let admitted =
        (0..FLOOD).filter(|key| limiter.decide(key, Cost::ONE).is_allow()).count() as u64;
    assert_eq!(admitted, slots - 1_000, "each slot serves one key");
    assert_eq!(limiter.table().tally().denied(), FLOOD - admitted, "the overflow is visible");
    assert_eq!(limiter.table().tally().taken_over(), 0);
    assert!(mine().all(|key| !limiter.decide(&key, Cost::ONE).is_allow()), "still exhausted");
}

#[test]
fn a_flood_takes_slots_over_where_the_rule_says_so_and_that_is_counted() {
    let clock = FakeClock::at(Timestamp::from_secs(1_700_000_000));
    let limit = TokenBucket::new(Quota::per_minute(1)).unwrap();
    let limiter: KeyedLimiter<u64, _, _> =
        KeyedLimiter::new(limit, 1_000).with_clock(&clock).with_when_full(WhenFull::TakeOver);
    let slots = limiter.table().slots() as u64;
    assert!(
        (0..100_000_u64).all(|key| limiter.decide(&key, Cost::ONE).is_allow()),
        "no newcomer waits"
    );
    assert_eq!(limiter.table().tally().taken_over(), 100_000 - slots);
    assert_eq!(limiter.table().tally().denied(), 0);
}

#[test]
fn what_a_table_takes_is_told_before_it_is_made() {
    let heap = tidegate::Memory::for_keys(KEYS, 3);
    let bytes = size_of_val(heap.lines()) + size_of_val(heap.ring());
    assert_eq!(tidegate::Memory::bytes_for_keys(KEYS, 3), Some(bytes));
    let per_key =
        tidegate::Memory::bytes_for_keys(10 * KEYS, 0).unwrap() as f64 / (10 * KEYS) as f64;
    assert!(per_key <= 20.0, "{per_key} bytes per key");
}
