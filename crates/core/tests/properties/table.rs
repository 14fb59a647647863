//! The keyed table against a limiter per key.

use std::collections::HashMap;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Borrowed, Cause, Cost, FixedWindow, Key, Limiter, Line, Protocol, Quota, Seat,
    SlidingWindowCounter, SlidingWindowLog, Table, Tally, Timestamp, TokenBucket, WhenFull,
};

use crate::history::{self, Call, Clock, Kind, Walk, cost_of};

pub struct Memory {
    pub lines: Vec<Line>,
    pub ring: Vec<AtomicU64>,
    pub tally: Tally,
}

impl Memory {
    pub fn new(lines: usize, words: usize) -> Self {
        Self {
            lines: (0..lines).map(|_| Line::new()).collect(),
            ring: (0..lines * 4 * words).map(|_| AtomicU64::new(0)).collect(),
            tally: Tally::new(),
        }
    }

    pub fn table<P: Protocol>(&self, protocol: P) -> Table<P, Borrowed<'_>> {
        Table::new(protocol, Borrowed::new(&self.lines, &self.ring, &self.tally)).unwrap()
    }
}

/// A hash as good as a real one.
pub fn key(number: u64) -> Key {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Key::from_hash(hash ^ (hash >> 31))
}

/// Runs a history over few keys, on a table, on one that is asked by seats and without numbers, and on a
/// limiter per key: the answers are the same.
fn agrees_with_a_limiter_per_key<P: Protocol + Copy>(
    protocol: P,
    quota: Quota,
    calls: Vec<(Call, u64)>,
) -> Result<(), TestCaseError> {
    let words = protocol.ring_words();
    let memory = Memory::new(4, words);
    let table = memory.table(protocol);
    let other_memory = Memory::new(4, words);
    let seated = other_memory.table(protocol);
    // Seats that are renewed now and then: from before the key was there, and from before it was gone.
    let mut seats: HashMap<u64, Seat> = HashMap::new();
    let mut lone: HashMap<u64, Limiter<P, Vec<AtomicU64>>> = HashMap::new();
    let mut open: HashMap<u64, (Cost, Timestamp)> = HashMap::new();
    let mut walk = Walk::new(Timestamp::from_secs(1 << 30), quota.period());
    for (call, user) in calls {
        // A table forgets idle keys, and so cannot tell a time that is stale by more than a window.
        let clock = if let Clock::Stale(_) = call.clock { Clock::Stall } else { call.clock };
        let now = walk.step(clock);
        let cost = cost_of(call, quota.units());
        let limiter = lone.entry(user).or_insert_with(|| {
            Limiter::with_ring(protocol, (0..words).map(|_| AtomicU64::new(0)).collect())
        });
        match call.kind {
            Kind::Decide => {
                prop_assert_eq!(table.peek(key(user), cost, now), limiter.peek(cost, now));
                let seat = *seats.entry(user).or_insert_with(|| seated.seat(key(user)));
                prop_assert_eq!(seated.peek_in(&seat, cost, now), limiter.peek(cost, now));
                let foreseen = seated.foresee_in(&seat, cost, now).err();
                prop_assert_eq!(foreseen, limiter.peek(cost, now).denial());
                if let Some(seat) = seated.seat_if_fits(key(user), cost, now) {
                    prop_assert!(limiter.peek(cost, now).is_allow());
                    prop_assert_eq!(seated.peek_in(&seat, cost, now), limiter.peek(cost, now));
                }
                let decision = limiter.decide(cost, now);
                let ours = table.decide(key(user), cost, now);
                prop_assert_eq!(ours, decision);
                let denial = match user % 3 {
                    0 => seated.admit(key(user), cost, now).err(),
                    1 => seated.admit_in(&seat, cost, now).err(),
                    _ => {
                        let in_seat = seated.decide_in(&seat, cost, now);
                        prop_assert_eq!(in_seat, decision);
                        in_seat.denial()
                    }
                };
                prop_assert_eq!(denial, decision.denial());
                if cost.units().is_multiple_of(2) {
                    seats.insert(user, seated.seat(key(user)));
                }
                walk.note(now, &decision);
                if decision.is_allow() {
                    open.insert(user, (cost, now));
                }
            }
            Kind::Refund(_) => {
                if let Some((cost, at)) = open.remove(&user) {
                    limiter.refund(cost, at, now);
                    table.refund(key(user), cost, at, now);
                    seated.refund(key(user), cost, at, now);
                }
            }
            Kind::Charge => {
                limiter.charge(Cost::new(cost.units() / 4), now);
                prop_assert!(table.charge(key(user), Cost::new(cost.units() / 4), now));
                prop_assert!(seated.charge(key(user), Cost::new(cost.units() / 4), now));
            }
        }
    }
    Ok(())
}

fn keyed_calls() -> impl Strategy<Value = Vec<(Call, u64)>> {
    (history::all_calls(200), any::<u64>()).prop_map(|(calls, seed)| {
        let user = |index: usize| key(seed ^ index as u64).hash() % 8;
        calls.into_iter().enumerate().map(|(index, call)| (call, user(index))).collect()
    })
}

proptest! {
    #![proptest_config(history::cases(200))]

    #[test]
    fn token_buckets_keyed_are_as_alone(
        quota in history::quotas(1 << 20),
        calls in keyed_calls(),
    ) {
        agrees_with_a_limiter_per_key(TokenBucket::new(quota).unwrap(), quota, calls)?;
    }

    #[test]
    fn fixed_windows_keyed_are_as_alone(
        quota in history::quotas(1 << 20),
        calls in keyed_calls(),
    ) {
        if let Ok(window) = FixedWindow::new(quota) {
            agrees_with_a_limiter_per_key(window, quota, calls)?;
        }
    }

    #[test]
    fn sliding_counters_keyed_are_as_alone(
        quota in history::quotas(1 << 20),
        epochs in 1_usize..20,
        calls in keyed_calls(),
    ) {
        if let Ok(counter) = SlidingWindowCounter::new(quota, epochs) {
            agrees_with_a_limiter_per_key(counter, quota, calls)?;
        }
    }

    #[test]
    fn sliding_logs_keyed_are_as_alone(
        quota in history::quotas(40),
        calls in keyed_calls(),
    ) {
        agrees_with_a_limiter_per_key(SlidingWindowLog::new(quota).unwrap(), quota, calls)?;
    }
}

/// Slots change hands among many keys, some taken while live: what a key is charged never comes from
/// another, and no key gets more than its limit unless its slot was taken.
fn hands_over_cleanly<P: Protocol + Copy>(protocol: P, limit: u64, when_full: WhenFull) {
    let memory = Memory::new(1, protocol.ring_words());
    let table = memory.table(protocol).with_when_full(when_full);
    for round in 0..200_u64 {
        // A minute's limit; a round every 7 s, so that some keys are idle by then and some live.
        let now = Timestamp::from_secs(1_000_000 + round * 7);
        for user in [round, round + 1, round * 31 % 17] {
            let was_known = table.peek(key(user), Cost::ZERO, now).remaining() < limit;
            let before = table.tally().taken_over();
            let admitted = (0..limit * 2)
                .filter(|_| table.decide(key(user), Cost::ONE, now).is_allow())
                .count() as u64;
            assert!(admitted <= limit, "round {round}: {admitted} of {limit}");
            let taken = table.tally().taken_over() > before;
            if !was_known && (taken || when_full == WhenFull::TakeOver) {
                assert_eq!(admitted, limit, "round {round}: a new key has its whole limit");
            }
        }
    }
    match when_full {
        WhenFull::TakeOver => assert!(table.tally().taken_over() > 0),
        _ => assert_eq!(table.tally().taken_over(), 0),
    }
}

#[test]
fn a_slot_that_changes_hands_brings_nothing_along() {
    let quota = Quota::per_minute(10);
    for rule in [WhenFull::Deny, WhenFull::TakeOver] {
        hands_over_cleanly(SlidingWindowLog::new(quota).unwrap(), 10, rule);
        hands_over_cleanly(SlidingWindowCounter::new(quota, 6).unwrap(), 10, rule);
        hands_over_cleanly(FixedWindow::new(quota).unwrap(), 10, rule);
        hands_over_cleanly(TokenBucket::new(quota).unwrap(), 10, rule);
    }
}

#[test]
fn a_flood_of_keys_cannot_make_an_exhausted_key_fresh() {
    let memory = Memory::new(Line::for_keys(1_000), 0);
    let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
    let now = Timestamp::from_secs(1_000);
    let mine: Vec<_> = (0..500).map(key).collect();
    assert!(mine.iter().all(|key| table.decide(*key, Cost::ONE, now).is_allow()));
    let mut denied = 0;
    for stranger in 1_000..101_000 {
        let decision = table.decide(key(stranger), Cost::ONE, now);
        if let Some(denial) = decision.denial() {
            assert_eq!(denial.cause(), Cause::TableFull);
            denied += 1;
        }
    }
    assert!(mine.iter().all(|key| !table.decide(*key, Cost::ONE, now).is_allow()));
    assert_eq!(table.tally().denied(), denied);
    assert!(denied >= 100_000 - table.slots() as u64, "the overflow is counted");
    // Once idle, every slot serves another key.
    let later = now + std::time::Duration::from_secs(60);
    assert!((200_000..200_500).all(|k| table.decide(key(k), Cost::ONE, later).is_allow()));
}

#[test]
fn a_full_table_says_when_a_slot_comes_free() {
    let memory = Memory::new(1, 0);
    let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
    for user in 0..4 {
        let now = Timestamp::from_secs(1_000 + user);
        assert!(table.decide(key(user), Cost::ONE, now).is_allow());
    }
    let now = Timestamp::from_secs(1_010);
    let denial = table.decide(key(9), Cost::ONE, now).denial().unwrap();
    let wait = std::time::Duration::from_secs(50);
    assert_eq!(denial.retry(), tidegate_core::Retry::After(wait), "when the oldest is idle");
    assert!(table.decide(key(9), Cost::ONE, now + wait).is_allow());
}

#[test]
fn every_key_up_to_the_capacity_finds_room() {
    for keys in [1, 10, 100, 1_000, 10_000, 100_000] {
        let memory = Memory::new(Line::for_keys(keys), 0);
        let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
        let now = Timestamp::from_secs(1_000);
        let placed = (0..keys as u64).filter(|k| table.decide(key(*k), Cost::ONE, now).is_allow());
        assert_eq!(placed.count(), keys);
        assert_eq!(table.live_keys(now), keys);
    }
}

/// Four keys, charged in the order 2, 0, 3, 1; a newcomer takes the slot of the first, and says so
/// beforehand.
fn takes_over_the_nearest_to_idle<P: Protocol + Copy>(protocol: P) {
    let memory = Memory::new(1, protocol.ring_words());
    let denying = memory.table(protocol);
    let start = Timestamp::from_secs(1_000_000);
    let at = |s: u64| start + std::time::Duration::from_secs(s);
    for (turn, user) in [2, 0, 3, 1].into_iter().enumerate() {
        assert!(denying.decide(key(user), Cost::ONE, at(61 * turn as u64)).is_allow());
    }
    let now = at(190);
    let denial = denying.peek(key(9), Cost::ONE, now).denial().expect("a full table");
    assert_eq!(denial.cause(), Cause::TableFull);
    assert_eq!(Some(denial), denying.decide(key(9), Cost::ONE, now).denial());

    let taking = memory.table(protocol).with_when_full(WhenFull::TakeOver);
    assert!(taking.peek(key(9), Cost::ONE, now).is_allow());
    assert_eq!(taking.tally().taken_over(), 0, "a peek takes nothing");
    assert!(taking.decide(key(9), Cost::ONE, now).is_allow());
    assert_eq!(taking.tally().taken_over(), 1);
    let limit = taking.peek(key(2), Cost::ZERO, now).remaining();
    for user in [0, 3, 1, 9] {
        assert_eq!(taking.peek(key(user), Cost::ZERO, now).remaining(), limit - 1, "{user}");
    }
}

#[test]
fn a_full_table_gives_a_newcomer_the_slot_that_is_nearest_to_idle() {
    // Windows of ten minutes, so that all four are live.
    let quota = Quota::new(5, std::time::Duration::from_secs(600)).unwrap();
    takes_over_the_nearest_to_idle(SlidingWindowLog::new(quota).unwrap());
    takes_over_the_nearest_to_idle(SlidingWindowCounter::new(quota, 10).unwrap());
    let slow = Quota::new(1, std::time::Duration::from_secs(600)).unwrap();
    takes_over_the_nearest_to_idle(TokenBucket::new(slow).unwrap().with_burst(5).unwrap());
}

/// Fixed windows are all idle at the same time, but for those in debt.
#[test]
fn a_full_table_of_windows_gives_up_the_one_with_the_least_debt() {
    let memory = Memory::new(1, 0);
    let table = memory.table(FixedWindow::new(Quota::per_minute(5)).unwrap());
    let table = table.with_when_full(WhenFull::TakeOver);
    let now = Timestamp::from_secs(60_000);
    for (user, units) in [(0, 21), (1, 6), (2, 11), (3, 16)] {
        assert!(table.charge(key(user), Cost::new(units), now));
    }
    assert!(table.decide(key(9), Cost::ONE, now).is_allow());
    let is_in_debt = |user| !table.peek(key(user), Cost::ZERO, now).is_allow();
    assert!(!is_in_debt(1) && [0, 2, 3].into_iter().all(is_in_debt));
}

#[test]
fn any_number_of_lines_makes_a_table() {
    for lines in [1, 2, 3, 63, 64, 65, 100, 127, 128, 129, 200] {
        let memory = Memory::new(lines, 0);
        let table = memory.table(TokenBucket::new(Quota::per_minute(1)).unwrap());
        let now = Timestamp::from_secs(1_000);
        for user in 0..lines as u64 {
            assert!(table.decide(key(user), Cost::ONE, now).is_allow(), "{user} of {lines}");
            assert!(!table.decide(key(user), Cost::ONE, now).is_allow(), "{user} of {lines}");
        }
    }
}

/// The default of [`Algorithm::is_idle`](tidegate_core::Algorithm::is_idle) goes by `idle_at`.
#[test]
fn an_algorithm_of_ones_own_gives_its_idle_slots_to_other_keys() {
    use tidegate_core::{Algorithm, Allowance, Denial, Step};

    /// One unit, once a second.
    struct Gap;

    impl Algorithm for Gap {
        fn step(&self, word: u64, _: Cost, now: Timestamp) -> Step {
            let free_at = if word == 0 { 0 } else { word + 1_000_000_000 };
            match free_at.checked_sub(now.as_nanos()) {
                None | Some(0) => Step::Allow {
                    word: now.as_nanos(),
                    allowance: Allowance::new(0, 1_000_000_000),
                },
                Some(wait_ns) => Step::Deny(Denial::exhausted(0, wait_ns, wait_ns)),
            }
        }

        fn charge(&self, word: u64, _: Cost, now: Timestamp) -> u64 {
            word.max(now.as_nanos())
        }

        fn refund(&self, word: u64, _: Cost, _: Timestamp, _: Timestamp) -> u64 {
            word
        }

        fn idle_at(&self, word: u64) -> Timestamp {
            Timestamp::from_nanos(if word == 0 { 0 } else { word + 1_000_000_000 })
        }
    }

    let memory = Memory::new(1, 0);
    let table = memory.table(Gap);
    for user in 0..40 {
        // Four slots, and four keys a second.
        let now = Timestamp::from_nanos(10_000_000_000 + user * 250_000_000);
        assert!(table.decide(key(user), Cost::ONE, now).is_allow(), "{user}");
        assert!(!table.decide(key(user), Cost::ONE, now).is_allow(), "{user}");
        // Those who are not idle keep their slots.
        let live = user.saturating_sub(3)..user;
        assert!(live.into_iter().all(|user| !table.peek(key(user), Cost::ONE, now).is_allow()));
    }
}

/// A slot that was taken while live still holds its former key's epochs. They must not be added up for
/// the new key when its own epoch turns.
#[test]
fn a_slot_that_was_taken_while_live_counts_nothing_of_its_former_key_later() {
    let counter = SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap();
    let log = SlidingWindowLog::new(Quota::per_minute(10)).unwrap();
    // In each slot of the ring.
    for start_s in (0..6).map(|epoch| 1_000_020 + 10 * epoch) {
        counts_nothing_of_the_former_key(counter, start_s);
        counts_nothing_of_the_former_key(log, start_s);
    }
}

fn counts_nothing_of_the_former_key<P: Protocol>(protocol: P, start_s: u64) {
    let memory = Memory::new(1, protocol.ring_words());
    let table = memory.table(protocol).with_when_full(WhenFull::TakeOver);
    let decide = |user, units, s: u64| {
        let now = Timestamp::from_secs(start_s + s);
        let decision = table.decide(key(user), Cost::new(units), now);
        assert!(decision.is_allow(), "{user} at {s} s: {decision:?}");
        decision.remaining()
    };
    // The first key has units in two epochs, and is the nearest to idle.
    assert_eq!(decide(0, 5, 0), 5);
    assert_eq!(decide(0, 1, 11), 4);
    (1..4).for_each(|user| assert_eq!(decide(user, 1, 21), 9));
    assert_eq!(decide(9, 1, 22), 9);
    assert_eq!(table.tally().taken_over(), 1);
    // Its epochs turn, and it alone is counted.
    assert_eq!(decide(9, 1, 31), 8);
    assert_eq!(decide(9, 1, 42), 7);
}

/// The former key's times are free by then, but not to a call whose `now` is from before.
#[test]
fn a_slot_that_was_taken_when_idle_counts_nothing_of_its_former_key_at_a_stale_time() {
    let log = SlidingWindowLog::new(Quota::per_minute(3)).unwrap();
    let memory = Memory::new(1, log.ring_words());
    let table = memory.table(log);
    let at = |s: u64| Timestamp::from_secs(1_000_000 + s);
    (0..4).for_each(|user| assert!(table.decide(key(user), Cost::new(3), at(0)).is_allow()));
    assert!(table.decide(key(9), Cost::ONE, at(61)).is_allow());
    assert!(table.decide(key(9), Cost::ONE, at(59)).is_allow());
    assert!(table.decide(key(9), Cost::ONE, at(59)).is_allow());
    assert!(!table.decide(key(9), Cost::ONE, at(62)).is_allow());
}

/// Nor is the former key's debt, which was paid off by then, but not at the time from before.
#[test]
fn a_slot_that_was_taken_when_idle_owes_nothing_for_its_former_key_at_a_stale_time() {
    let log = SlidingWindowLog::new(Quota::per_minute(1)).unwrap();
    let memory = Memory::new(1, log.ring_words());
    let table = memory.table(log);
    let at = |s: u64| Timestamp::from_secs(1_000_000 + s);
    // To be admitted at 0 s and at 60 s, and idle from 120 s on.
    (0..4).for_each(|user| assert!(table.charge(key(user), Cost::new(2), at(0))));
    assert!(table.charge(key(9), Cost::ZERO, at(121)));
    for s in [121, 59, 1] {
        let decision = table.peek(key(9), Cost::ONE, at(s));
        assert!(decision.is_allow(), "at {s} s: {decision:?}");
    }
}

/// Both in one line, and in either order.
#[test]
fn keys_whose_hashes_differ_in_one_bit_are_apart() {
    // The bits that are compared: the low 46. Higher ones pick the set.
    for bit in 0..46 {
        for (first, second) in [(0, 1 << bit), (1 << bit, 0)] {
            let memory = Memory::new(1, 0);
            let table = memory.table(TokenBucket::new(Quota::per_minute(5)).unwrap());
            let (first, second) = (Key::from_hash(first), Key::from_hash(second));
            let now = Timestamp::from_secs(1_000);
            assert!(table.decide(first, Cost::new(5), now).is_allow());
            assert_eq!(table.peek(second, Cost::ZERO, now).remaining(), 5, "bit {bit}");
            assert!(table.decide(second, Cost::new(2), now).is_allow(), "bit {bit}");
            assert_eq!(table.peek(first, Cost::ZERO, now).remaining(), 0, "bit {bit}");
            assert_eq!(table.peek(second, Cost::ZERO, now).remaining(), 3, "bit {bit}");
        }
    }
}

/// A slot that is taken over in the epoch that its former key is in: nothing of the sum over that key's
/// completed epochs counts for the next.
#[test]
fn a_slot_that_changes_hands_within_an_epoch_leaves_no_sum_behind() {
    let counter = SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap();
    let memory = Memory::new(1, counter.ring_words());
    let table = memory.table(counter).with_when_full(WhenFull::TakeOver);
    let at = |s: u64| Timestamp::from_secs(1_000_020 + s);
    for (user, s) in (0..4).flat_map(|user| [(user, 0), (user, 11)]) {
        assert!(table.decide(key(user), Cost::new(4), at(s)).is_allow());
    }
    for (left, s) in [(9, 12), (8, 13)] {
        let decision = table.decide(key(9), Cost::ONE, at(s));
        assert!(decision.is_allow());
        assert_eq!(decision.remaining(), left);
    }
    assert_eq!(memory.tally.taken_over(), 1);
}

/// A log whose only charge was taken back is as new at once.
#[test]
fn a_log_that_is_refunded_whole_is_idle() {
    let log = SlidingWindowLog::new(Quota::per_minute(3)).unwrap();
    let memory = Memory::new(1, log.ring_words());
    let table = memory.table(log);
    let now = Timestamp::from_secs(1_000_000);
    assert!(table.decide(key(1), Cost::new(3), now).is_allow());
    assert_eq!(table.live_keys(now), 1);
    table.refund(key(1), Cost::new(3), now, now);
    assert_eq!(table.live_keys(now), 0);
    assert!(table.decide(key(1), Cost::new(3), now).is_allow());
}

/// A log whose debt was taken back still has what was used before.
#[test]
fn a_log_whose_debt_was_refunded_keeps_its_slot() {
    let log = SlidingWindowLog::new(Quota::per_minute(2)).unwrap();
    let memory = Memory::new(1, log.ring_words());
    let table = memory.table(log);
    let now = Timestamp::from_secs(1_000_000);
    for user in 0..4 {
        assert!(table.charge(key(user), Cost::new(3), now));
        table.refund(key(user), Cost::ONE, now, now);
    }
    assert_eq!(table.live_keys(now), 4);
    let newcomer = table.decide(key(9), Cost::ONE, now);
    assert_eq!(newcomer.denial().map(|denial| denial.cause()), Some(Cause::TableFull));
    for user in 0..4 {
        assert_eq!(table.peek(key(user), Cost::ZERO, now).remaining(), 0, "{user}");
    }
}
