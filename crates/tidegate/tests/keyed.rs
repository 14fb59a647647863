//! One limit per key: many keys at once, and keys that nobody can aim.

use tidegate::{Cost, Decision, FakeClock, KeyedLimiter, Quota, Timestamp, TokenBucket};

type Users = KeyedLimiter<u64, TokenBucket, FakeClock>;

fn users() -> Users {
    let limit = TokenBucket::new(Quota::per_minute(2)).unwrap();
    let clock = FakeClock::at(Timestamp::from_secs(1_700_000_000));
    KeyedLimiter::new(limit, 1_000).with_clock(clock)
}

/// Several batches, the last of them not whole; some keys come again, in the same batch and in others.
#[test]
fn keys_that_are_decided_at_once_are_as_one_after_the_other() {
    let keys: Vec<u64> = (0..331).map(|index| index % 97 / (1 + index % 3)).collect();
    let (at_once, in_turn) = (users(), users());
    let mut told: Vec<(usize, Decision)> = Vec::new();
    at_once.decide_each(&keys, Cost::ONE, |index, decision| told.push((index, decision)));
    let expected = keys.iter().map(|key| in_turn.decide(key, Cost::ONE)).enumerate();
    let expected: Vec<_> = expected.collect();
    assert_eq!(told, expected);
    assert!(told.iter().any(|(_, decision)| !decision.is_allow()));
    assert!(told.iter().filter(|(_, decision)| decision.is_allow()).count() > 97);
}

#[test]
fn each_limiter_has_a_secret_of_its_own() {
    let (one, other) = (users(), users());
    assert!((0..10_u64).all(|key| one.key(&key) != other.key(&key)));
    assert!((0..10_u64).all(|key| one.key(&key) == one.key(&key)));
}
