//! Any calls of several keys on a table of each algorithm, with room for few: each key is told what it
//! would be told alone, as long as no key has lost its slot.
#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate_core::{
    AtomicU64, Borrowed, Cause, Cost, Decision, Key, Limiter, Line, Protocol, Quota,
    SlidingWindowCounter, SlidingWindowLog, Table, Tally, Timestamp, TokenBucket, WhenFull,
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
    Charge,
}

fuzz_target!(|input: Input| {
    let quota =
        Quota::new(u64::from(input.limit % 16) + 1, Duration::from_secs(10)).expect("in range");
    match input.algorithm % 3 {
        0 => run(SlidingWindowCounter::new(quota, 5).expect("in range"), &input),
        1 => run(SlidingWindowLog::new(quota).expect("in range"), &input),
        _ => run(TokenBucket::new(quota).expect("in range"), &input),
    }
});

fn run<P: Protocol + Copy>(protocol: P, input: &Input) {
    let lines = [Line::new(), Line::new()];
    let ring: Vec<_> = (0..8 * protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let tally = Tally::new();
    let rule = if input.take_over { WhenFull::TakeOver } else { WhenFull::Deny };
    let table = Table::new(protocol, Borrowed::new(&lines, &ring, &tally)).expect("fits");
    let table = table.with_when_full(rule);
    let mut now = Timestamp::from_secs(1_000);
    // What each key would have alone, and the charges it may take back.
    let mut alone = HashMap::new();
    for call in &input.calls {
        now = now + Duration::from_millis(call.step_ms.into());
        let number = call.key % 16;
        let key = Key::from_hash(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let cost = Cost::new(u64::from(call.cost % 8));
        let (own, charges) = alone.entry(number).or_insert_with(|| {
            let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
            (Limiter::with_ring(protocol, ring), Vec::new())
        });
        // With its slot, a key loses what it has spent. Where nobody lost one, all are as alone.
        let as_alone = tally.taken_over() == 0;
        match call.kind {
            Kind::Peek => {
                let seen = table.peek(key, cost, now);
                assert_eq!(seen, table.peek(key, cost, now), "a peek changes nothing");
                if as_alone && !is_full(seen) {
                    assert_eq!(seen, own.peek(cost, now));
                }
            }
            Kind::Refund => {
                if let Some((cost, at)) = charges.pop() {
                    table.refund(key, cost, at, now);
                    own.refund(cost, at, now);
                }
            }
            Kind::Charge => {
                if table.charge(key, cost, now) {
                    own.charge(cost, now);
                }
            }
            Kind::Decide => {
                let foreseen = table.peek(key, cost, now).is_allow();
                let decision = table.decide(key, cost, now);
                assert_eq!(decision.is_allow(), foreseen, "a peek foresees the decision");
                if is_full(decision) {
                    continue;
                }
                let expected = own.decide(cost, now);
                if as_alone && tally.taken_over() == 0 {
                    assert_eq!(decision, expected);
                }
                if decision.is_allow() {
                    charges.push((cost, now));
                }
            }
        }
        assert!(table.live_keys(now) <= table.slots());
    }
}

fn is_full(decision: Decision) -> bool {
    matches!(decision, Decision::Deny(denial) if denial.cause() == Cause::TableFull)
}
