//! State that no thread has written: a page of a file that was lost, or a file that somebody made up.
//! Every call still ends, without a panic; and where only some words are older than others, a limit
//! goes on limiting.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Cell, Cost, FixedWindow, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog,
    Swap, Timestamp, TokenBucket,
};

use crate::history;

/// Words of any content, which count how often they are looked at.
struct Words {
    head: AtomicU64,
    ring: Vec<AtomicU64>,
    looks: AtomicU32,
}

impl Words {
    fn new(head: u64, ring: impl IntoIterator<Item = u64>) -> Self {
        let ring = ring.into_iter().map(AtomicU64::new).collect();
        Self { head: AtomicU64::new(head), ring, looks: AtomicU32::new(0) }
    }

    fn copy(&self) -> Vec<u64> {
        std::iter::once(&self.head).chain(&self.ring).map(|word| word.load(Relaxed)).collect()
    }

    /// Nobody else calls, so a call that keeps looking would never end.
    fn look(&self) {
        assert!(self.looks.fetch_add(1, Relaxed) < 10_000, "a call that does not end");
    }
}

impl Cell for Words {
    fn load(&self) -> Option<u64> {
        self.look();
        Some(self.head.load(Relaxed))
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        self.look();
        match self.head.compare_exchange(from, to, Relaxed, Relaxed) {
            Ok(_) => Swap::Done,
            Err(current) => Swap::Changed(current),
        }
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Decide(u64),
    Peek(u64),
    Charge(u64),
    Refund(u64, u64),
    Prepare(bool),
}

const START: u64 = 1_700_000_000_000_000_000;

fn call() -> impl Strategy<Value = Call> {
    let units = || prop_oneof![0..5_u64, any::<u64>()];
    prop_oneof![
        units().prop_map(Call::Decide),
        units().prop_map(Call::Peek),
        units().prop_map(Call::Charge),
        (units(), 0..100_000_000_000_u64).prop_map(|(units, ago)| Call::Refund(units, ago)),
        any::<bool>().prop_map(Call::Prepare),
    ]
}

/// Calls, each so many nanoseconds after the one before.
fn calls() -> impl Strategy<Value = Vec<(u64, Call)>> {
    prop::collection::vec((prop_oneof![Just(0), 0..40_000_000_000_u64], call()), 1..20)
}

fn run<P: Protocol>(protocol: &P, words: &Words, now: &mut u64, calls: &[(u64, Call)]) {
    for &(forward_ns, call) in calls {
        *now += forward_ns;
        let at = Timestamp::from_nanos(*now);
        let word = words.head.load(Relaxed);
        words.looks.store(0, Relaxed);
        match call {
            Call::Decide(units) => _ = protocol.decide(words, word, Cost::new(units), at),
            Call::Peek(units) => _ = protocol.peek(words, word, Cost::new(units), at),
            Call::Charge(units) => _ = protocol.charge(words, word, Cost::new(units), at),
            Call::Refund(units, ago_ns) => {
                let charged_at = Timestamp::from_nanos(*now - ago_ns);
                protocol.refund(words, word, Cost::new(units), charged_at, at);
            }
            Call::Prepare(clear) => protocol.prepare(words, word, clear),
        }
        let word = words.head.load(Relaxed);
        let _ = protocol.enter(word, Cost::ONE, at);
        let _ = (protocol.is_idle(word, at), protocol.idle_at(word), protocol.idle_rank(word));
        let _ = protocol.is_settled(word);
    }
}

/// A word of any bits, or one that may be a field of now in some layout.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        (0..64_u32, 0..16_u64)
            .prop_map(|(shift, low)| (START >> shift).rotate_left(shift / 2) | low),
        (0..3_u32, 0..4_u64).prop_map(|(shift, low)| START << shift | low),
    ]
}

fn made_up<P: Protocol>(protocol: P, words: &[u64], calls: &[(u64, Call)]) {
    let ring = (0..protocol.ring_words()).map(|index| words[(index + 1) % words.len()]);
    run(&protocol, &Words::new(words[0], ring), &mut START.clone(), calls);
}

/// Words of one time beside words of another, as a crash may leave them.
fn torn<P: Protocol>(protocol: P, mix: &[bool], first: &[(u64, Call)], then: &[(u64, Call)]) {
    let words = Words::new(0, vec![0; protocol.ring_words()]);
    let mut now = START;
    run(&protocol, &words, &mut now, first);
    let old = words.copy();
    run(&protocol, &words, &mut now, then);
    let mixed = words.copy().into_iter().zip(old).zip(mix.iter().cycle());
    let mut mixed = mixed.map(|((new, old), is_old)| if *is_old { old } else { new });
    let words = Words::new(mixed.next().unwrap(), mixed);
    run(&protocol, &words, &mut now, first);
    // Whatever came back, from a window after on there is never more than the limit.
    now += 200_000_000_000;
    let at = Timestamp::from_nanos(now);
    let admitted = (0..40).filter(|_| {
        words.looks.store(0, Relaxed);
        let word = words.head.load(Relaxed);
        protocol.decide(&words, word, Cost::ONE, at).is_some_and(|decision| decision.is_allow())
    });
    assert!(admitted.count() <= 7);
}

proptest! {
    #![proptest_config(history::cases(3_000))]

    #[test]
    fn words_that_somebody_made_up_neither_panic_nor_hang(
        words in prop::collection::vec(word(), 1..12),
        calls in calls(),
    ) {
        let quota = Quota::per_minute(7);
        made_up(TokenBucket::new(quota).unwrap(), &words, &calls);
        made_up(FixedWindow::new(quota).unwrap(), &words, &calls);
        made_up(SlidingWindowCounter::new(quota, 6).unwrap(), &words, &calls);
        made_up(SlidingWindowCounter::new(quota, 1).unwrap(), &words, &calls);
        made_up(SlidingWindowLog::new(quota).unwrap(), &words, &calls);
    }

    #[test]
    fn words_of_different_times_still_limit(
        mix in prop::collection::vec(any::<bool>(), 1..12),
        first in calls(),
        then in calls(),
    ) {
        let quota = Quota::per_minute(7);
        torn(TokenBucket::new(quota).unwrap(), &mix, &first, &then);
        torn(FixedWindow::new(quota).unwrap(), &mix, &first, &then);
        torn(SlidingWindowCounter::new(quota, 6).unwrap(), &mix, &first, &then);
        torn(SlidingWindowCounter::new(quota, 1).unwrap(), &mix, &first, &then);
        torn(SlidingWindowLog::new(quota).unwrap(), &mix, &first, &then);
    }
}
