//! Holds against a list of them.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{Cost, Held, Hold, HoldId, Holds, Key, Timestamp};

#[derive(Debug, Clone)]
enum Act {
    /// Makes a hold for so many seconds.
    Make(u64),
    /// Ends the hold that was made as the n-th, if it is there.
    Take(usize),
    /// Keeps the hold that was made as the n-th, if it is there, for so many seconds from now.
    Renew(usize, u64),
    /// So many seconds pass, and what has expired is given back.
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..40_u64).prop_map(Act::Make),
        3 => (0..20_usize).prop_map(Act::Take),
        2 => (0..20_usize, 0..40_u64).prop_map(|(nth, lifetime)| Act::Renew(nth, lifetime)),
        3 => (0..50_u64).prop_map(Act::Pass),
    ]
}

/// What the list says of a record that is in use.
#[derive(Debug)]
struct Used {
    number: usize,
    held: Held,
    expires_at: Timestamp,
}

proptest! {
    #[test]
    fn holds_are_as_a_list_of_them(acts in prop::collection::vec(act(), 1..200), records in 1..6_usize) {
        let holds = Holds::new((0..records).map(|_| Hold::new()).collect::<Vec<_>>());
        let mut used: Vec<Used> = Vec::new();
        let mut ids: Vec<HoldId> = Vec::new();
        let mut now = Timestamp::from_secs(1_000);
        for (number, act) in acts.into_iter().enumerate() {
            let held = Held {
                key: Key::from_hash(number as u64 * 7),
                cost: Cost::new(number as u64),
                charged_at: now,
            };
            match act {
                Act::Make(lifetime) => {
                    let expires_at = now + Duration::from_secs(lifetime);
                    let id = holds.note(held, expires_at, number, now);
                    prop_assert_eq!(id.is_some(), used.len() < records);
                    if let Some(id) = id {
                        let (index, tag) = id.parts();
                        prop_assert!(index < records && tag != 0);
                        prop_assert_eq!(HoldId::from_parts(index, tag), id);
                        prop_assert!(ids.iter().all(|other| *other != id), "never given again");
                        used.push(Used { number: ids.len(), held, expires_at });
                        ids.push(id);
                    }
                }
                Act::Take(nth) => {
                    let Some(id) = ids.get(nth) else { continue };
                    let at = used.iter().position(|used| used.number == nth);
                    prop_assert_eq!(holds.take(*id), at.map(|at| used.remove(at).held));
                }
                Act::Renew(nth, lifetime) => {
                    let Some(id) = ids.get(nth) else { continue };
                    let until = now + Duration::from_secs(lifetime);
                    let found = used.iter_mut().find(|used| used.number == nth);
                    let expected = found.map(|used| {
                        used.expires_at = used.expires_at.max(until);
                        used.held
                    });
                    prop_assert_eq!(holds.renew(*id, until), expected);
                }
                Act::Pass(seconds) => {
                    now = now + Duration::from_secs(seconds);
                    let mut returned = Vec::new();
                    holds.take_expired(now, |held| returned.push(held));
                    let over = used.extract_if(.., |used| used.expires_at <= now);
                    let mut expected: Vec<_> = over.map(|used| used.held).collect();
                    let order = |held: &Held| held.cost.units();
                    returned.sort_by_key(order);
                    expected.sort_by_key(order);
                    prop_assert_eq!(returned, expected);
                }
            }
            let units = used.iter().map(|used| u128::from(used.held.cost.units())).sum();
            prop_assert_eq!(holds.total(), (used.len(), units));
        }
    }
}

#[test]
fn what_is_held_says_whose_it_is() {
    let held = Held { key: Key::from_hash(0xab), cost: Cost::new(7), charged_at: Timestamp::ZERO };
    assert_eq!(held.to_string(), "7 units of key 00000000000000ab");
}

#[test]
fn holds_that_are_forgotten_return_nothing_and_their_records_are_free() {
    let holds = Holds::new([const { Hold::new() }; 3]);
    let now = Timestamp::from_secs(1_000);
    let held = Held { key: Key::from_hash(1), cost: Cost::ONE, charged_at: now };
    let ids = [0, 1, 2].map(|_| holds.note(held, now, 0, now).unwrap());
    assert_eq!(holds.note(held, now, 0, now), None);
    holds.forget();
    holds.take_expired(now, |held| panic!("{held} came back"));
    assert_eq!(ids.map(|id| holds.take(id)), [None; 3]);
    assert!((0..3).all(|_| holds.note(held, now, 0, now).is_some()));
}

#[test]
fn no_more_than_so_many_records_are_looked_at() {
    let holds = Holds::new((0..65).map(|_| Hold::new()).collect::<Vec<_>>());
    let now = Timestamp::from_secs(1_000);
    let held = Held { key: Key::from_hash(1), cost: Cost::ONE, charged_at: now };
    assert!((0..64).all(|_| holds.note(held, now, 0, now).is_some()));
    assert_eq!(holds.note(held, now, 0, now), None, "64 are in use from the first on");
    assert!(holds.note(held, now, 64 + 65, now).is_some(), "another hint finds the last");
    assert_eq!(holds.note(held, now, usize::MAX, now), None, "any hint will do");
    let none: Holds<[Hold; 0]> = Holds::new([]);
    assert_eq!(none.note(held, now, 0, now), None);
}

#[test]
fn a_hint_says_where_the_search_begins() {
    let holds = Holds::new((0..130).map(|_| Hold::new()).collect::<Vec<_>>());
    let now = Timestamp::from_secs(1_000);
    let held = Held { key: Key::from_hash(1), cost: Cost::ONE, charged_at: now };
    assert!((0..64).all(|_| holds.note(held, now, 0, now).is_some()));
    // The first of all again, after so many rounds.
    assert_eq!(holds.note(held, now, 130 * 70, now), None);
    assert!(holds.note(held, now, 130 * 70 + 1, now).is_some());
}
