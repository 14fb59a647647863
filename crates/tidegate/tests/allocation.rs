//! Nothing that is called while limiting allocates.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use tidegate::policy::{Call, Policy, Source};
use tidegate::{Cost, FakeClock, FixedWindow, KeyedLimiter, Quota, Timestamp};

const LAYERS: &str = r#"
    [[rule]]
    name = "ip"
    limit = "30 per minute"
    algorithm = "sliding-window-log"
    key = "ip"

    [[rule]]
    name = "user"
    limit = "20 per minute"
    key = "user"
    match = { authenticated = true }

    [[rule]]
    name = "budget"
    limit = "1_000 per day"
    algorithm = "fixed-window"
    time_zone = "America/New_York"
    key = ["user", "ip"]
    cost = "llm-tokens"
    match = { path = "/v1/*", authenticated = true }
"#;

#[test]
fn deciding_on_layers_of_rules_allocates_nothing() {
    let clock = Arc::new(FakeClock::at(Timestamp::from_secs(1_700_000_000)));
    let policy = Policy::from_source(&Source::new("test.toml", LAYERS), clock.clone()).unwrap();
    let ip = IpAddr::from([192, 0, 2, 1]);
    let call = || Call::new("POST", "/v1/chat/completions").from_ip(ip).with_llm_tokens(10);
    let decide = |user: &str| policy.decide(&call().by_user(user)).is_allow();
    decide("warm"); // a calendar looks its window up once

    let (mut allowed, mut denied) = (0, 0);
    let counted = measure(|| {
        for round in 0..200 {
            clock.advance(Duration::from_secs(round % 3));
            let user = if round % 2 == 0 { "alice" } else { "bob" };
            *if decide(user) { &mut allowed } else { &mut denied } += 1;
        }
    });
    assert!(allowed > 50 && denied > 50, "{allowed} allowed, {denied} denied");
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_limiter_for_keys_allocates_nothing() {
    let clock = FakeClock::at(Timestamp::from_secs(1_700_000_000));
    let limit = FixedWindow::new(Quota::per_day(1_000)).unwrap();
    let limiter: KeyedLimiter<str, _, _> = KeyedLimiter::new(limit, 100).with_clock(&clock);
    let counted = measure(|| {
        for user in ["alice", "bob", "carol"] {
            let _ = limiter.peek(user, Cost::ONE);
            for _ in 0..3 {
                let _ = limiter.decide(user, Cost::new(400));
            }
        }
    });
    assert_eq!(counted.count_total, 0);
}
