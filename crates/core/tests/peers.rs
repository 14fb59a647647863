//! The holes that others have had, in algorithms, storage, arithmetic and clocks: each a test that
//! would fail if we had it. Those that another test holds already are named in `INVARIANTS.md`.

use std::time::Duration;

use tidegate_core::{
    AtomicU64, Cost, FixedWindow, Limiter, Protocol, Quota, Retry, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};

fn limiter<P: Protocol>(protocol: P) -> Limiter<P, Vec<AtomicU64>> {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(protocol, ring)
}

fn admitted<P: Protocol>(
    limiter: &Limiter<P, Vec<AtomicU64>>,
    calls: usize,
    at: Timestamp,
) -> usize {
    (0..calls).filter(|_| limiter.decide(Cost::ONE, at).is_allow()).count()
}

const NOON: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A token bucket sold as "100 per minute" admits 199 and more in some minute.
#[test]
fn a_hundred_per_minute_is_a_hundred_in_any_minute() {
    fn most_in_a_minute<P: Protocol>(protocol: P) -> usize {
        let limiter = limiter(protocol);
        // A pause, and then as much as it lets through, each 100 ms, for two minutes.
        let times: Vec<_> =
            (0..1_200).map(|tick| NOON + Duration::from_millis(tick * 100)).collect();
        let counts: Vec<_> = times.iter().map(|at| admitted(&limiter, 200, *at)).collect();
        counts.windows(600).map(|minute| minute.iter().sum()).max().unwrap()
    }
    let quota = Quota::per_minute(100);
    assert_eq!(most_in_a_minute(SlidingWindowLog::new(quota).unwrap()), 100);
    assert_eq!(most_in_a_minute(SlidingWindowCounter::new(quota, 60).unwrap()), 100);
    // The bucket's own bound is burst plus refill, which its documentation says.
    assert_eq!(most_in_a_minute(TokenBucket::new(quota).unwrap()), 199);
    let smooth = TokenBucket::new(quota).unwrap().with_burst(1).unwrap();
    assert_eq!(most_in_a_minute(smooth), 100);
}

/// An arrival time that is clamped to `now - tolerance` when a key returns lets through more than the
/// burst: 17 of 10 in one library.
#[test]
fn a_key_that_returns_has_its_burst_and_not_more() {
    for pause_ms in [0, 1, 99, 100, 101, 950, 1_000, 1_700, 10_000, 100_000_000] {
        let limiter = limiter(TokenBucket::new(Quota::per_second(10)).unwrap());
        assert_eq!(admitted(&limiter, 50, NOON), 10);
        let later = NOON + Duration::from_millis(pause_ms);
        assert_eq!(admitted(&limiter, 50, later) as u64, (pause_ms / 100).min(10));
    }
}

/// With wrapping subtraction, a `now` that is one millisecond behind refills everything.
#[test]
fn a_now_that_is_behind_frees_nothing_in_any_algorithm() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = limiter(protocol);
        assert_eq!(admitted(&limiter, 50, NOON), 10);
        for back in [1, 1_000_000, 1_000_000_000, NOON.as_nanos() - 1, NOON.as_nanos()] {
            let behind = Timestamp::from_nanos(NOON.as_nanos() - back);
            assert_eq!(admitted(&limiter, 50, behind), 0, "{back} ns behind");
        }
        assert_eq!(admitted(&limiter, 50, NOON), 0, "nor afterwards");
    }
    let quota = Quota::per_hour(10);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

/// Readings at and beyond the end of time neither panic nor wrap to a fresh limit.
#[test]
fn clocks_near_the_end_of_u64_free_nothing() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = limiter(protocol);
        for nanos in [u64::MAX - 1, u64::MAX, 1 << 63, u64::MAX / 2, 1 << 62, (1 << 62) - 1] {
            admitted(&limiter, 50, Timestamp::from_nanos(nanos));
        }
        for nanos in [u64::MAX, 0, 1, u64::MAX - 1, 1 << 62] {
            assert_eq!(admitted(&limiter, 50, Timestamp::from_nanos(nanos)), 0, "at {nanos}");
        }
    }
    let quota = Quota::per_minute(10);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

/// Where the remainder is dropped on each refill, two of five due units arrive.
#[test]
fn a_bucket_that_is_asked_often_refills_as_one_that_is_not() {
    let quota = Quota::per_second(10);
    let (often, seldom) =
        (limiter(TokenBucket::new(quota).unwrap()), limiter(TokenBucket::new(quota).unwrap()));
    assert_eq!((admitted(&often, 50, NOON), admitted(&seldom, 50, NOON)), (10, 10));
    let units: usize =
        (1..=20).map(|step| admitted(&often, 50, NOON + Duration::from_millis(step * 25))).sum();
    assert_eq!(units, 5, "half a second, asked each 25 ms");
    assert_eq!(admitted(&seldom, 50, NOON + Duration::from_millis(500)), 5);
}

/// An interval of whole nanoseconds turns 600 million a second into a billion.
#[test]
fn rates_that_do_not_divide_a_second_are_what_they_say() {
    for rate in [600_000_000_u64, 700_000_000, 7_000_003, 999_999_999, 3] {
        let limiter = limiter(TokenBucket::new(Quota::per_second(rate)).unwrap());
        assert!(limiter.decide(Cost::new(rate), NOON).is_allow());
        let later = NOON + Duration::from_secs(1);
        assert!(limiter.decide(Cost::new(rate), later).is_allow(), "all of it, after a second");
        assert!(!limiter.decide(Cost::ONE, later).is_allow(), "and not one more");
    }
}

/// `per_second(n)` means one each n seconds elsewhere.
#[test]
fn per_second_of_n_means_n_in_each_second() {
    let limiter = limiter(SlidingWindowLog::new(Quota::per_second(5)).unwrap());
    assert_eq!(admitted(&limiter, 50, NOON), 5);
    assert_eq!(admitted(&limiter, 50, NOON + Duration::from_secs(1)), 5);
}

/// A client that is told to come back at once will, and be denied again.
#[test]
fn no_denial_says_to_retry_after_nothing() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = limiter(protocol);
        for step in 0..400 {
            let now = NOON + Duration::from_millis(step * 3);
            if let Some(denial) = limiter.decide(Cost::new(3), now).denial() {
                assert!(matches!(denial.retry(), Retry::After(wait) if !wait.is_zero()));
            }
        }
    }
    let quota = Quota::per_second(10);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

/// Where one fact lies in two words, one swapped and one stored, concurrent charges are lost.
#[test]
fn no_charge_is_lost_while_windows_turn() {
    fn check<P: Protocol + Sync>(protocol: P) {
        const THREADS: u64 = 4;
        let limiter = limiter(protocol);
        // Each thread charges through the turn of the second: half before it, half after.
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for call in 0..1_000 {
                        let now = NOON + Duration::from_nanos(999_999_500 + call);
                        limiter.charge(Cost::ONE, now);
                    }
                });
            }
        });
        let now = NOON + Duration::from_nanos(1_000_000_500);
        let left = limiter.peek(Cost::ZERO, now).remaining();
        assert_eq!(left, 100_000 - THREADS * 1_000);
    }
    let quota = Quota::new(100_000, Duration::from_secs(10)).unwrap();
    check(SlidingWindowCounter::new(quota, 10).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}
