//! The keyed table: claims, double claims, takeovers of idle and of live slots, racing with charges;
//! with threads that stop in between. A line has two slots in a model.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tidegate_core::{
    AtomicU64, Cost, Key, Line, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog, Storage,
    Table, Tally, Timestamp, TokenBucket, WhenFull,
};

use crate::admitted::{Admitted, each_stop, each_stop_fewer, explore, explore_fewer, stopped};

const WINDOW: u64 = 20;

struct Memory {
    lines: Vec<Line>,
    ring: Vec<AtomicU64>,
    tally: Tally,
}

impl Storage for Memory {
    fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}

fn table<P: Protocol>(lines: usize, protocol: P) -> Table<P, Memory> {
    let words = protocol.ring_words();
    let memory = Memory {
        lines: (0..lines).map(|_| Line::new()).collect(),
        ring: (0..lines * 2 * words).map(|_| AtomicU64::new(0)).collect(),
        tally: Tally::new(),
    };
    Table::new(protocol, memory).unwrap()
}

fn quota(limit: u64) -> Quota {
    Quota::new(limit, Duration::from_nanos(WINDOW)).unwrap()
}

fn bucket(limit: u64) -> TokenBucket {
    TokenBucket::new(quota(limit)).unwrap()
}

/// Keys whose fingerprints a model has room for; all in the first line.
fn key(number: u64) -> Key {
    Key::from_hash(number << 40)
}

fn at(ns: u64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

fn decide<P: Protocol>(table: &Table<P, Memory>, admitted: &Admitted, user: u64, times: &[u64]) {
    for &ns in times {
        admitted.call(at(ns), 1, || table.decide(key(user), Cost::ONE, at(ns)).is_allow());
    }
}

#[test]
fn two_threads_that_bring_in_one_key_agree_on_one_slot() {
    explore(3, || {
        let (table, admitted) = (Arc::new(table(1, bucket(1))), Arc::new(Admitted::default()));
        let other = {
            let (table, admitted) = (table.clone(), admitted.clone());
            thread::spawn(move || decide(&table, &admitted, 1, &[100]))
        };
        decide(&table, &admitted, 1, &[100]);
        other.join().unwrap();
        assert_eq!(admitted.total(), 1);
        assert_eq!(table.live_keys(at(100)), 1);
    });
}

/// One thread finds the first slot idle, the other, whose clock is behind, does not and goes on to the
/// second: two claims for one key, in two slots.
#[test]
fn double_claims_in_different_slots_leave_one() {
    explore(3, || {
        let (table, admitted) = (Arc::new(table(1, bucket(1))), Arc::new(Admitted::default()));
        assert!(table.decide(key(9), Cost::ONE, at(80)).is_allow()); // idle from 100 on
        let behind = {
            let (table, admitted) = (table.clone(), admitted.clone());
            thread::spawn(move || decide(&table, &admitted, 1, &[99]))
        };
        decide(&table, &admitted, 1, &[101]);
        behind.join().unwrap();
        decide(&table, &admitted, 1, &[102]);
        assert_eq!(admitted.total(), 1, "each slot would admit one");
    });
}

#[test]
fn three_threads_with_two_idle_slots_leave_one() {
    explore_fewer(2, || {
        let (table, admitted) = (Arc::new(table(2, bucket(1))), Arc::new(Admitted::default()));
        assert!(table.decide(key(8), Cost::ONE, at(80)).is_allow()); // idle from 100 on
        assert!(table.decide(key(9), Cost::ONE, at(82)).is_allow()); // idle from 102 on
        let spawn = |ns: u64| {
            let (table, admitted) = (table.clone(), admitted.clone());
            thread::spawn(move || decide(&table, &admitted, 1, &[ns]))
        };
        let (first, second) = (spawn(99), spawn(101));
        decide(&table, &admitted, 1, &[103]);
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(admitted.total(), 1);
    });
}

/// A charge to a key that is just idle races with a newcomer that takes its slot. The key's own bound
/// holds, wherever the charge lands.
#[test]
fn a_charge_races_with_the_takeover_of_its_idle_slot() {
    explore(3, || {
        let table = Arc::new(table(1, bucket(1)));
        let (ours, theirs) = (Arc::new(Admitted::default()), Arc::new(Admitted::default()));
        decide(&table, &ours, 1, &[100]);
        decide(&table, &theirs, 2, &[105]);
        let newcomer = {
            let (table, theirs) = (table.clone(), theirs.clone());
            thread::spawn(move || decide(&table, &theirs, 3, &[121]))
        };
        decide(&table, &ours, 1, &[120, 121]);
        newcomer.join().unwrap();
        decide(&table, &ours, 1, &[122]);
        ours.assert_bound(WINDOW, 1);
        assert!(theirs.total() <= 2);
    });
}

#[test]
fn a_newcomer_that_takes_over_a_live_slot_is_charged_alone() {
    explore(3, || {
        let table = table(1, bucket(1)).with_when_full(WhenFull::TakeOver);
        let (table, ours) = (Arc::new(table), Arc::new(Admitted::default()));
        decide(&table, &ours, 8, &[100]);
        decide(&table, &ours, 9, &[101]);
        let newcomers: Vec<_> = [1, 2]
            .map(|user| {
                let table = table.clone();
                thread::spawn(move || {
                    let admitted = Admitted::default();
                    decide(&table, &admitted, user, &[105]);
                    assert_eq!(admitted.total(), 1, "a new key has its whole limit");
                })
            })
            .into();
        newcomers.into_iter().for_each(|newcomer| newcomer.join().unwrap());
        assert_eq!(table.tally().taken_over(), 2);
    });
}

/// Late writers of the ring's former key must not touch the new key's counts.
#[test]
fn a_counter_slot_changes_hands_while_its_former_key_turns_an_epoch() {
    explore(2, || {
        let counter = SlidingWindowCounter::new(quota(1), 2).unwrap();
        let table = table(1, counter).with_when_full(WhenFull::TakeOver);
        let (table, theirs) = (Arc::new(table), Arc::new(Admitted::default()));
        // Should the former key have to come in again, it takes the other slot, which is older.
        assert!(table.decide(key(8), Cost::ONE, at(95)).is_allow());
        assert!(table.decide(key(9), Cost::ONE, at(105)).is_allow());
        let former = {
            let table = table.clone();
            thread::spawn(move || {
                let _ = table.decide(key(8), Cost::ONE, at(121));
            })
        };
        decide(&table, &theirs, 1, &[115, 123]);
        former.join().unwrap();
        decide(&table, &theirs, 1, &[124, 136]);
        assert_eq!(theirs.total(), 1, "115 counts until 140");
    });
}

#[test]
fn a_log_slot_changes_hands_while_its_former_key_decides_and_refunds() {
    explore(2, || {
        let log = SlidingWindowLog::new(quota(1)).unwrap();
        let table = table(1, log).with_when_full(WhenFull::TakeOver);
        let (table, theirs) = (Arc::new(table), Arc::new(Admitted::default()));
        assert!(table.decide(key(8), Cost::ONE, at(100)).is_allow());
        assert!(table.decide(key(9), Cost::ONE, at(120)).is_allow());
        let former = {
            let table = table.clone();
            thread::spawn(move || {
                table.refund(key(8), Cost::ONE, at(100), at(101));
                let _ = table.decide(key(8), Cost::ONE, at(121));
            })
        };
        decide(&table, &theirs, 1, &[121, 122]);
        former.join().unwrap();
        decide(&table, &theirs, 1, &[123]);
        theirs.assert_bound(WINDOW, 1);
        assert!(theirs.total() <= 1 || table.tally().taken_over() > 1);
    });
}

#[test]
fn a_thread_stopped_at_any_step_of_a_claim_holds_nobody_up() {
    each_stop(2, 0..24, |stop| {
        let (table, admitted) = (Arc::new(table(1, bucket(1))), Arc::new(Admitted::default()));
        assert!(table.decide(key(9), Cost::ONE, at(80)).is_allow()); // idle from 100 on
        let victim = {
            let table = table.clone();
            thread::spawn(move || {
                stopped(stop, || {
                    let _ = table.decide(key(1), Cost::ONE, at(99));
                });
            })
        };
        decide(&table, &admitted, 1, &[101]);
        victim.join().unwrap();
        decide(&table, &admitted, 1, &[102]);
        assert!(admitted.total() <= 1, "the victim may have taken it");
        // Everybody is idle by now, and both slots are there for others.
        for user in [3, 4] {
            assert!(table.decide(key(user), Cost::ONE, at(200)).is_allow(), "held up");
        }
    });
}

#[test]
fn a_thread_stopped_while_it_clears_a_ring_holds_nobody_up() {
    each_stop_fewer(2, 0..30, |stop| {
        let log = SlidingWindowLog::new(quota(1)).unwrap();
        let table = Arc::new(table(1, log).with_when_full(WhenFull::TakeOver));
        for user in [8, 9] {
            assert!(table.decide(key(user), Cost::ONE, at(100)).is_allow());
        }
        let victim = {
            let table = table.clone();
            thread::spawn(move || {
                stopped(stop, || {
                    let _ = table.decide(key(1), Cost::ONE, at(105));
                });
            })
        };
        let admitted = Admitted::default();
        decide(&table, &admitted, 1, &[106]);
        victim.join().unwrap();
        decide(&table, &admitted, 1, &[107]);
        assert!(admitted.total() <= 1);
        assert!(table.decide(key(1), Cost::ONE, at(130)).is_allow(), "held up");
    });
}

/// The same as alone: units that were charged beforehand never vanish from an answer.
#[test]
fn a_peek_in_the_middle_of_a_keyed_turn_misses_no_unit() {
    explore(3, || {
        let table = Arc::new(table(1, SlidingWindowCounter::new(quota(4), 2).unwrap()));
        assert!(table.decide(key(1), Cost::new(2), at(105)).is_allow());
        let looks = {
            let table = table.clone();
            thread::spawn(move || {
                assert!(table.peek(key(1), Cost::ZERO, at(113)).remaining() <= 2);
                assert!(table.peek(key(1), Cost::ZERO, at(113)).remaining() <= 2);
            })
        };
        assert!(table.decide(key(1), Cost::ONE, at(112)).is_allow());
        looks.join().unwrap();
        assert_eq!(table.peek(key(1), Cost::ZERO, at(113)).remaining(), 1);
    });
}

/// A thread that helps to hand a slot over, and wakes up when its new key has filed a count, takes that for
/// the former key's no more: who sees the count sees that the slot is handed over.
#[test]
fn a_late_helper_of_a_claim_clears_nothing_of_its_key() {
    explore(2, || {
        let counter = SlidingWindowCounter::new(quota(2), 2).unwrap();
        let table = table(1, counter).with_when_full(WhenFull::TakeOver);
        let (table, admitted) = (Arc::new(table), Arc::new(Admitted::default()));
        // The first is nearest to idle, and has a count where the next key will file its own.
        for (user, ns) in [(8, 85), (8, 95), (9, 105)] {
            assert!(table.decide(key(user), Cost::ONE, at(ns)).is_allow());
        }
        let other = {
            let (table, admitted) = (table.clone(), admitted.clone());
            thread::spawn(move || decide(&table, &admitted, 1, &[106, 112]))
        };
        admitted.call(at(106), 1, || table.decide(key(1), Cost::ONE, at(106)).is_allow());
        other.join().unwrap();
        decide(&table, &admitted, 1, &[113]);
        assert_eq!(admitted.total(), 2, "106 counts until 130");
    });
}

/// Who sees that a ring is being cleared sees that its slot is another key's: what is told is of the key as
/// it was, or of one that has no slot, and nothing in between.
#[test]
fn a_peek_that_meets_a_takeover_tells_no_half_of_it() {
    fn check<P: Protocol + Copy + Send + Sync + 'static>(protocol: P, charges: [(u64, u64); 3]) {
        explore(3, move || {
            let table = Arc::new(table(1, protocol).with_when_full(WhenFull::TakeOver));
            // The first is nearest to idle.
            for (user, ns) in charges {
                assert!(table.decide(key(user), Cost::ONE, at(ns)).is_allow());
            }
            let newcomer = {
                let table = table.clone();
                thread::spawn(move || {
                    assert!(table.decide(key(1), Cost::ONE, at(106)).is_allow());
                })
            };
            let left = table.peek(key(8), Cost::ZERO, at(96)).remaining();
            newcomer.join().unwrap();
            assert_ne!(left, 3, "one of two units");
        });
    }
    check(SlidingWindowCounter::new(quota(4), 2).unwrap(), [(8, 85), (8, 95), (9, 105)]);
    check(SlidingWindowLog::new(quota(4)).unwrap(), [(8, 95), (8, 95), (9, 105)]);
}

/// The same as alone: who finds a head that another thread has just swapped in sees what was filed before.
#[test]
fn a_keyed_refund_that_meets_a_turn_frees_its_unit() {
    explore(3, || {
        let table = Arc::new(table(1, SlidingWindowCounter::new(quota(2), 2).unwrap()));
        assert!(table.decide(key(1), Cost::ONE, at(95)).is_allow());
        let turner = {
            let table = table.clone();
            thread::spawn(move || assert!(table.charge(key(1), Cost::ZERO, at(112))))
        };
        table.refund(key(1), Cost::ONE, at(95), at(112));
        turner.join().unwrap();
        assert_eq!(table.peek(key(1), Cost::ZERO, at(113)).remaining(), 2);
    });
}
