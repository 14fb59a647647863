//! A limit for each key.

use std::array;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use tidegate::policy::{Call, Policy};
use tidegate::{Clock, Cost, Key, KeyedLimiter, Quota, SystemClock, Timestamp, TokenBucket};

use crate::floor::Slots;
use crate::keys::{Uniform, Zipf};
use crate::measure::{Effort, medians, on_threads};
use crate::peers::{GovernorKeyed, governor_keyed};
use crate::report::{Row, Target};

type Ahash = ahash::RandomState;
type Default = std::hash::RandomState;

fn bucket() -> TokenBucket {
    TokenBucket::new(Quota::per_second(500_000_000)).expect("a rate")
}

fn keyed(count: u64) -> KeyedLimiter<u64, TokenBucket> {
    let limiter = KeyedLimiter::new(bucket(), count as usize);
    (0..count).for_each(|key| assert!(limiter.decide(&key, Cost::ONE).is_allow()));
    limiter
}

pub(super) fn thousand(effort: Effort) -> Vec<Row> {
    uniform("1 k", 1_000, Some(1.2), 1.3, Some(1.8), effort)
}

pub(super) fn hundred_thousand(effort: Effort) -> Vec<Row> {
    uniform("100 k", 100_000, None, 1.3, Some(1.8), effort)
}

pub(super) fn million(effort: Effort) -> Vec<Row> {
    let mut rows = uniform("1 M", 1_000_000, None, 1.3, Some(1.8), effort);
    rows.extend(zipf(effort));
    rows.extend(strings(effort));
    rows
}

pub(super) fn ten_million(effort: Effort) -> Vec<Row> {
    let mut rows = uniform("10 M", 10_000_000, Some(1.3), 1.8, Some(2.7), effort);
    rows.extend(batches(effort));
    rows.extend(two_threads(effort));
    rows
}

fn uniform(
    name: &str,
    count: u64,
    floor_target: Option<f64>,
    ahash_target: f64,
    default_target: Option<f64>,
    effort: Effort,
) -> Vec<Row> {
    let (limiter, slots) = (keyed(count), Slots::for_keys(count as usize));
    let governor: GovernorKeyed<u64, Ahash> = governor_keyed(0..count);
    let governor_default: GovernorKeyed<u64, Default> = governor_keyed(0..count);
    let clock = SystemClock::new();
    let stream = |seed| Uniform::new(count, seed);
    let (mut a, mut b, mut c, mut d) = (stream(1), stream(1), stream(1), stream(1));
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&limiter).decide(&a.key(), Cost::ONE).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let place = black_box(&slots).place(&b.key());
                    black_box(slots.check(place, clock.now().as_nanos()));
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let _ = black_box(black_box(&governor).check_key(&c.key()).is_ok());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let _ = black_box(black_box(&governor_default).check_key(&d.key()).is_ok());
                }
            }),
        ],
        effort,
    );
    let (path, floor) = (format!("keyed u64, {name} keys, uniform"), times[1]);
    let row = |peer, peer_ns, target| Row::new(&path, times[0], peer, peer_ns, target);
    let mut rows = Vec::new();
    rows.extend(floor_target.map(|most| row("floor", floor, Target::AtMost(most))));
    rows.push(row("governor, ahash", times[2], Target::AtLeast(ahash_target)).with_floor(floor));
    rows.extend(
        default_target
            .map(|least| row("governor", times[3], Target::AtLeast(least)).with_floor(floor)),
    );
    rows
}

fn zipf(effort: Effort) -> Vec<Row> {
    const COUNT: u64 = 1_000_000;
    let limiter = keyed(COUNT);
    let governor: GovernorKeyed<u64, Ahash> = governor_keyed(0..COUNT);
    let (mut ours, mut theirs) = (Zipf::new(COUNT), Zipf::new(COUNT));
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&limiter).decide(&ours.key(), Cost::ONE).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let _ = black_box(black_box(&governor).check_key(&theirs.key()).is_ok());
                }
            }),
        ],
        effort,
    );
    let target = Target::AtLeast(1.3);
    vec![Row::new("keyed u64, 1 M keys, Zipf", times[0], "governor, ahash", times[1], target)]
}

fn strings(effort: Effort) -> Vec<Row> {
    const COUNT: u64 = 1_000_000;
    let named = |key: u64| {
        let mut name = String::new();
        write_name(&mut name, key);
        name
    };
    let limiter: KeyedLimiter<str, _> = KeyedLimiter::new(bucket(), COUNT as usize);
    (0..COUNT).map(named).for_each(|name| assert!(limiter.admit(&name, Cost::ONE).is_ok()));
    let governor: GovernorKeyed<String, Default> = governor_keyed((0..COUNT).map(named));
    let (slots, clock) = (Slots::for_keys(COUNT as usize), SystemClock::new());
    let stream = || (Uniform::new(COUNT, 1), String::new());
    let ((mut a, mut name_a), (mut b, mut name_b), (mut c, mut name_c)) =
        (stream(), stream(), stream());
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    write_name(&mut name_a, a.key());
                    black_box(black_box(&limiter).decide(&name_a, Cost::ONE).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    write_name(&mut name_b, b.key());
                    let _ = black_box(black_box(&governor).check_key(&name_b).is_ok());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    write_name(&mut name_c, c.key());
                    let place = black_box(&slots).place(&name_c);
                    black_box(slots.check(place, clock.now().as_nanos()));
                }
            }),
        ],
        effort,
    );
    let path = "keyed by 16-byte String, 1 M keys";
    let row = Row::new(path, times[0], "governor", times[1], Target::AtLeast(4.0));
    vec![row.with_floor(times[2])]
}

/// A user's name of 16 bytes, written over the last one: a server has it at hand, just read from a request.
fn write_name(name: &mut String, key: u64) {
    let digits: [u8; 16] = array::from_fn(|digit| b'a' + (key >> (4 * digit) & 15) as u8);
    name.clear();
    name.push_str(std::str::from_utf8(&digits).expect("letters"));
}

/// Batches of 32, each with one reading of the clock.
fn batches(effort: Effort) -> Vec<Row> {
    const COUNT: u64 = 10_000_000;
    const BATCH: usize = 32;
    let (limiter, slots) = (keyed(COUNT), Slots::for_keys(COUNT as usize));
    let governor: GovernorKeyed<u64, Ahash> = governor_keyed(0..COUNT);
    let clock = SystemClock::new();
    let (mut a, mut b, mut c) =
        (Uniform::new(COUNT, 1), Uniform::new(COUNT, 1), Uniform::new(COUNT, 1));
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count.div_ceil(BATCH as u64) {
                    let keys: [u64; BATCH] = std::array::from_fn(|_| a.key());
                    black_box(&limiter).decide_each(&keys, Cost::ONE, |_, decision| {
                        black_box(decision.is_allow());
                    });
                }
            }),
            Box::new(|count| {
                for _ in 0..count.div_ceil(BATCH as u64) {
                    let places: [usize; BATCH] = std::array::from_fn(|_| {
                        let place = slots.place(&b.key());
                        slots.touch(place);
                        place
                    });
                    let now = clock.now().as_nanos();
                    for place in places {
                        black_box(slots.check(place, now));
                    }
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let _ = black_box(black_box(&governor).check_key(&c.key()).is_ok());
                }
            }),
        ],
        effort,
    );
    let path = "keyed u64, 10 M keys, batches of 32";
    vec![
        Row::new(path, times[0], "floor, batched", times[1], Target::AtMost(1.4)),
        Row::new(path, times[0], "governor, ahash", times[2], Target::AtLeast(3.3))
            .with_floor(times[1]),
    ]
}

fn two_threads(effort: Effort) -> Vec<Row> {
    const COUNT: u64 = 10_000_000;
    let limiter = keyed(COUNT);
    let governor: GovernorKeyed<u64, Ahash> = governor_keyed(0..COUNT);
    let ours = |thread, count| {
        let mut keys = Uniform::new(COUNT, thread + 1);
        for _ in 0..count {
            black_box(limiter.decide(&keys.key(), Cost::ONE).is_allow());
        }
    };
    let theirs = |thread, count| {
        let mut keys = Uniform::new(COUNT, thread + 1);
        for _ in 0..count {
            let _ = black_box(governor.check_key(&keys.key()).is_ok());
        }
    };
    let times =
        medians(&mut [on_threads(2, ours), on_threads(1, ours), on_threads(2, theirs)], effort);
    let path = "keyed u64, 10 M keys, 2 threads";
    vec![
        Row::new(path, times[0], "1 thread", times[1], Target::AtLeast(1.9)),
        Row::new(path, times[0], "governor, ahash", times[2], Target::AtLeast(2.0)),
    ]
}

/// Three layers, all or nothing, in cache: beside one keyed decision of the same kind, and as a policy of
/// people's keys.
pub(super) fn policy(effort: Effort) -> Vec<Row> {
    let mut rows = seats(effort);
    rows.extend(callers(effort));
    rows
}

/// Three tables of hashed keys, at a time that is given: all are asked, then all are charged.
fn seats(effort: Effort) -> Vec<Row> {
    const COUNT: u64 = 1_000;
    let [one, two, three] = [keyed(COUNT), keyed(COUNT), keyed(COUNT)];
    let layers = [&one, &two, &three];
    let keys: Vec<[Key; 3]> = (0..COUNT).map(|key| layers.map(|layer| layer.key(&key))).collect();
    let tables = layers.map(KeyedLimiter::table);
    let now = one.clock().now();
    let (mut a, mut b) = (Uniform::new(COUNT, 1), Uniform::new(COUNT, 1));
    let all_or_nothing = |keys: &[Key; 3], now: Timestamp| {
        let seats: [_; 3] =
            array::from_fn(|layer| (tables[layer], tables[layer].seat(keys[layer])));
        let fits = seats.iter().all(|(table, seat)| table.foresee_in(seat, Cost::ONE, now).is_ok());
        // Nobody else charges here, so a late denial, and its refunds, cannot be.
        fits && seats.iter().all(|(table, seat)| table.admit_in(seat, Cost::ONE, now).is_ok())
    };
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    black_box(all_or_nothing(&keys[a.key() as usize], black_box(now)));
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let [key, ..] = keys[b.key() as usize];
                    let _ = black_box(tables[0].admit(key, Cost::ONE, black_box(now)));
                }
            }),
        ],
        effort,
    );
    let path = "3 layers of hashed keys, now given";
    vec![Row::new(path, times[0], "1 such decision", times[1], Target::AtMost(3.2))]
}

/// A policy of three layers, beside a decision on a user's name, beside one on a number, and beside three
/// decisions that know nothing of each other.
fn callers(effort: Effort) -> Vec<Row> {
    const COUNT: u64 = 1_000;
    let numbers = keyed(COUNT);
    let (addresses, names, both) = (
        KeyedLimiter::<IpAddr, _>::new(bucket(), COUNT as usize),
        KeyedLimiter::<str, _>::new(bucket(), COUNT as usize),
        KeyedLimiter::<(IpAddr, &str), _>::new(bucket(), COUNT as usize),
    );
    let policy = three_layers();
    let users: Vec<String> = (0..COUNT).map(|key| format!("user-{key:011}")).collect();
    let caller =
        |key: u64| (IpAddr::from(Ipv4Addr::from(key as u32)), users[key as usize].as_str());
    let stream = || Uniform::new(COUNT, 1);
    let (mut a, mut b, mut c, mut d) = (stream(), stream(), stream(), stream());
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    let (ip, user) = caller(a.key());
                    let call = Call::new("GET", "/chat").from_ip(ip).by_user(user);
                    black_box(black_box(&policy).decide(&call).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&numbers).decide(&b.key(), Cost::ONE).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let (_, user) = caller(c.key());
                    black_box(black_box(&names).decide(user, Cost::ONE).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let (ip, user) = caller(d.key());
                    black_box(black_box(&addresses).decide(&ip, Cost::ONE).is_allow());
                    black_box(black_box(&names).decide(user, Cost::ONE).is_allow());
                    black_box(black_box(&both).decide(&(ip, user), Cost::ONE).is_allow());
                }
            }),
        ],
        effort,
    );
    let path = "policy of 3 layers, in cache";
    vec![
        Row::new(path, times[0], "1 keyed by number", times[1], Target::AtMost(3.2)),
        Row::new(path, times[0], "1 keyed by name", times[2], Target::AtMost(3.2)),
        Row::new(path, times[0], "3 keyed, each alone", times[3], Target::AtMost(1.5)),
    ]
}

/// By address, by user, and by both.
#[must_use]
pub fn three_layers() -> Policy {
    Policy::from_toml(
        r#"
        [[rule]]
        name = "address"
        key = "ip"
        limit = "500000000 per second"
        algorithm = "token-bucket"

        [[rule]]
        name = "user"
        key = "user"
        limit = "500000000 per second"
        algorithm = "token-bucket"

        [[rule]]
        name = "both"
        key = ["ip", "user"]
        limit = "500000000 per second"
        algorithm = "token-bucket"
        "#,
    )
    .expect("a policy")
}
