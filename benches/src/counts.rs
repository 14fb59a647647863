//! The hot paths as plain loops, for counting their instructions.

use std::hint::black_box;
use std::time::Duration;

use axum::extract::Request;
use tidegate::core::{AtomicU64, Borrowed, Key, Lease, Limiter, Line, Table, Tally};
use tidegate::policy::Call;
use tidegate::{
    Cost, FakeClock, FixedWindow, KeyedLimiter, Protocol, Quota, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::floor::Word;
use crate::http::{Hello, Limited, Spent, answered, governed, ours};
use crate::keys::Uniform;
use crate::paths::three_layers;
use crate::peers;

/// A path, ready to run so many times.
pub type Loop = Box<dyn FnMut(u64)>;

/// A path's name, and how it is made ready.
pub type Path = (&'static str, fn() -> Loop);

/// All that are counted.
pub const PATHS: [Path; 20] = [
    ("nothing", || each(|now| now)),
    ("floor, allowed", floor),
    ("token bucket, allowed", || allowed(TokenBucket::new(PLENTY).expect("fits"))),
    ("token bucket, denied", || denied(TokenBucket::new(ONE).expect("fits"))),
    ("fixed window, allowed", || allowed(FixedWindow::new(PLENTY).expect("fits"))),
    ("fixed window, denied", || denied(FixedWindow::new(ONE).expect("fits"))),
    ("sliding counter, allowed", || allowed(SlidingWindowCounter::new(PLENTY, 10).expect("fits"))),
    ("sliding counter, denied", || denied(SlidingWindowCounter::new(ONE, 10).expect("fits"))),
    ("sliding log, allowed", || {
        allowed(SlidingWindowLog::new(Quota::per_second(50_000)).expect("fits"))
    }),
    ("sliding log, yes or no, allowed", || {
        let log = SlidingWindowLog::new(Quota::per_second(50_000)).expect("fits");
        let limiter = limiter(log);
        each(move |now| assert!(black_box(&limiter).admit(Cost::ONE, now).is_ok()))
    }),
    ("lease of 64, allowed", lease),
    ("sliding log, denied", || denied(SlidingWindowLog::new(ONE).expect("fits"))),
    ("keyed by hash, allowed", keyed_by_hash),
    ("keyed by u64, allowed", keyed_by_u64),
    ("policy of 3 layers, allowed", policy),
    ("governor, allowed", governor),
    ("HTTP call, no layer", || call(Hello)),
    ("HTTP call, allowed", || call(ours::<Limited>().layer(Hello))),
    ("HTTP call, denied", || call(ours::<Spent>().layer(Hello))),
    ("HTTP call, tower_governor, allowed", || call(governed::<Limited>().layer(Hello))),
];

const START: u64 = 1_700_000_000_000_000_000;
const KEYS: u64 = 1_000;
const ONE: Quota = Quota::per_hour(1);

/// So much that it is never spent.
const PLENTY: Quota = Quota::per_second(5_000_000);

/// Runs a path. What is counted is what happens in here.
#[inline(never)]
pub fn counted(run: &mut Loop, count: u64) {
    run(count);
}

fn each<T>(mut run: impl FnMut(Timestamp) -> T + 'static) -> Loop {
    Box::new(move |count| {
        for step in 0..count {
            black_box(run(Timestamp::from_nanos(START + step * 1_000)));
        }
    })
}

fn limiter<P: Protocol>(protocol: P) -> Limiter<P, Vec<AtomicU64>> {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(protocol, ring)
}

fn allowed<P: Protocol + 'static>(protocol: P) -> Loop {
    let limiter = limiter(protocol);
    each(move |now| assert!(black_box(&limiter).decide(Cost::ONE, now).is_allow()))
}

fn denied<P: Protocol + 'static>(protocol: P) -> Loop {
    let limiter = limiter(protocol);
    assert!(limiter.decide(Cost::ONE, Timestamp::from_nanos(START)).is_allow());
    each(move |now| assert!(!black_box(&limiter).decide(Cost::ONE, now).is_allow()))
}

fn lease() -> Loop {
    let bucket = limiter(TokenBucket::new(PLENTY).expect("fits"));
    let limiter: &'static _ = Box::leak(Box::new(bucket));
    let mut lease = Lease::new(limiter, Cost::new(64), Duration::from_millis(1));
    each(move |now| assert!(black_box(&mut lease).spend(Cost::ONE, now).is_ok()))
}

fn floor() -> Loop {
    let word = Word::new(200, 1_000_000_000);
    each(move |now| assert!(black_box(&word).check(now.as_nanos())))
}

fn keyed_by_hash() -> Loop {
    let lines: Vec<_> = (0..Line::for_keys(KEYS as usize)).map(|_| Line::new()).collect();
    let tally: &'static Tally = Box::leak(Box::new(Tally::new()));
    let storage = Borrowed::new(lines.leak(), &[], tally);
    let table = Table::new(TokenBucket::new(PLENTY).expect("fits"), storage).expect("fits");
    let mut hashes = Uniform::new(u64::MAX, 1);
    let keys: Vec<_> = (0..KEYS).map(|_| Key::from_hash(hashes.key())).collect();
    for key in &keys {
        assert!(table.decide(*key, Cost::ONE, Timestamp::from_nanos(START)).is_allow());
    }
    let mut next = 0;
    each(move |now| {
        next = if next + 1 == keys.len() { 0 } else { next + 1 };
        assert!(black_box(&table).decide(keys[next], Cost::ONE, now).is_allow());
    })
}

fn keyed_by_u64() -> Loop {
    let clock: &FakeClock = Box::leak(Box::new(FakeClock::at(Timestamp::from_nanos(START))));
    let bucket = TokenBucket::new(PLENTY).expect("fits");
    let limiter = KeyedLimiter::<u64, _>::new(bucket, KEYS as usize).with_clock(clock);
    for key in 0..KEYS {
        assert!(limiter.decide(&key, Cost::ONE).is_allow());
    }
    let mut keys = Uniform::new(KEYS, 1);
    each(move |now| {
        clock.set(now);
        assert!(black_box(&limiter).decide(&keys.key(), Cost::ONE).is_allow());
    })
}

fn policy() -> Loop {
    let policy = three_layers();
    let users: Vec<String> = (0..KEYS).map(|key| format!("user-{key:011}")).collect();
    let mut keys = Uniform::new(KEYS, 1);
    let mut decide = move || {
        let key = keys.key();
        let ip = std::net::Ipv4Addr::from(key as u32).into();
        let call = Call::new("GET", "/chat").from_ip(ip).by_user(&users[key as usize]);
        assert!(black_box(&policy).decide(&call).is_allow());
    };
    (0..20 * KEYS).for_each(|_| decide());
    each(move |_| decide())
}

fn governor() -> Loop {
    let governor = peers::governor();
    each(move |_| assert!(black_box(&governor).check().is_ok()))
}

/// A service's call without sockets: the request's making and the response's dropping are counted too.
fn call<S: Service<Request> + 'static>(mut service: S) -> Loop {
    answered(&mut service);
    each(move |_| drop(black_box(answered(&mut service))))
}
