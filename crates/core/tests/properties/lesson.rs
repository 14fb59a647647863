//! The lesson that this project grew from, in its own words: a per-user list of timestamps, and a
//! per-user dict of day and tokens.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Borrowed, Cost, FixedWindow, Key, Line, Protocol, Quota, SlidingWindowLog, Table,
    Tally, Timestamp,
};

use crate::history;

/// `self.requests[user] = [t for t in self.requests[user] if t > now - window]`
#[derive(Default)]
struct RateLimiter {
    max_requests: usize,
    window_ns: u64,
    requests: HashMap<u64, Vec<u64>>,
}

impl RateLimiter {
    fn is_allowed(&mut self, user: u64, now: u64) -> bool {
        let requests = self.requests.entry(user).or_default();
        let window = i128::from(self.window_ns);
        requests.retain(|t| i128::from(*t) > i128::from(now) - window);
        if requests.len() >= self.max_requests {
            return false;
        }
        requests.push(now);
        true
    }
}

/// `if usage["date"] != today: usage = {"date": today, "tokens": 0}`
#[derive(Default)]
struct TokenBudget {
    daily_limit: u64,
    usage: HashMap<u64, (u64, u64)>,
}

impl TokenBudget {
    fn check_and_deduct(&mut self, user: u64, tokens: u64, today: u64) -> bool {
        let usage = self.usage.entry(user).or_default();
        if usage.0 != today {
            *usage = (today, 0);
        }
        if usage.1 + tokens > self.daily_limit {
            return false;
        }
        usage.1 += tokens;
        true
    }
}

struct Memory {
    lines: Vec<Line>,
    ring: Vec<AtomicU64>,
    tally: Tally,
}

impl Memory {
    fn new(words: usize) -> Self {
        let lines: Vec<_> = (0..Line::for_keys(100)).map(|_| Line::new()).collect();
        let ring = (0..lines.len() * 4 * words).map(|_| AtomicU64::new(0)).collect();
        Self { lines, ring, tally: Tally::new() }
    }

    fn table<P: Protocol>(&self, protocol: P) -> Table<P, Borrowed<'_>> {
        Table::new(protocol, Borrowed::new(&self.lines, &self.ring, &self.tally)).unwrap()
    }
}

fn key(user: u64) -> Key {
    Key::from_hash((user + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

proptest! {
    #![proptest_config(history::cases(300))]

    #[test]
    fn the_sliding_log_agrees_with_the_list_of_timestamps(
        max_requests in 1_usize..12,
        window_s in 1_u64..100,
        // Steps in half seconds, so that calls fall on window boundaries often.
        calls in proptest::collection::vec((0_u64..5, 0_u64..30, -1_i64..=1), 1..300),
    ) {
        let log = SlidingWindowLog::new(Quota::new(max_requests as u64, Duration::from_secs(window_s)).unwrap());
        let log = log.unwrap();
        let memory = Memory::new(log.ring_words());
        let table = memory.table(log);
        let mut lesson = RateLimiter { max_requests, window_ns: window_s * 1_000_000_000, ..Default::default() };
        let mut now = 1_000_000_000;
        for (user, half_seconds, nudge_ns) in calls {
            now = (now + half_seconds * 500_000_000).max(now + half_seconds).saturating_add_signed(nudge_ns.max(0));
            let ours = table.decide(key(user), Cost::ONE, Timestamp::from_nanos(now)).is_allow();
            prop_assert_eq!(ours, lesson.is_allowed(user, now));
        }
    }

    #[test]
    fn the_daily_budget_agrees_with_the_dict_of_day_and_tokens(
        daily_limit in 1_u64..20_000,
        calls in proptest::collection::vec((0_u64..5, 0_u64..9_000, 0_u64..DAY_NS / 3), 1..200),
    ) {
        let window = FixedWindow::new(Quota::per_day(daily_limit)).unwrap();
        let memory = Memory::new(0);
        let table = memory.table(window);
        let mut lesson = TokenBudget { daily_limit, ..Default::default() };
        let mut now = 0;
        for (user, tokens, step) in calls {
            now += step;
            let ours = table.decide(key(user), Cost::new(tokens), Timestamp::from_nanos(now));
            prop_assert_eq!(ours.is_allow(), lesson.check_and_deduct(user, tokens, now / DAY_NS));
        }
    }
}

#[test]
fn a_timestamp_exactly_one_window_old_is_expired() {
    let log = SlidingWindowLog::new(Quota::per_minute(1)).unwrap();
    let memory = Memory::new(log.ring_words());
    let table = memory.table(log);
    let decide = |secs| table.decide(key(1), Cost::ONE, Timestamp::from_secs(secs)).is_allow();
    assert!(decide(100));
    assert!(!decide(159));
    assert!(decide(160), "t > now - window is false at exactly one window");
}

#[test]
fn a_request_that_would_pass_the_budget_is_rejected_and_charges_nothing() {
    let memory = Memory::new(0);
    let table = memory.table(FixedWindow::new(Quota::per_day(10_000)).unwrap());
    let decide = |tokens| table.decide(key(1), Cost::new(tokens), Timestamp::from_secs(60));
    assert!(decide(9_000).is_allow());
    assert!(!decide(1_001).is_allow());
    assert_eq!(decide(1_000).remaining(), 0, "one that meets it exactly is accepted");
    assert!(!decide(1).is_allow());
}

#[test]
fn the_budget_starts_afresh_when_the_utc_date_changes() {
    let memory = Memory::new(0);
    let table = memory.table(FixedWindow::new(Quota::per_day(10_000)).unwrap());
    let decide = |at| table.decide(key(1), Cost::new(10_000), Timestamp::from_nanos(at)).is_allow();
    let day = 20_000 * DAY_NS;
    assert!(decide(day));
    assert!(!decide(day + DAY_NS - 1));
    assert!(decide(day + DAY_NS));
}

#[test]
fn the_limit_of_one_user_never_touches_anothers() {
    let log = SlidingWindowLog::new(Quota::per_minute(20)).unwrap();
    let memory = Memory::new(log.ring_words());
    let table = memory.table(log);
    let now = Timestamp::from_secs(60);
    for user in 0..50 {
        let admitted =
            (0..100).filter(|_| table.decide(key(user), Cost::ONE, now).is_allow()).count();
        assert_eq!(admitted, 20, "user {user}");
    }
}
