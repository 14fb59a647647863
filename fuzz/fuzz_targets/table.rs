//! Any calls of several keys on a table of each algorithm, with room for few: no key gets more than
//! its limit while it keeps its slot, and a newcomer gets all of its own.
#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate_core::{
    AtomicU64, Borrowed, Cost, Key, Line, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog,
    Table, Tally, Timestamp, TokenBucket, WhenFull,
};

#[derive(Arbitrary, Debug)]
struct Input {
    algorithm: u8,
    take_over: bool,
    limit: u8,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
struct Call {
    key: u8,
    kind: Kind,
    step_ms: u16,
    cost: u8,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Decide,
    Refund,
    Peek,
}

fuzz_target!(|input: Input| {
    let quota =
        Quota::new(u64::from(input.limit % 16) + 1, Duration::from_secs(10)).expect("in range");
    match input.algorithm % 3 {
        0 => run(SlidingWindowCounter::new(quota, 5).expect("in range"), &input, quota),
        1 => run(SlidingWindowLog::new(quota).expect("in range"), &input, quota),
        _ => run(TokenBucket::new(quota).expect("in range"), &input, quota),
    }
});

fn run<P: Protocol>(protocol: P, input: &Input, quota: Quota) {
    let lines = [Line::new(), Line::new()];
    let ring: Vec<_> = (0..8 * protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let tally = Tally::new();
    let rule = if input.take_over { WhenFull::TakeOver } else { WhenFull::Deny };
    let table = Table::new(protocol, Borrowed::new(&lines, &ring, &tally)).expect("fits");
    let table = table.with_when_full(rule);
    let mut now = Timestamp::from_secs(1_000);
    let mut admitted: HashMap<u8, Vec<(Timestamp, u64)>> = HashMap::new();
    for call in &input.calls {
        now = now + Duration::from_millis(call.step_ms.into());
        let number = call.key % 16;
        let key = Key::from_hash(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let cost = Cost::new(u64::from(call.cost % 8));
        match call.kind {
            Kind::Peek => {
                let before = table.peek(key, cost, now);
                assert_eq!(before, table.peek(key, cost, now), "a peek changes nothing");
            }
            Kind::Refund => {
                if let Some((at, units)) = admitted.get_mut(&number).and_then(Vec::pop) {
                    table.refund(key, Cost::new(units), at, now);
                }
            }
            Kind::Decide => {
                let foreseen = table.peek(key, cost, now).is_allow();
                let decision = table.decide(key, cost, now);
                assert_eq!(decision.is_allow(), foreseen, "a peek foresees the decision");
                if decision.is_allow() {
                    admitted.entry(number).or_default().push((now, cost.units()));
                }
            }
        }
        assert!(table.live_keys(now) <= table.slots());
        if tally.taken_over() > 0 {
            continue;
        }
        let window = quota.period();
        // A token bucket refills meanwhile: twice the limit, at most.
        let most = quota.units() * if input.algorithm % 3 > 1 { 2 } else { 1 };
        let charges = admitted.get(&number).map_or(&[][..], Vec::as_slice);
        let recent = charges.iter().filter(|(at, _)| now.since(*at) < window);
        assert!(recent.map(|(_, units)| units).sum::<u64>() <= most);
    }
}
