//! What is settled when a call ends: LLM tokens, money, and calls that run at a time.

use std::sync::Arc;
use std::time::Duration;

use tidegate::policy::{Call, Held, Policy, Reason, Source, Usage, Verdict};
use tidegate::{Cost, Currency, FakeClock, Money, Reservation, Retry, SharedFile, Timestamp};

const LAYERS: &str = r#"
    [[rule]]
    name = "tokens"
    limit = "10_000 per day"
    algorithm = "fixed-window"
    key = "user"
    cost = "llm-tokens"

    [[rule]]
    name = "money"
    limit = "2.50 USD per day"
    algorithm = "fixed-window"
    key = ["team", "model"]
    cost = "money"

    [[rule]]
    name = "at-a-time"
    limit = "2 concurrent"
    key = "api-key"
"#;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn policy(text: &str) -> Policy {
    let clock = Arc::new(FakeClock::at(NOW));
    let policy = Policy::from_source(&Source::new("test.toml", text), clock);
    policy.unwrap_or_else(|error| panic!("{error}"))
}

const fn usd(nanos: u64) -> Money {
    Money::from_nanos(nanos, Currency::USD)
}

fn call(tokens: u64, nanos: u64) -> Call<'static> {
    let call = Call::new("POST", "/v1/messages").by_user("alice").of_team("red");
    let call = call.by_api_key("alice-1").on_model("m").on_route("messages");
    call.with_llm_tokens(tokens).with_money(usd(nanos))
}

fn reserve(policy: &Policy, call: &Call<'_>) -> Result<Reservation<Held>, String> {
    match policy.decide(call) {
        Verdict::Allow(grant) => Ok(grant.into_reservation().expect("something is settled")),
        Verdict::Deny(refusal) => Err(refusal.rule().name().to_owned()),
    }
}

fn left(policy: &Policy) -> [u64; 3] {
    let verdict = policy.peek(&call(0, 0));
    let left: Vec<_> = verdict.standings().iter().map(|standing| standing.remaining()).collect();
    // A peek tells what would be left; the third rule counts the call itself, if there is room.
    [left[0], left[1], left[2] + u64::from(verdict.is_allow())]
}

#[test]
fn each_rule_is_settled_in_its_own_unit() {
    let policy = policy(LAYERS);
    let reservation = reserve(&policy, &call(4_000, 1_000_000_000)).unwrap();
    assert_eq!(reservation.reserved(), Cost::new(4_000));
    assert_eq!(left(&policy), [6_000, 1_500_000_000, 1]);
    reservation.settle_usage(Usage { llm_tokens: 1_500, nanos: 300_000_001 });
    assert_eq!(left(&policy), [8_500, 2_199_999_999, 2]);

    // Above the estimate: debt, in each unit.
    let reservation = reserve(&policy, &call(1, 1)).unwrap();
    reservation.settle_usage(Usage { llm_tokens: 20_000, nanos: 9_000_000_000 });
    assert_eq!(left(&policy), [0, 0, 2]);
    assert!(reserve(&policy, &call(1, 1)).is_err());
}

#[test]
fn cancelling_gives_all_back_and_dropping_keeps_all_but_the_place() {
    let policy = policy(LAYERS);
    reserve(&policy, &call(4_000, 1_000_000_000)).unwrap().cancel();
    assert_eq!(left(&policy), [10_000, 2_500_000_000, 2]);
    drop(reserve(&policy, &call(4_000, 1_000_000_000)).unwrap());
    assert_eq!(left(&policy), [6_000, 1_500_000_000, 2]);
    // Who knows only of tokens keeps what was reserved in money.
    reserve(&policy, &call(4_000, 1_000_000_000)).unwrap().settle(Cost::new(1_000));
    assert_eq!(left(&policy), [5_000, 500_000_000, 2]);
}

#[test]
fn a_call_that_one_unit_denies_is_charged_in_none() {
    let policy = policy(LAYERS);
    assert_eq!(reserve(&policy, &call(10_001, 1)).unwrap_err(), "tokens");
    assert_eq!(reserve(&policy, &call(1, 2_500_000_001)).unwrap_err(), "money");
    let running = [(); 2].map(|()| reserve(&policy, &call(1, 1)).unwrap());
    assert_eq!(reserve(&policy, &call(1, 1)).unwrap_err(), "at-a-time");
    assert_eq!(left(&policy), [9_998, 2_499_999_998, 0]);
    drop(running);
    assert_eq!(left(&policy), [9_998, 2_499_999_998, 2]);
}

#[test]
fn a_call_whose_price_is_not_known_or_in_another_currency_is_denied() {
    let policy = policy(LAYERS);
    let call = Call::new("POST", "/v1/messages").by_user("alice").with_llm_tokens(1);
    let call = call.of_team("red").on_model("m").by_api_key("alice-1");
    let euros = call.with_money(Money::from_nanos(1, "EUR".parse().unwrap()));
    for call in [call, euros] {
        let Verdict::Deny(refusal) = policy.decide(&call) else { panic!("{call:?}") };
        assert_eq!(refusal.reason(), Reason::MissingCost);
        assert_eq!((refusal.rule().name(), refusal.retry()), ("money", Retry::Never));
    }
    assert_eq!(left(&policy), [10_000, 2_500_000_000, 2]);
}

#[test]
fn limits_and_amounts_read_as_people_say_them() {
    let policy = policy(LAYERS);
    let texts: Vec<_> = policy.rules().iter().map(|rule| rule.limit_text()).collect();
    assert_eq!(texts, ["10000 LLM tokens per day", "2.5 USD per day", "2 concurrent calls"]);
    assert_eq!(policy.rules()[1].units_text(1), "0.000000001 USD");
    assert_eq!(policy.rules()[2].units_text(1), "1 concurrent call");
}

#[test]
fn never_more_calls_at_a_time_than_the_limit() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let policy = policy("[[rule]]\nname = \"one\"\nlimit = \"3 concurrent\"\nkey = \"global\"");
    let (running, most, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let Ok(place) = reserve(&policy, &Call::new("GET", "/")) else { continue };
                    // Counted within the time that the place is held, so no more than there are places.
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    admitted.fetch_add(1, Ordering::SeqCst);
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                }
            });
        }
    });
    assert!((1..=3).contains(&most.into_inner()));
    assert!(admitted.into_inner() >= 3);
    let places = [(); 3].map(|()| reserve(&policy, &Call::new("GET", "/")).unwrap());
    assert!(
        reserve(&policy, &Call::new("GET", "/")).is_err(),
        "no place was lost, and none is too many"
    );
    drop(places);
}

/// In a file, on a clock of the test's own: two processes, as far as the file can tell.
fn shared(folder: &std::path::Path, text: &str) -> (SharedFile, Policy) {
    let file = SharedFile::open(folder.join("limits")).unwrap();
    let policy = Policy::shared(&Source::new("test.toml", text), &file).unwrap();
    (file, policy)
}

#[test]
fn what_a_dead_process_ran_comes_back_and_what_a_living_one_runs_stays() {
    // The file's clock is the machine's, so this is told by whole reservations, not by waiting.
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let rule = || {
        use tidegate::Limit;
        use tidegate::policy::{KeyPart, Rule};
        // Who opens the file for himself is a process.
        let file = SharedFile::open(folder.path().join("limits")).unwrap();
        let limit = Limit::concurrent(2).unwrap();
        let rule = Rule::shared("at-a-time", limit, [KeyPart::Global], 64, &file).unwrap();
        rule.with_expiring_reservations(&file, Duration::from_secs(3_600)).unwrap()
    };
    let living = Policy::with_clock([rule()], clock.clone()).unwrap();
    let dead = Policy::with_clock([rule()], clock.clone()).unwrap();
    let call = Call::new("GET", "/");
    let running = reserve(&living, &call).unwrap();
    std::mem::forget(reserve(&dead, &call).unwrap());
    drop(dead);
    for _ in 0..59 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(living.renew_reservations(), 1);
        assert_eq!(living.return_expired(), 0);
        assert!(reserve(&living, &call).is_err());
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(living.renew_reservations(), 1);
    assert_eq!(living.return_expired(), 1, "what the dead one had");
    let second = reserve(&living, &call).unwrap();
    assert!(reserve(&living, &call).is_err());
    // An hour later, both still run.
    for _ in 0..3_600 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(living.renew_reservations(), 2);
        assert_eq!(living.return_expired(), 0);
    }
    assert!(reserve(&living, &call).is_err());
    drop((running, second));
    assert_eq!(living.renew_reservations(), 0);
    let both = [(); 2].map(|()| reserve(&living, &call).unwrap());
    assert!(reserve(&living, &call).is_err());
    drop(both);
}

#[test]
fn after_a_power_failure_no_call_runs_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "[[rule]]\nname = \"r\"\nlimit = \"1 concurrent\"\nkey = \"global\"";
    let (file, policy) = shared(folder.path(), rule);
    std::mem::forget(reserve(&policy, &Call::new("GET", "/")).unwrap());
    let table = &file.tables().unwrap()[0];
    let now = tidegate::Clock::now(&file.clock());
    assert_eq!(table.live_keys(now), 1);
    // Its note may be lost with the power; the count is void without it.
    assert_eq!(table.live_keys(now + Duration::from_secs(91)), 0);
    assert_eq!(table.faults(now), []);
}

/// What it would have denied was charged nowhere, so there is nothing to give back or to settle.
#[test]
fn a_dry_run_that_would_have_denied_gives_nothing_back() {
    let text = "[[rule]]\nname = \"tokens\"\nlimit = \"100 per day\"\nalgorithm = \"fixed-window\"\n\
        key = \"global\"\ncost = \"llm-tokens\"\ndry_run = true\n\
        [[rule]]\nname = \"calls\"\nlimit = \"1 per day\"\nalgorithm = \"fixed-window\"\n\
        key = \"global\"\ndry_run = true\n";
    let policy = Policy::from_source(&Source::new("policy", text), FakeClock::at(NOW)).unwrap();
    let left = || {
        let left =
            |rule| policy.account(rule, &Call::new("GET", "/")).unwrap().standing().remaining();
        (left("tokens"), left("calls"))
    };
    for (tokens, then) in [(90, (10, 0)), (50, (10, 0))] {
        let Verdict::Allow(grant) = policy.decide(&Call::new("GET", "/").with_llm_tokens(tokens))
        else {
            panic!("a dry run denies nobody");
        };
        let charged = policy.charged(&grant);
        match grant.into_reservation() {
            Some(reservation) if tokens == 90 => reservation.settle(Cost::new(90)),
            Some(reservation) => reservation.cancel(),
            None => {}
        }
        if tokens != 90 {
            charged.take_back();
        }
        assert_eq!(left(), then, "after {tokens} tokens");
    }
}

/// The reservation alone says what becomes of it.
#[test]
fn what_is_settled_later_is_not_taken_back_with_the_rest() {
    let text = "[[rule]]\nname = \"tokens\"\nlimit = \"100 per day\"\nalgorithm = \"fixed-window\"\n\
        key = \"global\"\ncost = \"llm-tokens\"\n";
    let policy = Policy::from_source(&Source::new("policy", text), FakeClock::at(NOW)).unwrap();
    let call = Call::new("GET", "/").with_llm_tokens(40);
    let left = || policy.account("tokens", &call).unwrap().standing().remaining();
    let Verdict::Allow(grant) = policy.decide(&call) else { panic!("there is room") };
    policy.charged(&grant).take_back();
    assert_eq!(left(), 60);
    grant.into_reservation().expect("for the tokens").settle(Cost::new(30));
    assert_eq!(left(), 70);
}

#[test]
fn reservations_of_every_rule_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let rule = |name| {
        use tidegate::Limit;
        use tidegate::policy::{KeyPart, Rule};
        let rule = Rule::shared(name, Limit::concurrent(2).unwrap(), [KeyPart::Global], 64, &file);
        rule.unwrap().with_expiring_reservations(&file, Duration::from_secs(60)).unwrap()
    };
    let clock = FakeClock::at(NOW);
    let policy = Policy::with_clock([rule("one"), rule("other")], clock).unwrap();
    let running = reserve(&policy, &Call::new("GET", "/")).unwrap();
    assert_eq!(policy.renew_reservations(), 2);
    drop(running);
    assert_eq!(policy.renew_reservations(), 0);
}

/// The record of one that expired may be the next one's by the time that the first ends.
#[test]
fn who_ends_late_does_not_keep_the_next_from_being_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let rule = {
        use tidegate::Limit;
        use tidegate::policy::{KeyPart, Rule};
        let limit = Limit::concurrent(2).unwrap();
        let rule = Rule::shared("at-a-time", limit, [KeyPart::Global], 64, &file).unwrap();
        rule.with_expiring_reservations(&file, Duration::from_secs(60)).unwrap()
    };
    let policy = Policy::with_clock([rule], clock.clone()).unwrap();
    let late = reserve(&policy, &Call::new("GET", "/")).unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(policy.return_expired(), 1);
    // At the same time again, so in the same record.
    clock.set(NOW);
    let next = reserve(&policy, &Call::new("GET", "/")).unwrap();
    drop(late);
    assert_eq!(policy.renew_reservations(), 1);
    drop(next);
    assert_eq!(policy.renew_reservations(), 0);
}
