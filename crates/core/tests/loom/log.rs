//! The sliding window log: begin, admit, postpone, take back; with late writers, and threads that stop
//! in between.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tidegate_core::{AtomicU64, Cost, Limiter, Quota, SlidingWindowLog, Timestamp};

use crate::admitted::{Admitted, each_stop, explore, stopped};

const WINDOW: u64 = 20;

type Log = Limiter<SlidingWindowLog, Vec<AtomicU64>>;

fn limiter(limit: u64) -> Log {
    let quota = Quota::new(limit, Duration::from_nanos(WINDOW)).unwrap();
    let ring = (0..=limit).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(SlidingWindowLog::new(quota).unwrap(), ring)
}

fn at(ns: u64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

/// Every other call is without numbers, which takes a shorter way.
fn decide_all(limiter: &Log, admitted: &Admitted, calls: &[(u64, u64)]) {
    for &(ns, units) in calls {
        let cost = Cost::new(units);
        admitted.call(at(ns), units, || match (ns + units) % 2 {
            0 => limiter.decide(cost, at(ns)).is_allow(),
            _ => limiter.admit(cost, at(ns)).is_ok(),
        });
    }
}

#[test]
fn the_bound_holds_while_threads_disagree_on_the_time() {
    explore(3, || {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[(105, 1)]);
        let spawn = |calls: &'static [(u64, u64)]| {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, calls))
        };
        let ahead = spawn(&[(125, 1), (146, 1)]);
        let behind = spawn(&[(119, 1), (139, 1)]);
        ahead.join().unwrap();
        behind.join().unwrap();
        admitted.assert_bound(WINDOW, 2);
    });
}

/// A thread that finds an entry free and stops may not write its earlier time over one that was
/// admitted meanwhile: that unit would expire too soon.
#[test]
fn a_late_writer_does_not_make_an_admitted_unit_older() {
    explore(3, || {
        let (limiter, admitted) = (Arc::new(limiter(1)), Arc::new(Admitted::default()));
        let spawn = |calls: &'static [(u64, u64)]| {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, calls))
        };
        let ahead = spawn(&[(115, 1)]);
        let behind = spawn(&[(105, 1)]);
        ahead.join().unwrap();
        behind.join().unwrap();
        decide_all(&limiter, &admitted, &[(126, 1)]);
        admitted.assert_bound(WINDOW, 1);
        assert_ne!(admitted.total(), 0);
    });
}

#[test]
fn threads_admit_exactly_the_limit_at_a_frozen_clock() {
    explore(2, || {
        let (limiter, admitted) = (Arc::new(limiter(3)), Arc::new(Admitted::default()));
        let threads: Vec<_> = [2, 1]
            .map(|units| {
                let (limiter, admitted) = (limiter.clone(), admitted.clone());
                thread::spawn(move || decide_all(&limiter, &admitted, &[(105, units)]))
            })
            .into();
        decide_all(&limiter, &admitted, &[(105, 1)]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        decide_all(&limiter, &admitted, &[(105, 1), (105, 1)]);
        assert_eq!(admitted.total(), 3);
    });
}

#[test]
fn a_refund_races_with_decisions_and_frees_its_units_once() {
    explore(3, || {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[(105, 1), (107, 1)]);
        let refunder = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.refund(Cost::ONE, at(107), at(108)))
        };
        let other = {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, &[(109, 1), (109, 1)]))
        };
        refunder.join().unwrap();
        other.join().unwrap();
        decide_all(&limiter, &admitted, &[(110, 1), (110, 1)]);
        assert_eq!(admitted.total(), 3, "two, and the one that was refunded");
    });
}

#[test]
fn debt_races_with_decisions_and_is_not_lost() {
    explore(3, || {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[(105, 1)]);
        let settler = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.charge(Cost::new(2), at(110)))
        };
        decide_all(&limiter, &admitted, &[(111, 1)]);
        settler.join().unwrap();
        decide_all(&limiter, &admitted, &[(112, 1), (126, 1), (126, 1)]);
        // Without the decision: 105, 110, and one put off to 125, so the second of 126 must wait to 130.
        // With it: 105, 111, and two put off, so both must wait.
        let late = admitted.total() - 1;
        assert!(late <= 1, "{late}");
    });
}

#[test]
fn a_thread_stopped_at_any_step_of_a_decision_leaves_nothing_behind() {
    each_stop(2, 0..14, |stop| {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[(105, 1), (106, 1)]);
        let victim = {
            let limiter = limiter.clone();
            thread::spawn(move || {
                stopped(stop, || {
                    let _ = limiter.decide(Cost::new(2), at(127));
                });
            })
        };
        decide_all(&limiter, &admitted, &[(128, 1)]);
        victim.join().unwrap();
        decide_all(&limiter, &admitted, &[(129, 1), (129, 1)]);
        admitted.assert_bound(WINDOW, 2);
        assert!(limiter.decide(Cost::new(2), at(150)).is_allow(), "held up");
    });
}

#[test]
fn a_thread_stopped_at_any_step_of_a_debt_admits_nothing_too_early() {
    each_stop(2, 0..14, |stop| {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        decide_all(&limiter, &admitted, &[(105, 1), (106, 1)]);
        let victim = {
            let limiter = limiter.clone();
            thread::spawn(move || stopped(stop, || limiter.charge(Cost::ONE, at(110))))
        };
        decide_all(&limiter, &admitted, &[(111, 1), (125, 1)]);
        victim.join().unwrap();
        decide_all(&limiter, &admitted, &[(125, 1), (126, 1)]);
        admitted.assert_bound(WINDOW, 2);
        assert!(limiter.decide(Cost::new(2), at(170)).is_allow(), "held up");
    });
}

/// Who sees a head sees the times before it, so a charge that is behind is recorded after them.
#[test]
fn a_charge_that_is_behind_is_recorded_at_the_latest_time() {
    explore(3, || {
        let limiter = Arc::new(limiter(2));
        let ahead = {
            let limiter = limiter.clone();
            thread::spawn(move || assert!(limiter.decide(Cost::ONE, at(130)).is_allow()))
        };
        limiter.charge(Cost::ONE, at(110));
        ahead.join().unwrap();
        let decision = limiter.peek(Cost::ZERO, at(131));
        assert_eq!(decision.reset_after(), Duration::from_nanos(19), "130 counts until 150");
    });
}

/// An entry that was begun at the time of a charge, and admitted later by somebody else, is not that
/// charge's: the unit to be freed is the older one.
#[test]
fn a_refund_does_not_take_a_later_unit_for_its_own() {
    each_stop(3, 0..9, |stop| {
        let (limiter, admitted) = (Arc::new(limiter(2)), Arc::new(Admitted::default()));
        assert!(limiter.decide(Cost::ONE, at(105)).is_allow());
        // At one of these stops, it has begun the second entry and not swapped the head.
        let victim = {
            let limiter = limiter.clone();
            thread::spawn(move || {
                stopped(stop, || {
                    let _ = limiter.admit(Cost::ONE, at(105));
                });
            })
        };
        victim.join().unwrap();
        let other = {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || decide_all(&limiter, &admitted, &[(115, 1)]))
        };
        limiter.refund(Cost::ONE, at(105), at(116));
        other.join().unwrap();
        decide_all(&limiter, &admitted, &[(125, 1), (126, 1)]);
        admitted.assert_bound(WINDOW, 2);
    });
}

/// A thread that means to postpone an entry and comes late may not write over one that was used meanwhile:
/// that unit would expire too soon.
#[test]
fn a_late_debt_does_not_make_an_admitted_unit_older() {
    each_stop(2, 0..14, |stop| {
        let (limiter, admitted) = (Arc::new(limiter(1)), Arc::new(Admitted::default()));
        assert!(limiter.decide(Cost::ONE, at(105)).is_allow());
        let victim = {
            let limiter = limiter.clone();
            thread::spawn(move || stopped(stop, || limiter.charge(Cost::ONE, at(106))))
        };
        limiter.charge(Cost::ONE, at(107));
        decide_all(&limiter, &admitted, &[(166, 1)]);
        victim.join().unwrap();
        decide_all(&limiter, &admitted, &[(170, 1), (185, 1)]);
        admitted.assert_bound(WINDOW, 1);
    });
}

/// A refund of the oldest unit may not vacate its entry once a debt is written there.
#[test]
fn a_refund_that_meets_a_debt_leaves_its_entry() {
    explore(3, || {
        let limiter = Arc::new(limiter(2));
        for ns in [105, 106] {
            assert!(limiter.decide(Cost::ONE, at(ns)).is_allow());
        }
        let debtor = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.charge(Cost::ONE, at(107)))
        };
        limiter.refund(Cost::ONE, at(105), at(108));
        debtor.join().unwrap();
        assert!(!limiter.decide(Cost::ONE, at(109)).is_allow(), "two units of three are charged");
    });
}

#[test]
fn two_refunds_of_the_oldest_units_free_two() {
    explore(3, || {
        let limiter = Arc::new(limiter(3));
        for ns in [105, 105, 106] {
            assert!(limiter.decide(Cost::ONE, at(ns)).is_allow());
        }
        let other = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.refund(Cost::ONE, at(105), at(108)))
        };
        limiter.refund(Cost::ONE, at(105), at(108));
        other.join().unwrap();
        assert!(limiter.decide(Cost::new(2), at(109)).is_allow());
    });
}
