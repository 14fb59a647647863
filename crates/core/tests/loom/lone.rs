//! One word, swapped by several threads.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tidegate_core::{Cost, FixedWindow, Limiter, Quota, Timestamp, TokenBucket};

use crate::admitted::{Admitted, explore};

fn at(ns: u64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

#[test]
fn a_lone_word_admits_exactly_its_limit_at_a_frozen_clock() {
    explore(3, || {
        let quota = Quota::new(3, Duration::from_nanos(30)).unwrap();
        let limiter = Arc::new(Limiter::new(TokenBucket::new(quota).unwrap()));
        let admitted = Arc::new(Admitted::default());
        let call = |limiter: Arc<Limiter<TokenBucket>>, admitted: Arc<Admitted>| {
            move || {
                for _ in 0..2 {
                    admitted.call(at(100), 1, || limiter.decide(Cost::ONE, at(100)).is_allow());
                }
            }
        };
        let others: Vec<_> =
            (0..2).map(|_| thread::spawn(call(limiter.clone(), admitted.clone()))).collect();
        call(limiter.clone(), admitted.clone())();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(admitted.total(), 3);
    });
}

#[test]
fn a_lone_word_holds_its_bound_while_threads_disagree_on_the_time() {
    explore(3, || {
        let quota = Quota::new(1, Duration::from_nanos(10)).unwrap();
        let limiter = Arc::new(Limiter::new(TokenBucket::new(quota).unwrap()));
        let admitted = Arc::new(Admitted::default());
        let call = |times: [u64; 2]| {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            move || {
                for ns in times {
                    admitted.call(at(ns), 1, || limiter.decide(Cost::ONE, at(ns)).is_allow());
                }
            }
        };
        let ahead = thread::spawn(call([108, 118]));
        let behind = thread::spawn(call([95, 105]));
        call([100, 110])();
        ahead.join().unwrap();
        behind.join().unwrap();
        // 95 to 118 is a burst of 1 and a refill of 2.
        assert!(admitted.total() <= 3, "{}", admitted.total());
    });
}

#[test]
fn a_refund_and_a_settle_race_with_decisions_and_with_the_next_window() {
    explore(3, || {
        let quota = Quota::new(2, Duration::from_nanos(100)).unwrap();
        let limiter = Arc::new(Limiter::new(FixedWindow::new(quota).unwrap()));
        assert!(limiter.decide(Cost::new(2), at(199)).is_allow());
        let refunder = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.refund(Cost::ONE, at(199), at(201)))
        };
        let settler = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.charge(Cost::ONE, at(201)))
        };
        let admitted = (0..3).filter(|_| limiter.decide(Cost::ONE, at(202)).is_allow()).count();
        refunder.join().unwrap();
        settler.join().unwrap();
        let settled = limiter.peek(Cost::ZERO, at(202)).remaining();
        // The settled unit falls into either window. In the old one it is paid off or was refunded.
        assert!(admitted <= 2);
        assert!(admitted as u64 + settled <= 2, "{admitted} admitted, {settled} left");
    });
}
