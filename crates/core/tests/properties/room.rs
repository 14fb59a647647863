//! Where keys lie: sets, their rings, and what a table says when there is no room.

use std::time::Duration;

use tidegate_core::{
    AtomicU64, Borrowed, Cause, Cost, FixedWindow, Key, Line, Protocol, Quota, Retry,
    SlidingWindowCounter, SlidingWindowLog, Table, TableError, Tally, Timestamp, TokenBucket,
    WhenFull,
};

use crate::table::{Memory, key};

fn at(s: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + s)
}

/// Three sets, each with keys in it: no two slots share ring words.
fn rings_are_apart<P: Protocol>(protocol: P) {
    let memory = Memory::new(3 * 128, protocol.ring_words());
    let table = memory.table(protocol);
    let users = 0..1_000;
    // Through the turn of an epoch, so that the rings are written.
    for (units, s) in [(1, 0), (2, 11), (1, 22)] {
        for user in users.clone() {
            assert!(table.decide(key(user), Cost::new(units), at(s)).is_allow(), "{user} at {s} s");
        }
    }
    for user in users {
        assert_eq!(table.peek(key(user), Cost::ZERO, at(22)).remaining(), 1, "{user}");
    }
    assert_eq!(table.live_keys(at(22)), 1_000);
}

#[test]
fn no_two_slots_share_ring_words_in_any_set() {
    rings_are_apart(SlidingWindowCounter::new(Quota::per_minute(5), 6).unwrap());
    rings_are_apart(SlidingWindowLog::new(Quota::per_minute(5)).unwrap());
}

/// A home line near the end of a set has its keys go on at the set's start.
#[test]
fn a_set_is_filled_around_its_end() {
    let memory = Memory::new(256, 0);
    let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
    // All in the last line of the first set.
    let keys = (0..512_u64).map(|low| Key::from_hash((u64::MAX >> 1) - (1 << 50) + low));
    for key in keys.clone() {
        assert!(table.decide(key, Cost::ONE, at(0)).is_allow(), "{key:?}");
    }
    assert!(keys.clone().all(|key| !table.decide(key, Cost::ONE, at(0)).is_allow()));
    assert_eq!(table.live_keys(at(0)), 512);
    let stranger =
        table.decide(Key::from_hash((u64::MAX >> 1) - (1 << 50) + 512), Cost::ONE, at(0));
    assert_eq!(stranger.denial().map(|denial| denial.cause()), Some(Cause::TableFull));
}

/// A table for many keys is 80.5% full, one for few keys half.
#[test]
fn large_tables_have_room_for_their_keys_too() {
    for (keys, slots) in [(1_000, 2_048), (131_072, 262_144), (200_000, 248_832)] {
        let lines = Line::for_keys(keys);
        assert_eq!(lines * Line::SLOTS, slots, "{keys}");
        let memory = Memory::new(lines, 0);
        let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
        assert_eq!(table.slots(), slots);
        let placed = (0..keys as u64).all(|k| table.decide(key(k), Cost::ONE, at(0)).is_allow());
        assert!(placed, "{keys}");
    }
}

/// A key of which nothing is charged takes no slot from anybody.
#[test]
fn questions_and_costs_above_the_limit_bring_no_key_in() {
    fn check<P: Protocol>(protocol: P) {
        let memory = Memory::new(1, protocol.ring_words());
        let table = memory.table(protocol);
        for stranger in 100..110 {
            assert!(table.decide(key(stranger), Cost::ZERO, at(0)).is_allow());
            assert!(table.peek(key(stranger), Cost::ONE, at(0)).is_allow());
            for units in [6, 7, u64::MAX] {
                let denied = table.decide(key(stranger), Cost::new(units), at(0));
                let denied = denied.denial().expect("above the limit");
                assert_eq!((denied.cause(), denied.remaining()), (Cause::Oversized, 5));
            }
        }
        assert!((0..4).all(|user| table.decide(key(user), Cost::ONE, at(0)).is_allow()));
        let stranger = table.decide(key(100), Cost::ZERO, at(0));
        assert_eq!(stranger.denial().map(|denial| denial.cause()), Some(Cause::TableFull));
    }
    let quota = Quota::per_minute(5);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

/// Who waits as long as a full table says finds a slot, and one tick less does not do.
fn says_when_a_slot_comes_free<P: Protocol + Copy>(protocol: P) {
    // Within the limit, and in debt by whole windows and by parts.
    for units in [2, 4, 9] {
        says_when_a_slot_of(units, protocol);
    }
}

fn says_when_a_slot_of<P: Protocol>(units: u64, protocol: P) {
    let memory = Memory::new(1, protocol.ring_words());
    let table = memory.table(protocol);
    for user in 0..4 {
        let now = at(user * 3) + Duration::from_nanos(user);
        assert!(table.charge(key(user), Cost::new(units), now));
    }
    let now = at(10);
    let denial = table.decide(key(9), Cost::ONE, now).denial().expect("a full table");
    assert_eq!(denial.cause(), Cause::TableFull);
    let Retry::After(wait) = denial.retry() else { panic!("{denial:?}") };
    assert!(wait > Duration::ZERO);
    assert_eq!(denial.reset_after(), wait);
    let early = Timestamp::from_nanos((now + wait).as_nanos() - 1);
    assert!(!table.peek(key(9), Cost::ONE, early).is_allow(), "a slot before {wait:?}");
    assert!(!table.decide(key(9), Cost::ONE, early).is_allow(), "a slot before {wait:?}");
    assert!(table.decide(key(9), Cost::ONE, now + wait).is_allow(), "no slot after {wait:?}");
}

#[test]
fn a_full_table_of_any_algorithm_says_when_a_slot_comes_free() {
    let quota = Quota::per_minute(7);
    says_when_a_slot_comes_free(TokenBucket::new(quota).unwrap());
    says_when_a_slot_comes_free(TokenBucket::new(Quota::per_minute(6)).unwrap());
    says_when_a_slot_comes_free(FixedWindow::new(quota).unwrap());
    says_when_a_slot_comes_free(FixedWindow::new(Quota::per_minute(1)).unwrap());
    says_when_a_slot_comes_free(SlidingWindowCounter::new(quota, 6).unwrap());
    for limit in [1, 2] {
        says_when_a_slot_comes_free(SlidingWindowLog::new(Quota::per_minute(limit)).unwrap());
    }
}

#[test]
fn both_rules_for_a_full_table_are_counted() {
    for rule in [WhenFull::Deny, WhenFull::TakeOver] {
        let memory = Memory::new(1, 0);
        let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
        let table = table.with_when_full(rule);
        let admitted = (0..7).filter(|user| table.decide(key(*user), Cost::ONE, at(0)).is_allow());
        let told = (admitted.count(), table.tally().denied(), table.tally().taken_over());
        assert_eq!(told, if rule == WhenFull::Deny { (4, 3, 0) } else { (7, 0, 3) });
    }
}

/// Any hash may be touched, and nothing comes of it.
#[test]
fn a_touch_changes_nothing() {
    let memory = Memory::new(200, 0);
    let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
    for hash in [0, 1, 2, 3, 7, 1 << 45, u64::MAX / 3, u64::MAX - 1, u64::MAX] {
        let key = Key::from_hash(hash);
        table.touch(key);
        assert!(table.decide(key, Cost::ONE, at(0)).is_allow());
        table.touch(key);
        assert!(!table.decide(key, Cost::ONE, at(0)).is_allow());
    }
    assert_eq!(table.live_keys(at(0)), 9);
}

#[test]
fn memory_that_is_too_small_is_refused_with_what_would_do() {
    let counter = SlidingWindowCounter::new(Quota::per_minute(5), 6).unwrap();
    let (lines, tally) = ([Line::new(), Line::new()], Tally::new());
    let ring: Vec<_> = (0..56).map(|_| AtomicU64::new(0)).collect();
    let made = |lines, ring| Table::new(counter, Borrowed::new(lines, ring, &tally)).map(drop);
    assert_eq!(made(&lines, &ring), Ok(()));
    let error = made(&lines, &ring[..55]).unwrap_err();
    assert_eq!(error, TableError::Ring { words: 55, needed: 56 });
    assert_eq!(error.to_string(), "55 ring words are too few for the algorithm; give 56");
    let error = made(&[], &ring).unwrap_err();
    assert_eq!(error, TableError::NoLines);
    assert!(error.to_string().contains("give at least 1"));
}

/// The machines that this is built for swap 16 bytes as one.
#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn slots_are_swapped_without_a_lock() {
    assert!(Line::is_lock_free());
}

#[test]
fn limits_say_what_they_were_made_of() {
    let quota = Quota::per_minute(7);
    let bucket = TokenBucket::new(quota).unwrap();
    assert_eq!((bucket.burst(), bucket.with_burst(3).unwrap().burst()), (7, 3));
    assert_eq!(FixedWindow::new(quota).unwrap().limit(), 7);
    let counter = SlidingWindowCounter::new(quota, 6).unwrap();
    assert_eq!((counter.limit(), counter.epochs()), (7, 6));
    assert_eq!(SlidingWindowLog::new(quota).unwrap().limit(), 7);
}

/// For want of a slot, nothing is charged, and who charges is told so.
#[test]
fn a_charge_for_which_there_is_no_slot_is_told_and_counted() {
    let memory = Memory::new(1, 0);
    let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
    assert!((0..4).all(|user| table.charge(key(user), Cost::ONE, at(0))));
    assert!(!table.charge(key(9), Cost::ONE, at(0)));
    assert_eq!(table.tally().denied(), 1);
    assert!(table.charge(key(3), Cost::ONE, at(0)), "it has a slot");
    // What no slot would help is told before what one would.
    for (units, cause) in [(1, Cause::TableFull), (2, Cause::Oversized)] {
        let peeked = table.peek(key(9), Cost::new(units), at(0));
        let decided = table.decide(key(9), Cost::new(units), at(0));
        assert_eq!(peeked.denial().map(|denial| denial.cause()), Some(cause));
        assert_eq!(decided.denial().map(|denial| denial.cause()), Some(cause));
    }
}
