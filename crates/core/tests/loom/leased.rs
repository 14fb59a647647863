//! Units that a process has leased, spent by several threads while they are renewed.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use tidegate_core::{Cost, Leased, Timestamp};

use crate::admitted::explore;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_secs(1) + Duration::from_millis(ms)
}

#[test]
fn every_leased_unit_is_spent_or_taken_back_once() {
    explore(3, || {
        let leased = Arc::new(Leased::new());
        leased.put(2, at(50));
        let spent = Arc::new(AtomicU64::new(0));
        let spender = || {
            let (leased, spent) = (leased.clone(), spent.clone());
            move || {
                for _ in 0..2 {
                    if leased.spend(Cost::ONE, at(1)).is_some() {
                        spent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        let others: Vec<_> = (0..2).map(|_| thread::spawn(spender())).collect();
        let taken = leased.take();
        let left = leased.put(1, at(90));
        assert_eq!(left, 0, "nothing comes in between");
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(spent.load(Ordering::Relaxed) + taken + leased.take(), 3);
    });
}

#[test]
fn what_is_given_back_while_a_lease_is_renewed_is_in_one_lease_or_lost() {
    explore(3, || {
        let leased = Arc::new(Leased::new());
        leased.put(2, at(50));
        let undone = {
            let leased = leased.clone();
            thread::spawn(move || {
                let spent = leased.spend(Cost::new(2), at(1));
                spent.map(|spent| leased.give_back(Cost::new(2), spent))
            })
        };
        let rest = leased.put(3, at(90));
        let undone = undone.join().unwrap();
        let left = leased.take();
        match undone {
            Some(true) => assert_eq!((rest, left), (2, 3), "back in the lease it came from"),
            Some(false) => assert_eq!((rest, left), (0, 3), "lost with the first"),
            None => unreachable!("2 units are there before and after"),
        }
    });
}
