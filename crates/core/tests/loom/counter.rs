//! The sliding window counter: seal, file, move the base, open; with late helpers, refunds, and
//! threads that stop in between.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tidegate_core::{AtomicU64, Cost, Decision, Limiter, Quota, SlidingWindowCounter, Timestamp};

use crate::admitted::{Admitted, each_stop, explore, explore_fewer, stopped};

/// Two epochs, so that a window touches three.
const WINDOW: u64 = 20;

type Counter = Limiter<SlidingWindowCounter, Vec<AtomicU64>>;

fn limiter(limit: u64) -> Counter {
    let quota = Quota::new(limit, Duration::from_nanos(WINDOW)).unwrap();
    let ring = (0..3).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(SlidingWindowCounter::new(quota, 2).unwrap(), ring)
}

fn at(ns: u64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

fn decide_all(limiter: &Counter, admitted: &Admitted, times: &[u64]) {
    for &ns in times {
        admitted.call(at(ns), 1, || limiter.decide(Cost::ONE, at(ns)).is_allow());
    }
}

#[test]
fn the_bound_holds_while_threads_turn_epochs_at_different_times() {
    explore_fewer(3, || {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[105]);
        let spawn = |times: &'static [u64]| {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, times))
        };
        let first = spawn(&[112, 131]);
        let second = spawn(&[121, 122]);
        first.join().unwrap();
        second.join().unwrap();
        decide_all(&limiter, &admitted, &[132, 133]);
        admitted.assert_bound(WINDOW, 2);
    });
}

/// Without the seal, a unit that is admitted between the filing of its epoch's count and the move of
/// the base is counted nowhere.
#[test]
fn an_admission_races_with_the_turn_of_its_epoch_and_is_counted() {
    explore(3, || {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[111]);
        let turner = {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, &[121]))
        };
        decide_all(&limiter, &admitted, &[112]);
        turner.join().unwrap();
        decide_all(&limiter, &admitted, &[122]);
        assert_eq!(admitted.total(), 2);
    });
}

#[test]
fn three_threads_that_meet_a_sealed_head_finish_one_turn() {
    explore_fewer(2, || {
        let (limiter, admitted) = (Arc::new(limiter(3)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[105, 115]);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (limiter, admitted) = (limiter.clone(), admitted.clone());
                thread::spawn(move || decide_all(&limiter, &admitted, &[121]))
            })
            .collect();
        decide_all(&limiter, &admitted, &[121]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(admitted.total(), 3);
    });
}

#[test]
fn a_refund_into_a_completed_epoch_races_with_its_turn() {
    explore(3, || {
        let limiter = Arc::new(limiter(2));
        assert!(limiter.decide(Cost::new(2), at(105)).is_allow());
        let admitted = Arc::new(Admitted::default());
        let refunder = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.refund(Cost::ONE, at(105), at(112)))
        };
        let turner = {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, &[113, 121]))
        };
        refunder.join().unwrap();
        turner.join().unwrap();
        decide_all(&limiter, &admitted, &[122, 123]);
        // One unit of 105 stays until 130, so one more fits before.
        assert!(admitted.total() <= 1);
        // Whatever became of the base meanwhile, the next turn has it right.
        decide_all(&limiter, &admitted, &[131, 132, 133]);
        assert_eq!(admitted.total(), 2);
    });
}

/// The refund lowers the count of its epoch, a turn adds up the lowered count, and then the refund comes
/// to the base: which has it already, and must not be lowered again.
#[test]
fn a_refund_that_is_overtaken_by_a_turn_is_counted_once() {
    explore(3, || {
        let limiter = Arc::new(limiter(3));
        assert!(limiter.decide(Cost::new(2), at(105)).is_allow());
        assert!(limiter.decide(Cost::ONE, at(112)).is_allow());
        let refunder = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.refund(Cost::ONE, at(105), at(113)))
        };
        let admitted = Arc::new(Admitted::default());
        let turner = {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, &[121]))
        };
        refunder.join().unwrap();
        turner.join().unwrap();
        decide_all(&limiter, &admitted, &[122, 123]);
        assert!(admitted.total() <= 1, "one of 105 and one of 112 stay until 130");
    });
}

#[test]
fn two_refunds_of_one_epoch_free_both_units_and_no_more() {
    explore(3, || {
        let limiter = Arc::new(limiter(3));
        assert!(limiter.decide(Cost::new(3), at(105)).is_allow());
        limiter.charge(Cost::ZERO, at(111)); // the epoch is completed
        let refunders: Vec<_> = (0..2)
            .map(|_| {
                let limiter = limiter.clone();
                thread::spawn(move || limiter.refund(Cost::ONE, at(105), at(112)))
            })
            .collect();
        refunders.into_iter().for_each(|refunder| refunder.join().unwrap());
        assert_eq!(limiter.peek(Cost::ZERO, at(112)).remaining(), 2);
    });
}

#[test]
fn a_thread_stopped_at_any_step_of_a_turn_holds_nobody_up() {
    each_stop(2, 0..16, |stop| {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[105, 112]);
        let victim = {
            let limiter = limiter.clone();
            thread::spawn(move || {
                stopped(stop, || {
                    let _ = limiter.decide(Cost::ONE, at(131));
                });
            })
        };
        decide_all(&limiter, &admitted, &[131, 133]);
        victim.join().unwrap();
        decide_all(&limiter, &admitted, &[134]);
        // The unit of 112 counts until 140, so one is free; the victim may have taken it.
        admitted.assert_bound(WINDOW, 2);
        assert!(limiter.decide(Cost::ONE, at(175)).is_allow(), "held up");
    });
}

/// Who sees a head sees what was filed before it: units that were charged beforehand never vanish from
/// an answer, at any moment of a turn.
#[test]
fn a_peek_in_the_middle_of_a_turn_misses_no_unit() {
    explore(3, || {
        let limiter = Arc::new(limiter(4));
        assert!(limiter.decide(Cost::new(2), at(105)).is_allow());
        let looks = {
            let limiter = limiter.clone();
            thread::spawn(move || {
                assert!(limiter.peek(Cost::ZERO, at(113)).remaining() <= 2);
                assert!(limiter.peek(Cost::ZERO, at(113)).remaining() <= 2);
            })
        };
        assert!(limiter.decide(Cost::ONE, at(112)).is_allow());
        looks.join().unwrap();
        assert_eq!(limiter.peek(Cost::ZERO, at(113)).remaining(), 1);
    });
}

/// In either order, the unit of 95 is free afterwards: who sees the head in a later epoch sees the count
/// that was filed.
#[test]
fn a_refund_or_a_top_up_that_meets_a_turn_frees_its_unit() {
    let free: [fn(&Counter); 2] = [
        |limiter| limiter.refund(Cost::ONE, at(95), at(112)),
        |limiter| limiter.forgive(Cost::ONE, at(112)),
    ];
    for free in free {
        explore(3, move || {
            let limiter = Arc::new(limiter(2));
            assert!(limiter.decide(Cost::ONE, at(95)).is_allow());
            let turner = {
                let limiter = limiter.clone();
                thread::spawn(move || limiter.charge(Cost::ZERO, at(112)))
            };
            free(&limiter);
            turner.join().unwrap();
            assert_eq!(limiter.peek(Cost::ZERO, at(113)).remaining(), 2);
        });
    }
}

/// Who is admitted by a refund goes on to see it.
#[test]
fn who_is_admitted_by_a_refund_sees_it_afterwards() {
    explore(3, || {
        let limiter = Arc::new(limiter(3));
        assert!(limiter.decide(Cost::new(3), at(105)).is_allow());
        limiter.charge(Cost::ZERO, at(112));
        let refunder = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.refund(Cost::new(2), at(105), at(112)))
        };
        if let Decision::Allow(allowance) = limiter.decide(Cost::ONE, at(113)) {
            assert_eq!(allowance.remaining(), 1);
            assert_eq!(limiter.peek(Cost::ZERO, at(113)).remaining(), 1);
        }
        refunder.join().unwrap();
    });
}

/// With and without numbers.
#[test]
fn a_sealed_head_that_is_met_at_first_sight_is_finished_and_counted() {
    let allows: [fn(&Counter) -> bool; 2] = [
        |limiter| limiter.decide(Cost::ONE, at(121)).is_allow(),
        |limiter| limiter.admit(Cost::ONE, at(121)).is_ok(),
    ];
    for allows in allows {
        explore(3, move || {
            let (limiter, admitted) = (Arc::new(limiter(3)), Arc::new(Admitted::default()));
            decide_all(&limiter, &admitted, &[105, 115]);
            let other = {
                let (limiter, admitted) = (limiter.clone(), admitted.clone());
                thread::spawn(move || admitted.call(at(121), 1, || allows(&limiter)))
            };
            admitted.call(at(121), 1, || allows(&limiter));
            other.join().unwrap();
            admitted.call(at(121), 1, || allows(&limiter));
            assert_eq!(admitted.total(), 3);
        });
    }
}
