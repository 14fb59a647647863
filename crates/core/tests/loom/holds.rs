//! Holds that several threads make, settle and give back.

use std::sync::Mutex;
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tidegate_core::{Cost, FixedWindow, Held, Hold, HoldId, Holds, Key, Limiter, Quota, Timestamp};

use crate::admitted::{each_stop, explore, stopped};

/// When holds are made.
const START: Timestamp = Timestamp::from_nanos(100);
const EXPIRY: Timestamp = Timestamp::from_nanos(200);
/// In models, a record that was claimed is free again 60 ns later.
const SECOND: Timestamp = Timestamp::from_nanos(160);

type Shared = Arc<Holds<Vec<Hold>>>;

fn holds(records: usize) -> Shared {
    Arc::new(Holds::new((0..records).map(|_| Hold::new()).collect()))
}

/// A different value in each field, so that fields of different holds are told apart.
fn held(number: u64) -> Held {
    Held {
        key: Key::from_hash(number),
        cost: Cost::new(10 + number),
        charged_at: START + Duration::from_nanos(number),
    }
}

fn make(holds: &Shared, number: u64, now: Timestamp) -> Option<HoldId> {
    holds.note(held(number), EXPIRY, 0, now)
}

fn expired(holds: &Shared, now: Timestamp) -> Vec<Held> {
    let mut expired = Vec::new();
    holds.take_expired(now, |held| expired.push(held));
    expired
}

#[test]
fn a_settle_races_with_two_that_give_back_and_one_of_them_takes_the_hold() {
    explore(3, || {
        let holds = holds(1);
        let id = make(&holds, 1, START).unwrap();
        let other = {
            let holds = holds.clone();
            thread::spawn(move || expired(&holds, EXPIRY))
        };
        let third = {
            let holds = holds.clone();
            thread::spawn(move || expired(&holds, EXPIRY))
        };
        let mut taken: Vec<_> = holds.take(id).into_iter().collect();
        taken.extend(other.join().unwrap());
        taken.extend(third.join().unwrap());
        assert_eq!(taken, [held(1)]);
    });
}

#[test]
fn a_hold_that_is_renewed_in_time_is_its_owners_and_one_of_all_who_take_it_gets_it() {
    let late = EXPIRY + Duration::from_nanos(100);
    explore(3, move || {
        let holds = holds(1);
        let id = make(&holds, 1, START).unwrap();
        let other = {
            let holds = holds.clone();
            thread::spawn(move || expired(&holds, EXPIRY))
        };
        let third = {
            let holds = holds.clone();
            thread::spawn(move || holds.take(id))
        };
        let renewed = holds.renew(id, late);
        assert!(renewed.is_none_or(|renewed| renewed == held(1)));
        let mut taken = other.join().unwrap();
        taken.extend(third.join().unwrap());
        // Nobody has taken it only if it were still there, and the owner has.
        assert_eq!(taken, [held(1)]);
        assert_eq!(holds.renew(id, late), None);
    });
}

#[test]
fn a_hold_that_was_renewed_is_not_given_back_by_who_saw_it_expired() {
    let late = EXPIRY + Duration::from_nanos(100);
    explore(3, move || {
        let holds = holds(1);
        let id = make(&holds, 1, START).unwrap();
        let other = {
            let holds = holds.clone();
            thread::spawn(move || expired(&holds, EXPIRY))
        };
        let renewed = holds.renew(id, late);
        let returned = other.join().unwrap();
        assert_eq!(returned.is_empty(), renewed.is_some());
        assert_eq!(holds.take(id), renewed);
    });
}

#[test]
fn a_record_that_is_used_again_gives_the_former_settle_nothing() {
    explore(3, || {
        let holds = holds(1);
        let first = make(&holds, 1, START).unwrap();
        let other = {
            let holds = holds.clone();
            // Gives the first back, and makes another in its place.
            thread::spawn(move || (expired(&holds, EXPIRY), make(&holds, 2, EXPIRY)))
        };
        let mut taken: Vec<_> = holds.take(first).into_iter().collect();
        let (returned, second) = other.join().unwrap();
        taken.extend(returned);
        assert_eq!(taken, [held(1)]);
        // Nobody but the first's owner was in its way.
        assert_eq!(second.and_then(|second| holds.take(second)), second.map(|_| held(2)));
    });
}

#[test]
fn two_that_make_holds_in_one_record_never_mix_their_fields() {
    explore(3, || {
        let holds = holds(1);
        let other = {
            let holds = holds.clone();
            // So much later that it does not wait for the first.
            thread::spawn(move || make(&holds, 2, SECOND))
        };
        let first = make(&holds, 1, START);
        let second = other.join().unwrap();
        let taken = [first, second].map(|id| id.and_then(|id| holds.take(id)));
        match (first, second) {
            (Some(_), None) => assert_eq!(taken, [Some(held(1)), None]),
            (None, Some(_)) => assert_eq!(taken, [None, Some(held(2))]),
            outcome => panic!("one of them has the record, and not {outcome:?}"),
        }
        assert_eq!(holds.total(), (0, 0));
    });
}

#[test]
fn a_thread_stopped_at_any_step_of_a_hold_holds_nobody_up() {
    // A hold takes ten operations, and its end five.
    each_stop(2, 0..16, |stop| {
        let holds = holds(1);
        let confirmed = Arc::new(Mutex::new(0));
        let settled = Arc::new(Mutex::new(Vec::new()));
        let victim = {
            let (holds, confirmed, settled) = (holds.clone(), confirmed.clone(), settled.clone());
            thread::spawn(move || {
                stopped(stop, || {
                    if let Some(id) = make(&holds, 1, START) {
                        *confirmed.lock().unwrap() += 1;
                        let taken = holds.take(id);
                        settled.lock().unwrap().extend(taken);
                    }
                });
            })
        };
        let mut returned = expired(&holds, EXPIRY);
        victim.join().unwrap();
        returned.extend(expired(&holds, EXPIRY));
        returned.extend(settled.lock().unwrap().drain(..));
        // What was not confirmed is never given back; what was, at most once.
        assert!(returned.len() <= 1 && returned.iter().all(|one| *one == held(1)), "{returned:?}");
        if *confirmed.lock().unwrap() == 0 && stop < 9 {
            assert_eq!(returned, [], "stopped before operation {stop}");
        }
        // Once the record has timed out, it is anybody's.
        let next = make(&holds, 2, EXPIRY).expect("a free record");
        assert_eq!(holds.take(next), Some(held(2)));
    });
}

/// Ends a hold of ten units, of which so many were used, as a reservation does that is settled, cancelled
/// or dropped.
fn end(budget: &Limiter<FixedWindow>, holds: &Shared, id: HoldId, used: u64) {
    match holds.take(id) {
        Some(held) if used <= 10 => {
            budget.refund(Cost::new(10 - used), held.charged_at, EXPIRY);
        }
        Some(_) => budget.charge(Cost::new(used - 10), EXPIRY),
        None => budget.charge(Cost::new(used), EXPIRY),
    }
}

fn give_back(budget: &Limiter<FixedWindow>, holds: &Shared) {
    holds.take_expired(EXPIRY, |held| budget.refund(held.cost, held.charged_at, EXPIRY));
}

fn budget() -> Arc<Limiter<FixedWindow>> {
    let quota = Quota::new(20, Duration::from_nanos(1_000)).unwrap();
    Arc::new(Limiter::new(FixedWindow::new(quota).unwrap()))
}

/// Whoever comes first, what was used is charged once: all of it, less, none (a reservation that is
/// cancelled), or more than was reserved.
#[test]
fn a_reservation_that_ends_as_it_expires_is_charged_what_was_used() {
    for used in [0, 3, 10, 13] {
        explore(3, move || {
            let (budget, holds) = (budget(), holds(1));
            assert!(budget.decide(Cost::new(10), START).is_allow());
            let held = Held { key: Key::from_hash(1), cost: Cost::new(10), charged_at: START };
            let id = holds.note(held, EXPIRY, 0, START).unwrap();
            let other = {
                let (budget, holds) = (budget.clone(), holds.clone());
                thread::spawn(move || give_back(&budget, &holds))
            };
            end(&budget, &holds, id, used);
            other.join().unwrap();
            give_back(&budget, &holds);
            assert_eq!(budget.peek(Cost::ZERO, EXPIRY).remaining(), 20 - used);
            assert_eq!(holds.total(), (0, 0));
        });
    }
}

/// The process that settles, or the one that gives back, dies at any step: what was used is charged, if
/// that was done; and at most all that was reserved stays charged for nothing.
#[test]
fn a_process_that_dies_as_a_reservation_ends_gives_nothing_away() {
    for settles in [true, false] {
        each_stop(2, 0..9, move |stop| {
            let (budget, holds) = (budget(), holds(1));
            assert!(budget.decide(Cost::new(10), START).is_allow());
            let held = Held { key: Key::from_hash(1), cost: Cost::new(10), charged_at: START };
            let id = holds.note(held, EXPIRY, 0, START).unwrap();
            let is_settled = Arc::new(Mutex::new(false));
            let victim = {
                let (budget, holds) = (budget.clone(), holds.clone());
                let is_settled = is_settled.clone();
                thread::spawn(move || {
                    stopped(stop, || {
                        if settles {
                            end(&budget, &holds, id, 3);
                            *is_settled.lock().unwrap() = true;
                        } else {
                            give_back(&budget, &holds);
                        }
                    });
                })
            };
            if settles {
                give_back(&budget, &holds);
            } else {
                end(&budget, &holds, id, 3);
                *is_settled.lock().unwrap() = true;
            }
            victim.join().unwrap();
            give_back(&budget, &holds);
            let used = 20 - budget.peek(Cost::ZERO, EXPIRY).remaining();
            let least = if *is_settled.lock().unwrap() { 3 } else { 0 };
            assert!((least..=13).contains(&used), "{used} of 10, stopped before {stop}");
        });
    }
}

/// Who looks at a record while it is used again sees one hold or the other, or none; and never one whose
/// note was only begun.
#[test]
fn a_look_at_a_record_that_is_used_again_sees_no_hold_that_was_only_begun() {
    each_stop(2, 0..14, |stop| {
        let holds = holds(1);
        let first = make(&holds, 1, START).unwrap();
        let victim = {
            let holds = holds.clone();
            thread::spawn(move || {
                stopped(stop, || {
                    holds.take(first);
                    let _ = make(&holds, 2, START);
                });
            })
        };
        let seen = holds.total();
        victim.join().unwrap();
        let left = holds.total();
        assert!([(0, 0), (1, 11), (1, 12)].contains(&seen), "{seen:?}");
        assert!(seen != (1, 12) || left == seen, "{seen:?} was only begun: {left:?}");
    });
}
