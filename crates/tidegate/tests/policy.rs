//! Layered policies: all or nothing, with the right answer, from Rust and from files.

use std::net::IpAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tidegate::policy::{Call, Headers, Policy, Reason, Source, Verdict};
use tidegate::{Cost, FakeClock, Retry, Timestamp};

const LAYERS: &str = r#"
    [[rule]]
    name = "ip"
    limit = "100 per minute"
    algorithm = "sliding-window-log"
    key = "ip"

    [[rule]]
    name = "user"
    limit = "20 per minute"
    algorithm = "sliding-window-log"
    key = "user"
    match = { authenticated = true }

    [[rule]]
    name = "budget"
    limit = "10_000 per day"
    algorithm = "fixed-window"
    key = "user"
    cost = "llm-tokens"
    match = { path = "/v1/*", authenticated = true }
"#;

fn policy(text: &str) -> (Policy, Arc<FakeClock>) {
    let clock = Arc::new(FakeClock::at(Timestamp::from_secs(1_700_000_000)));
    let policy = Policy::from_source(&Source::new("test.toml", text), clock.clone());
    (policy.unwrap_or_else(|error| panic!("{error}")), clock)
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn login(from: u8) -> Call<'static> {
    Call::new("POST", "/login").from_ip(ip(from))
}

fn chat(user: &str, from: u8, tokens: u64) -> Call<'_> {
    Call::new("POST", "/v1/chat/completions")
        .from_ip(ip(from))
        .by_user(user)
        .with_llm_tokens(tokens)
}

fn denied_by<'p>(verdict: &Verdict<'p>) -> Option<&'p str> {
    match verdict {
        Verdict::Allow(_) => None,
        Verdict::Deny(refusal) => Some(refusal.rule().name()),
    }
}

fn remaining(policy: &Policy, call: &Call<'_>, rule: &str) -> u64 {
    let verdict = policy.peek(call);
    let standing = verdict.standings().iter().find(|standing| standing.rule().name() == rule);
    standing.expect("applies").decision().remaining()
}

#[test]
fn each_layer_denies_at_its_own_limit() {
    let (policy, clock) = policy(LAYERS);
    for _ in 0..20 {
        assert_eq!(denied_by(&policy.decide(&chat("alice", 1, 10))), None);
    }
    assert_eq!(denied_by(&policy.decide(&chat("alice", 1, 10))), Some("user"));
    for _ in 0..80 {
        assert_eq!(denied_by(&policy.decide(&login(1))), None);
    }
    assert_eq!(denied_by(&policy.decide(&login(1))), Some("ip"));
    assert_eq!(denied_by(&policy.decide(&chat("bob", 2, 10_001))), Some("budget"));
    assert_eq!(denied_by(&policy.decide(&chat("bob", 2, 10_000))), None);
    clock.advance(Duration::from_secs(60));
    assert_eq!(denied_by(&policy.decide(&chat("bob", 2, 1))), Some("budget"));
    assert_eq!(denied_by(&policy.decide(&chat("alice", 1, 10))), None);
}

#[test]
fn a_denied_call_is_charged_by_no_layer() {
    let (policy, _) = policy(LAYERS);
    let call = chat("alice", 1, 9_000);
    assert!(policy.decide(&call).is_allow());
    for _ in 0..50 {
        assert_eq!(denied_by(&policy.decide(&call)), Some("budget"));
    }
    let question = chat("alice", 1, 0);
    assert_eq!(remaining(&policy, &question, "ip"), 99 - 1, "a peek shows what would be left");
    assert_eq!(remaining(&policy, &question, "user"), 19 - 1);
    assert_eq!(remaining(&policy, &question, "budget"), 1_000);
}

#[test]
fn in_a_denied_call_the_other_rules_stand_as_before() {
    let (policy, _) = policy(LAYERS);
    assert!(policy.decide(&chat("alice", 1, 9_000)).is_allow());
    let verdict = policy.decide(&chat("alice", 1, 9_000));
    let left: Vec<_> = verdict.standings().iter().map(|standing| standing.remaining()).collect();
    assert_eq!(left, [99, 19, 1_000]);
}

#[test]
fn the_rule_with_the_longest_wait_is_named() {
    let (policy, _) = policy(LAYERS);
    for _ in 0..20 {
        assert!(policy.decide(&chat("alice", 1, 500)).is_allow());
    }
    // The user waits a minute, the budget until the day's end.
    let verdict = policy.decide(&chat("alice", 1, 500));
    let Verdict::Deny(refusal) = &verdict else { panic!("{verdict:?}") };
    assert_eq!(refusal.rule().name(), "budget");
    let day = 86_400;
    let left = Duration::from_secs(day - 1_700_000_000 % day);
    assert_eq!(refusal.retry(), Retry::After(left));
    let verdict = policy.decide(&chat("alice", 1, 20_000));
    let Verdict::Deny(refusal) = &verdict else { panic!("{verdict:?}") };
    assert_eq!(refusal.retry(), Retry::Never, "no day has that many");
}

#[test]
fn storms_on_all_layers_admit_exactly_the_binding_limit() {
    // In each storm another layer binds: user, then ip, then budget.
    for (users, tokens, expected) in [(1, 1, 20), (10, 1, 100), (1, 1_000, 10)] {
        let (policy, _) = policy(LAYERS);
        let barrier = Barrier::new(16);
        let names: Vec<String> = (0..users).map(|user| format!("user-{user}")).collect();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|thread| {
                    let (policy, barrier, names) = (&policy, &barrier, &names);
                    scope.spawn(move || {
                        barrier.wait();
                        (0..10_000)
                            .filter(|call| {
                                let user = &names[(thread + call) % names.len()];
                                policy.decide(&chat(user, 1, tokens)).is_allow()
                            })
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, expected, "{users} users, {tokens} tokens");
        // What losers of a race charged to the first layer was refunded to the last unit.
        let left = policy.decide(&login(1)).standings()[0].decision().remaining();
        assert_eq!(left, 99_u64.saturating_sub(expected as u64), "{users} users, {tokens} tokens");
    }
}

#[test]
fn a_missing_key_falls_back_on_the_stated_rule_and_never_on_unlimited() {
    let rule = |missing: &str| {
        format!(
            "[[rule]]\nname = \"team\"\nlimit = \"2 per minute\"\nkey = \"header:x-team\"\nmissing_key = \"{missing}\""
        )
    };
    let call = Call::new("GET", "/");

    let (deny, _) = policy(&rule("deny"));
    let verdict = deny.decide(&call);
    let Verdict::Deny(refusal) = &verdict else { panic!("{verdict:?}") };
    assert!(
        matches!(refusal.reason(), Reason::MissingKey(part) if part.to_string() == "header:x-team")
    );

    let (share, _) = policy(&rule("share"));
    let admitted = (0..10).filter(|_| share.decide(&call).is_allow()).count();
    assert_eq!(admitted, 2, "all without the key share one limit");

    let (skip, _) = policy(&rule("skip"));
    assert!((0..10).all(|_| skip.decide(&call).is_allow()));
}

/// Else who leaves out one part would have a limit of his own for each value of the others.
#[test]
fn all_calls_that_lack_some_part_of_the_key_share_one_limit() {
    let (share, _) = policy(
        "[[rule]]\nname = \"team\"\nlimit = \"2 per minute\"\nkey = [\"ip\", \"user\", \"team\"]\nmissing_key = \"share\"",
    );
    let of = |last| Call::new("GET", "/").from_ip(ip(last));
    let calls = [of(1), of(2), of(3).by_user("alice"), of(4).of_team("red"), Call::new("GET", "/")];
    let admitted = calls.iter().filter(|call| share.decide(call).is_allow()).count();
    assert_eq!(admitted, 2);
    assert!(share.decide(&of(1).by_user("alice").of_team("red")).is_allow(), "it has its key");
}

#[test]
fn a_rule_that_is_skipped_does_not_ask_for_the_cost() {
    let (skip, _) = policy(
        "[[rule]]\nname = \"budget\"\nlimit = \"100 per day\"\nkey = \"user\"\ncost = \"llm-tokens\"\nmissing_key = \"skip\"",
    );
    assert!(skip.decide(&Call::new("GET", "/")).is_allow());
    assert!(!skip.decide(&Call::new("GET", "/").by_user("alice")).is_allow());
}

#[test]
fn a_call_that_does_not_say_its_tokens_is_denied_by_a_token_budget() {
    let (policy, _) = policy(LAYERS);
    let call = Call::new("POST", "/v1/chat/completions").from_ip(ip(1)).by_user("alice");
    let verdict = policy.decide(&call);
    let Verdict::Deny(refusal) = &verdict else { panic!("{verdict:?}") };
    assert_eq!((refusal.rule().name(), refusal.reason()), ("budget", Reason::MissingCost));
}

#[test]
fn a_dry_run_is_counted_and_never_enforced() {
    let (policy, _) = policy(
        "[[rule]]\nname = \"trial\"\nlimit = \"2 per minute\"\nkey = \"ip\"\ndry_run = true\n\
         [[rule]]\nname = \"real\"\nlimit = \"5 per minute\"\nkey = \"ip\"",
    );
    let admitted = (0..10).filter(|_| policy.decide(&login(1)).is_allow()).count();
    assert_eq!(admitted, 5);
    assert_eq!(policy.rules()[0].dry_run_denials(), 3);
    // What the enforced rule denies is not counted in the trial either.
    assert_eq!(remaining(&policy, &login(2), "trial"), 1);
}

#[test]
fn reservations_settle_once_and_carry_debt() {
    let (policy, clock) = policy(LAYERS);
    let reserve = |tokens| match policy.decide(&chat("alice", 1, tokens)) {
        Verdict::Allow(grant) => grant.into_reservation().expect("a budget applies"),
        Verdict::Deny(refusal) => panic!("{refusal:?}"),
    };
    let left = || {
        let verdict = policy.peek(&chat("alice", 1, 0));
        let standing = verdict.standings().last().copied().expect("three rules");
        (standing.decision().is_allow(), standing.decision().remaining())
    };

    reserve(4_000).settle(Cost::new(1_500));
    assert_eq!(left(), (true, 8_500));
    reserve(4_000).cancel();
    assert_eq!(left(), (true, 8_500));
    drop(reserve(500));
    assert_eq!(left(), (true, 8_000), "dropped: the charge is kept");
    drop(reserve(500).cancel_on_drop());
    assert_eq!(left(), (true, 8_000), "dropped: the charge is given back");

    reserve(8_000).settle(Cost::new(13_000));
    assert_eq!(left(), (false, 0), "5,000 in debt");
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(left(), (true, 5_000), "carried into the next day");
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(left(), (true, 10_000));
}

#[test]
fn a_reservation_of_an_earlier_day_frees_nothing_today() {
    let (policy, clock) = policy(LAYERS);
    let Verdict::Allow(grant) = policy.decide(&chat("alice", 1, 10_000)) else { panic!() };
    let yesterday = grant.into_reservation().expect("a budget applies");
    clock.advance(Duration::from_secs(86_400));
    assert!(policy.decide(&chat("alice", 1, 10_000)).is_allow());
    yesterday.settle(Cost::new(1));
    assert_eq!(denied_by(&policy.decide(&chat("alice", 1, 1))), Some("budget"));
}

#[test]
fn every_spelling_of_a_path_reaches_the_same_budget() {
    let (policy, _) = policy(LAYERS);
    let spellings = [
        "/v1/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions/",
        "/v1/./chat/completions",
        "/%76%31/chat/completions",
        "/V1/Chat/Completions",
        "/v1;a/chat/completions",
        "/x/../v1/chat/completions",
        "/v1%2fchat/completions",
    ];
    for spelling in spellings {
        let call =
            Call::new("POST", spelling).from_ip(ip(1)).by_user("alice").with_llm_tokens(1_000);
        assert_eq!(policy.decide(&call).standings().len(), 3, "{spelling}");
    }
    assert_eq!(remaining(&policy, &chat("alice", 1, 0), "budget"), 1_000);
}

struct Team(&'static str);

impl Headers for Team {
    fn header(&self, name: &str) -> Option<&str> {
        (name == "x-team").then_some(self.0)
    }
}

#[test]
fn keys_of_several_parts_have_a_limit_for_each_combination() {
    let (policy, _) = policy(
        "[[rule]]\nname = \"team\"\nlimit = \"1 per minute\"\nkey = [\"user\", \"header:X-Team\"]",
    );
    let call = |user, team: &'static Team| Call::new("GET", "/").by_user(user).with_headers(team);
    for (user, team) in [("alice", &Team("a")), ("alice", &Team("b")), ("bob", &Team("a"))] {
        assert!(policy.decide(&call(user, team)).is_allow());
        assert!(!policy.decide(&call(user, team)).is_allow());
    }
}

#[test]
fn more_after_tells_when_one_more_unit_is_free() {
    let (policy, clock) = policy(LAYERS);
    assert!(policy.decide(&login(1)).is_allow());
    clock.advance(Duration::from_secs(10));
    let verdict = policy.decide(&login(1));
    let standing = verdict.standings()[0];
    assert_eq!(standing.remaining(), 98);
    assert_eq!(standing.more_after(), Some(Duration::from_secs(50)));
    assert_eq!(standing.reset_after(), Duration::from_secs(60));
}

#[test]
fn a_bad_file_is_refused_with_line_field_and_remedy() {
    let rule =
        |lines: &str| format!("[[rule]]\nname = \"r\"\nlimit = \"1 per s\"\nkey = \"ip\"\n{lines}");
    let cases = [
        (
            "".to_owned(),
            "test.toml:1:1: rule: a policy without rules limits nothing; give at least one [[rule]]",
        ),
        ("[[rules]]".to_owned(), "test.toml:1:3: unknown field `rules`, expected `rule`"),
        (
            "[[rule]]\nname = 5".to_owned(),
            "test.toml:2:8: invalid type: integer `5`, expected a string",
        ),
        ("[[rule]]\nname = \"r\"\nkey = \"ip\"".to_owned(), "test.toml:1:1: missing field `limit`"),
        (
            rule("").replace("1 per s", "1 s"),
            "test.toml:3:9: rule `r`: limit: `1 s` is not a rate; write it as in `100 per minute` or `5 per 30 seconds`",
        ),
        (
            rule("").replace("1 per s", "0 per s"),
            "test.toml:3:9: rule `r`: limit: a limit of 0 units denies everything; give at least 1",
        ),
        (
            rule("").replace("1 per s", "9 per month"),
            "test.toml:3:9: rule `r`: limit: a month has no fixed length; use the algorithm `fixed-window`, or a period in days",
        ),
        (
            rule("").replace("\"ip\"", "\"ipp\""),
            "test.toml:4:7: rule `r`: key: `ipp` is not a key; use `ip`, `user`, `team`, `api-key`, `model`, `route`, `header:<name>` or `global`",
        ),
        (
            rule("").replace("\"ip\"", "[\"ip\", \"x\"]"),
            "test.toml:4:14: rule `r`: key: `x` is not a key; use `ip`, `user`, `team`, `api-key`, `model`, `route`, `header:<name>` or `global`",
        ),
        (
            rule("").replace("\"ip\"", "[]"),
            "test.toml:2:8: rule `r`: key: a rule needs a key, and room for at least 1; use `global` for one limit for all",
        ),
        (
            rule("algorithm = \"gcra\""),
            "test.toml:5:13: rule `r`: algorithm: `gcra` is not an algorithm; use one of `token-bucket`, `fixed-window`, `sliding-window-counter`, `sliding-window-log`, `concurrency`",
        ),
        (
            rule("burst = 5"),
            "test.toml:5:9: rule `r`: burst: is for the algorithm `token-bucket`, and this one is `sliding-window-counter`",
        ),
        (rule("epochs = 0"), "test.toml:3:9: rule `r`: limit: 0 epochs do not fit; give 1 to 60"),
        (
            rule("algorithm = \"fixed-window\"\ntime_zone = \"UTC\""),
            "test.toml:3:9: rule `r`: limit: a time zone is for one day, week or month; leave it out for other periods",
        ),
        (
            rule("cost = 0"),
            "test.toml:5:8: invalid value: integer `0`, expected `\"llm-tokens\"`, `\"money\"` or a number of units from 1",
        ),
        (
            rule("cost = \"tokens\""),
            "test.toml:5:8: invalid value: string \"tokens\", expected `\"llm-tokens\"`, `\"money\"` or a number of units from 1",
        ),
        (
            rule("match = { path = \"v1\" }"),
            "test.toml:5:18: rule `r`: match.path: `v1` is not a path; begin with `/`, and use `*` only for a whole segment, as in `/v1/*`",
        ),
        (
            rule("match = { path = \"/v1?x=1\" }"),
            "test.toml:5:18: rule `r`: match.path: `/v1?x=1` would never apply: paths are looked at without `?` and `#` and what follows, `;` parameters and dot segments; leave these out, as in `/v1/*`",
        ),
        (
            rule("match = { header = { \"x-plan:\" = \"free\" } }"),
            "test.toml:5:22: rule `r`: match.header: `x-plan:` is not the name of a header; write it as in `x-plan`",
        ),
        (
            rule("match = { pth = \"/v1\" }"),
            "test.toml:5:11: unknown field `pth`, expected one of `path`, `method`, `authenticated`, `user`, `team`, `model`, `header`",
        ),
        (
            rule("when_full = \"drop\""),
            "test.toml:5:13: rule `r`: when_full: `drop` is not known; use one of `deny`, `take-over`",
        ),
        (
            rule("missing_key = \"allow\""),
            "test.toml:5:15: rule `r`: missing_key: `allow` is not known; use one of `deny`, `share`, `skip`",
        ),
        (
            rule("keys = 0"),
            "test.toml:5:8: rule `r`: key: a rule needs a key, and room for at least 1; use `global` for one limit for all",
        ),
        (
            rule("ipv6_prefix = 8"),
            "test.toml:5:15: rule `r`: ipv6_prefix: an IPv6 prefix of 8 bits is not one; give 32 to 128",
        ),
        (
            rule("reservation_expires_s = 60"),
            "test.toml:5:25: rule `r`: reservation_expires_s: is for rules with `cost = \"llm-tokens\"` or `\"money\"`, which reserve",
        ),
        (
            rule("cost = \"llm-tokens\"\nreservation_expires_s = 0"),
            "test.toml:6:25: rule `r`: reservation_expires_s: would give back at once; give the seconds that a call may take",
        ),
        (
            rule("when_short = \"lower\""),
            "test.toml:5:14: rule `r`: when_short: is for rules with `cost = \"llm-tokens\"` or `\"money\"`, which reserve",
        ),
        (
            rule("cost = \"llm-tokens\"\nwhen_short = \"maybe\""),
            "test.toml:6:14: rule `r`: when_short: `maybe` is not known; use one of `deny`, `lower`",
        ),
        (
            rule("debt = false"),
            "test.toml:5:8: rule `r`: debt: is for rules with `cost = \"llm-tokens\"` or `\"money\"`, which reserve",
        ),
        (
            rule("cost = \"money\""),
            "test.toml:3:9: rule `r`: limit: `1 per s` is not a rate of money; write it as in `2.50 USD per day`",
        ),
        (
            rule("").replace("1 per s", "1 USD per s"),
            "test.toml:3:9: rule `r`: limit: an amount of money needs `cost = \"money\"` beside it",
        ),
        (
            rule("").replace("1 per s", "0 concurrent"),
            "test.toml:3:9: rule `r`: limit: a limit of 0 units denies everything; give at least 1",
        ),
        (
            rule("algorithm = \"fixed-window\"").replace("1 per s", "3 concurrent"),
            "test.toml:3:9: rule `r`: limit: concurrent calls have no period; leave the algorithm out, or give a period as in `100 per minute`",
        ),
        (
            rule("algorithm = \"concurrency\""),
            "test.toml:3:9: rule `r`: limit: counts calls at a time; write the limit as in `5 concurrent`",
        ),
        (
            rule("cost = \"llm-tokens\"").replace("1 per s", "3 concurrent"),
            "test.toml:3:9: rule `r`: limit: concurrent calls are counted one by one; leave `cost` out",
        ),
        (
            rule("match = { model = \"*mini\" }"),
            "test.toml:5:19: rule `r`: match.model: `*mini` names no models; give a name, with `*` only at its end, as in `gpt-5*`",
        ),
        (
            rule("keys = 100_000_000_000"),
            "test.toml:5:8: rule `r`: keys: 100000000000 keys of 264 bytes take more than 16 GiB; give fewer keys, or use the algorithm `sliding-window-counter`",
        ),
        (
            rule(&rule("")),
            "test.toml:6:8: rule: two rules are called `r`; give each a name of its own",
        ),
    ];
    for (text, expected) in cases {
        let error = Policy::from_source(&Source::new("test.toml", &text), FakeClock::default());
        assert_eq!(error.expect_err(&text).to_string(), expected, "{text}");
    }
}

#[test]
fn every_field_of_a_rule_is_understood() {
    let (policy, _) = policy(
        r#"
        [[rule]]
        name = "all-fields"
        limit = "7 per 2 weeks"
        algorithm = "token-bucket"
        burst = 3
        key = ["ip", "header:x-team"]
        match = { path = ["/v1/*", "/chat"], method = ["POST", "GET"], authenticated = false, header = { x-plan = "free" } }
        cost = 2
        keys = 500
        when_full = "take-over"
        missing_key = "share"
        ipv6_prefix = 56
        dry_run = true

        [[rule]]
        name = "monthly"
        limit = "1_000_000 per month"
        algorithm = "fixed-window"
        time_zone = "America/New_York"
        key = "global"
        cost = "llm-tokens"
        reservation_expires_s = 600
        "#,
    );
    let rule = &policy.rules()[0];
    assert_eq!(rule.limit().capacity(), 3);
    assert_eq!(rule.limit().rate().to_string(), "7 per 2 weeks");
    assert!(rule.is_dry_run());
}

#[test]
fn a_call_that_somebody_else_refuses_can_be_charged_nowhere() {
    let (policy, clock) = policy(LAYERS);
    let remaining = |policy: &Policy| {
        let verdict = policy.peek(&chat("alice", 1, 0));
        verdict.standings().iter().map(|standing| standing.remaining()).collect::<Vec<_>>()
    };
    let fresh = remaining(&policy);
    for _ in 0..3 {
        let Verdict::Allow(grant) = policy.decide(&chat("alice", 1, 500)) else {
            panic!("there is room");
        };
        let charged = policy.charged(&grant);
        let reservation = grant.into_reservation().expect("for the budget");
        clock.advance(Duration::from_secs(1));
        reservation.cancel();
        charged.take_back();
        assert_eq!(remaining(&policy), fresh);
    }
    let Verdict::Allow(grant) = policy.decide(&chat("alice", 1, 500)) else {
        panic!("there is room");
    };
    drop(policy.charged(&grant));
    grant.into_reservation().expect("for the budget").settle(Cost::new(100));
    assert!(remaining(&policy) < fresh, "what is not taken back stays");
}
