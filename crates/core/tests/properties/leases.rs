//! Leases: what several holders spend, against the bounds that are stated for them.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Borrowed, Cost, FixedWindow, Key, Lease, Lender, Limiter, Line, Protocol, Quota,
    SlidingWindowCounter, SlidingWindowLog, Table, Tally, Timestamp, TokenBucket,
};

const LIMIT: u64 = 50;
const WINDOW: Duration = Duration::from_secs(60);
const HOLDERS: usize = 3;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000) + Duration::from_millis(ms)
}

fn limiter<P: Protocol>(protocol: P) -> Limiter<P, Vec<AtomicU64>> {
    let words = protocol.ring_words();
    Limiter::with_ring(protocol, (0..words).map(|_| AtomicU64::new(0)).collect())
}

/// Who calls, for how much, and how many milliseconds later.
type Call = (usize, u64, u64);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let pause = prop_oneof![6 => 0..100_u64, 2 => 0..5_000_u64, 1 => 0..100_000_u64];
    prop::collection::vec((0..HOLDERS, 0..6_u64, pause), 1..200)
}

/// The units that were spent, and when.
fn spend(
    lenders: [impl Lender; HOLDERS],
    batch: u64,
    lifetime: Duration,
    calls: &[Call],
) -> Vec<(u64, u64)> {
    let mut leases = lenders.map(|lender| Lease::new(lender, Cost::new(batch), lifetime));
    let (mut ms, mut spent) = (0, Vec::new());
    for (holder, units, pause) in calls {
        ms += pause;
        if leases[*holder].spend(Cost::new(*units), at(ms)).is_ok() {
            spent.push((ms, *units));
        }
        assert!(leases[*holder].left() <= batch);
    }
    spent
}

/// The most that was spent in any span of this length.
fn most_within(spent: &[(u64, u64)], span: Duration) -> u64 {
    let within = |start: u64| {
        let inside =
            spent.iter().filter(|(ms, _)| (start..start + span.as_millis() as u64).contains(ms));
        inside.map(|(_, units)| units).sum::<u64>()
    };
    spent.iter().map(|(ms, _)| within(*ms)).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn what_holders_spend_is_within_the_limit_and_their_batches(
        calls in calls(),
        batch in 0..20_u64,
        lifetime_ms in 0..10_000_u64,
        is_log in any::<bool>(),
    ) {
        let quota = Quota::new(LIMIT, WINDOW).unwrap();
        let lifetime = Duration::from_millis(lifetime_ms);
        let spent = if is_log {
            let limiter = limiter(SlidingWindowLog::new(quota).unwrap());
            spend([&limiter; HOLDERS], batch, lifetime, &calls)
        } else {
            let limiter = limiter(SlidingWindowCounter::new(quota, 6).unwrap());
            spend([&limiter; HOLDERS], batch, lifetime, &calls)
        };
        let most = most_within(&spent, WINDOW);
        prop_assert!(most <= LIMIT + batch * HOLDERS as u64, "{most} in a window");
        // A span that is shorter by the leases' lifetime lies within a window of charges.
        let most = most_within(&spent, WINDOW - lifetime);
        prop_assert!(most <= LIMIT, "{most} in a window less a lifetime");
    }

    #[test]
    fn leases_at_one_time_spend_all_of_the_limit_and_not_more(
        calls in prop::collection::vec((0..HOLDERS, Just(1_u64), Just(0_u64)), 300),
        batch in 0..80_u64,
    ) {
        let quota = Quota::new(LIMIT, WINDOW).unwrap();
        let bucket = limiter(TokenBucket::new(quota).unwrap());
        let spent = spend([&bucket; HOLDERS], batch, WINDOW, &calls);
        // All three go on until they are denied, so nobody keeps anything.
        prop_assert_eq!(spent.len() as u64, LIMIT);
    }

    #[test]
    fn a_lease_that_ends_leaves_nothing_charged_but_what_was_spent(
        costs in prop::collection::vec(0..5_u64, 0..40),
        batch in 0..30_u64,
    ) {
        let lines = [Line::new()];
        let tally = Tally::new();
        let window = FixedWindow::new(Quota::new(LIMIT, WINDOW).unwrap()).unwrap();
        let table = Table::new(window, Borrowed::new(&lines, &[], &tally)).unwrap();
        let key = Key::from_hash(7);
        let mut lease = Lease::new((&table, key), Cost::new(batch), WINDOW);
        let allowed = |cost: &&u64| lease.spend(Cost::new(**cost), at(0)).is_ok();
        let spent: u64 = costs.iter().filter(allowed).sum();
        lease.end(at(0));
        prop_assert_eq!(lease.left(), 0);
        prop_assert_eq!(table.peek(key, Cost::ZERO, at(0)).remaining(), LIMIT - spent);
        lease.end(at(0));
        prop_assert_eq!(table.peek(key, Cost::ZERO, at(0)).remaining(), LIMIT - spent, "once");
    }
}

#[test]
fn a_lease_is_over_after_its_lifetime_to_the_nanosecond() {
    let bucket = limiter(TokenBucket::new(Quota::per_hour(LIMIT)).unwrap());
    let mut lease = Lease::new(&bucket, Cost::new(10), Duration::from_millis(5));
    assert!(lease.spend(Cost::ONE, at(0)).is_ok());
    let almost = Timestamp::from_nanos(at(5).as_nanos() - 1);
    assert!(lease.spend(Cost::ONE, almost).is_ok());
    assert_eq!((lease.left(), bucket.peek(Cost::ZERO, at(0)).remaining()), (8, 40));
    assert!(lease.spend(Cost::ONE, at(5)).is_ok());
    assert_eq!(
        (lease.left(), bucket.peek(Cost::ZERO, at(5)).remaining()),
        (9, 38),
        "the 8 went back"
    );
}

#[test]
fn a_denial_tells_when_to_come_again_and_a_denied_lease_takes_nothing() {
    let bucket = limiter(TokenBucket::new(Quota::per_minute(6)).unwrap());
    let mut lease = Lease::new(&bucket, Cost::new(100), Duration::MAX);
    assert!((0..6).all(|_| lease.spend(Cost::ONE, at(0)).is_ok()), "one by one");
    let denial = lease.spend(Cost::ONE, at(0)).unwrap_err();
    assert_eq!(denial.retry(), tidegate_core::Retry::After(Duration::from_secs(10)));
    assert_eq!(lease.lender().peek(Cost::ZERO, at(10_000)).remaining(), 1);
}

/// Without a word to the limit, which is charged for a batch at a time.
#[test]
fn a_batch_is_spent_to_its_last_unit() {
    // For ever, in as many nanoseconds as a multiple of 2^64.
    for lifetime in [Duration::from_secs(1), Duration::from_secs(1 << 55), Duration::MAX] {
        let bucket = limiter(TokenBucket::new(Quota::per_hour(LIMIT)).unwrap());
        let mut lease = Lease::new(&bucket, Cost::new(10), lifetime);
        for left in (0..10).rev() {
            assert!(lease.spend(Cost::ONE, at(0)).is_ok());
            assert_eq!((lease.left(), bucket.peek(Cost::ZERO, at(0)).remaining()), (left, 40));
        }
        assert!(lease.spend(Cost::ONE, at(0)).is_ok());
        assert_eq!((lease.left(), bucket.peek(Cost::ZERO, at(0)).remaining()), (9, 30));
    }
}

/// As what was charged when the last batch was taken, so that it counts no more in that window.
#[test]
fn what_is_left_goes_back_to_where_it_was_taken() {
    let window = limiter(FixedWindow::new(Quota::new(LIMIT, WINDOW).unwrap()).unwrap());
    let mut lease = Lease::new(&window, Cost::new(10), Duration::from_secs(1));
    // Windows begin 40 s after each of these.
    for ms in [0, 60_000, 120_000] {
        assert!(lease.spend(Cost::ONE, at(ms)).is_ok());
        assert_eq!(window.peek(Cost::ZERO, at(ms)).remaining(), LIMIT - 10);
    }
    lease.end(at(120_001));
    assert_eq!(window.peek(Cost::ZERO, at(120_001)).remaining(), LIMIT - 1);
}
