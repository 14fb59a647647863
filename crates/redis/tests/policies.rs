//! Policies whose rules machines share, on a real server.

mod servers;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use servers::RedisServer;
use tidegate::policy::{Call, DecidedBy, Policy, Reason, Source, Usage, Verdict};
use tidegate::{Cost, Money, Retry};
use tidegate_redis::{
    Namespace, RedisBackend, Server, ServerConfig, policy_from_source, policy_from_toml, policy_on,
};

fn policy(redis: &RedisServer, rules: &str) -> Policy {
    let timeout_ms = 1_000;
    let section = format!("[redis]\nurl = \"{}\"\ntimeout_ms = {timeout_ms}\n", redis.url());
    policy_from_toml(&format!("{section}{rules}")).unwrap()
}

fn errors(rules: &str) -> Vec<String> {
    let text = format!("[redis]\nurl = \"redis://127.0.0.1:1\"\n{rules}");
    let errors = policy_from_source(&Source::new("t", &text)).expect_err(rules);
    errors.iter().map(ToString::to_string).collect()
}

const IP_AND_USER: &str = r#"
    [[rule]]
    name = "ip"
    limit = "5 per hour"
    key = "ip"

    [[rule]]
    name = "user"
    limit = "3 per hour"
    algorithm = "sliding-window-log"
    key = "user"
    match = { authenticated = true }
"#;

fn left(verdict: &Verdict<'_>) -> Vec<u64> {
    verdict.standings().iter().map(|standing| standing.remaining()).collect()
}

fn call(user: &str) -> Call<'_> {
    Call::new("POST", "/chat").from_ip("192.0.2.7".parse().unwrap()).by_user(user)
}

#[tokio::test]
async fn machines_with_one_file_share_its_limits_and_a_denied_call_is_charged_nowhere() {
    let redis = RedisServer::start();
    let (one, other) = (policy(&redis, IP_AND_USER), policy(&redis, IP_AND_USER));
    for (machine, left_after) in [(&one, [4, 2]), (&other, [3, 1]), (&one, [2, 0])] {
        let verdict = machine.decide_async(&call("alice")).await;
        assert!(verdict.is_allow());
        assert_eq!(left(&verdict), left_after);
        assert!(verdict.standings().iter().all(|rule| rule.decided_by() == DecidedBy::Server));
    }
    for machine in [&one, &other] {
        let Verdict::Deny(refusal) = machine.decide_async(&call("alice")).await else { panic!() };
        assert_eq!(refusal.rule().name(), "user");
        assert!(matches!(refusal.reason(), Reason::Limit(_)));
        assert!(matches!(refusal.retry(), Retry::After(wait) if wait > Duration::from_secs(3_500)));
        assert_eq!(refusal.standings()[0].remaining(), 2, "the address was not charged");
    }
    assert_eq!(left(&other.decide_async(&call("bob")).await), [1, 2]);
    let stranger = Call::new("GET", "/").from_ip("192.0.2.7".parse().unwrap());
    assert_eq!(left(&one.peek_async(&stranger).await), [0], "as if it were charged");
    assert_eq!(left(&one.decide_async(&stranger).await), [0]);
    assert!(!other.decide_async(&stranger).await.is_allow());
}

#[tokio::test]
async fn keys_that_a_call_lacks_are_denied_and_charged_nowhere() {
    let redis = RedisServer::start();
    let policy = policy(&redis, &IP_AND_USER.replace("match = { authenticated = true }", ""));
    let stranger = Call::new("GET", "/").from_ip("192.0.2.7".parse().unwrap());
    let Verdict::Deny(refusal) = policy.decide_async(&stranger).await else { panic!() };
    assert!(matches!(refusal.reason(), Reason::MissingKey(_)));
    assert_eq!(left(&policy.decide_async(&call("alice")).await)[0], 4);
}

#[tokio::test]
async fn rules_of_this_process_and_of_the_server_are_one_decision() {
    let redis = RedisServer::start();
    let rules = r#"
        [[rule]]
        name = "here"
        limit = "3 per hour"
        key = "user"
        backend = "local"

        [[rule]]
        name = "there"
        limit = "2 per hour"
        key = "global"
        backend = "redis"

        [[rule]]
        name = "calls"
        limit = "1 concurrent"
        key = "user"
        backend = "local"
    "#;
    let policy = policy(&redis, rules);
    let Verdict::Allow(grant) = policy.decide_async(&call("alice")).await else { panic!() };
    let names: Vec<_> = grant.standings().iter().map(|rule| rule.rule().name()).collect();
    assert_eq!(names, ["here", "there", "calls"], "in the order of the file");
    let by: Vec<_> = grant.standings().iter().map(|rule| rule.decided_by()).collect();
    assert_eq!(by, [DecidedBy::Process, DecidedBy::Server, DecidedBy::Process]);
    // A denial here asks nobody there.
    let Verdict::Deny(refusal) = policy.decide_async(&call("alice")).await else { panic!() };
    assert_eq!(refusal.rule().name(), "calls");
    drop(refusal);
    drop(grant.into_reservation());
    let second = policy.decide_async(&call("bob")).await;
    assert!(second.is_allow(), "the denied call was not charged there");
    // A denial there charges nobody here.
    let Verdict::Deny(refusal) = policy.decide_async(&call("carol")).await else { panic!() };
    assert_eq!((refusal.rule().name(), left_of(&refusal)), ("there", vec![3, 0, 1]));
}

fn left_of(refusal: &tidegate::policy::Refusal<'_>) -> Vec<u64> {
    refusal.standings().iter().map(|standing| standing.remaining()).collect()
}

const BUDGETS: &str = r#"
    [[rule]]
    name = "requests"
    limit = "100 per hour"
    key = "user"
    lease = true

    [[rule]]
    name = "budget"
    limit = "1_000 per day"
    algorithm = "fixed-window"
    key = "user"
    cost = "llm-tokens"

    [[rule]]
    name = "money"
    limit = "1.00 USD per day"
    algorithm = "fixed-window"
    key = "global"
    cost = "money"
"#;

fn llm_call(tokens: u64, nanos: u64) -> Call<'static> {
    let money = Money::from_nanos(nanos, "USD".parse().unwrap());
    call("alice").with_llm_tokens(tokens).with_money(money)
}

/// Waits until the other machine sees this much left, which it does when what was settled is booked.
async fn wait_for(policy: &Policy, expected: [u64; 3]) {
    let call = llm_call(0, 0);
    for _ in 0..500 {
        if left(&policy.peek_async(&call).await) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} is left, not {expected:?}", left(&policy.peek_async(&call).await));
}

#[tokio::test]
async fn estimates_are_reserved_and_each_rule_settled_in_its_own_unit() {
    let redis = RedisServer::start();
    let (one, other) = (policy(&redis, BUDGETS), policy(&redis, BUDGETS));
    let Verdict::Allow(grant) = one.decide_async(&llm_call(400, 500_000_000)).await else {
        panic!()
    };
    let reservation = grant.into_reservation().unwrap();
    assert_eq!(reservation.reserved(), Cost::new(400));
    assert_eq!(one.rules()[1].open_reservations(), (1, 400));
    wait_for(&other, [98, 600, 500_000_000]).await;
    reservation.settle_usage(Usage { llm_tokens: 150, nanos: 20_000_000 });
    wait_for(&other, [98, 850, 980_000_000]).await;
    assert_eq!(one.rules()[1].open_reservations(), (0, 0));
    // Debt is carried.
    let Verdict::Allow(grant) = other.decide_async(&llm_call(1, 1)).await else { panic!() };
    let used = Usage { llm_tokens: 1_500, nanos: 0 };
    grant.into_reservation().unwrap().settle_usage(used);
    // A call that is denied stands as before: by no request less.
    wait_for(&one, [98, 0, 980_000_000]).await;
    let Verdict::Deny(refusal) = one.decide_async(&llm_call(1, 1)).await else { panic!() };
    assert_eq!(refusal.rule().name(), "budget");
}

#[tokio::test]
async fn what_is_reserved_for_a_caller_who_goes_away_is_given_back() {
    let redis = RedisServer::start();
    let policy = policy(&redis, BUDGETS);
    wait_for(&policy, [99, 1_000, 1_000_000_000]).await;
    redis.signal(Signal::SIGSTOP);
    let call = llm_call(400, 5);
    let gone = tokio::time::timeout(Duration::from_millis(20), policy.decide_async(&call)).await;
    assert!(gone.is_err(), "the server does not answer");
    redis.signal(Signal::SIGCONT);
    wait_for(&policy, [98, 1_000, 1_000_000_000]).await;
    policy.finish().await;
}

#[tokio::test]
async fn a_caller_who_goes_away_is_charged_nothing_here() {
    let redis = RedisServer::start();
    let rules = "[[rule]]\nname = \"here\"\nlimit = \"3 per hour\"\nkey = \"user\"\nbackend = \"local\"\n\
                 [[rule]]\nname = \"there\"\nlimit = \"9 per hour\"\nkey = \"user\"\n";
    let policy = policy(&redis, rules);
    let _ = policy.decide_async(&call("alice")).await;
    redis.signal(Signal::SIGSTOP);
    for _ in 0..5 {
        let alice = call("alice");
        let gone = tokio::time::timeout(Duration::from_millis(5), policy.decide_async(&alice));
        assert!(gone.await.is_err());
    }
    redis.signal(Signal::SIGCONT);
    assert_eq!(left(&policy.decide_async(&call("alice")).await)[0], 1);
}

#[tokio::test]
async fn hot_keys_are_decided_from_leases_and_machines_never_admit_more_than_the_limit() {
    let redis = RedisServer::start();
    let rules = "[[rule]]\nname = \"all\"\nlimit = \"2000 per day\"\nalgorithm = \"fixed-window\"\n\
                 key = \"global\"\nlease = true\n";
    let machines = [(); 3].map(|()| policy(&redis, rules));
    let calls = machines.each_ref().map(|policy| async {
        let (mut admitted, mut by_lease) = (0, 0);
        for _ in 0..1_500 {
            let verdict = policy.decide_async(&call("alice")).await;
            admitted += u64::from(verdict.is_allow());
            by_lease += u64::from(verdict.standings()[0].decided_by() == DecidedBy::Lease);
        }
        policy.finish().await;
        (admitted, by_lease)
    });
    let [one, two, three] = calls;
    let (one, two, three) = tokio::join!(one, two, three);
    let admitted = one.0 + two.0 + three.0;
    assert!(admitted <= 2_000 && admitted > 1_500, "{admitted}");
    assert!(one.1 + two.1 + three.1 > 2_000, "{one:?} {two:?} {three:?}");
    let mut rest = 0;
    while machines[0].decide_async(&call("alice")).await.is_allow() {
        rest += 1;
    }
    assert_eq!(admitted + rest, 2_000, "all that was not used had been given back");
}

#[tokio::test]
async fn each_rule_says_what_happens_while_the_server_is_gone() {
    let mut redis = RedisServer::start();
    let rule = |name: &str, when_down: &str| {
        let limit = "limit = \"8 per day\"\nalgorithm = \"fixed-window\"\ncost = \"llm-tokens\"";
        let matching = format!("match = {{ path = \"/{name}\" }}");
        format!("[[rule]]\nname = \"{name}\"\n{limit}\nkey = \"user\"\n{when_down}\n{matching}\n")
    };
    let rules = [
        rule("deny", ""),
        rule("allow", "when_down = \"allow\""),
        rule("share", "when_down = \"share of 2\""),
    ];
    let policy = policy(&redis, &rules.concat());
    redis.kill();
    let call = |path| Call::new("POST", path).by_user("alice").with_llm_tokens(2);
    let Verdict::Deny(refusal) = policy.decide_async(&call("/deny")).await else { panic!() };
    assert!(matches!(refusal.reason(), Reason::Unavailable { .. }), "an error is not a denial");
    assert!(matches!(refusal.retry(), Retry::After(wait) if !wait.is_zero()));
    for _ in 0..20 {
        let verdict = policy.decide_async(&call("/allow")).await;
        assert!(verdict.is_allow());
        assert_eq!(verdict.standings()[0].decided_by(), DecidedBy::Fallback);
    }
    // 4 of 8, of which 2 are given back.
    let mut reservations = Vec::new();
    for _ in 0..2 {
        let Verdict::Allow(grant) = policy.decide_async(&call("/share")).await else { panic!() };
        reservations.extend(grant.into_reservation());
    }
    let Verdict::Deny(refusal) = policy.decide_async(&call("/share")).await else { panic!() };
    assert!(matches!(refusal.reason(), Reason::Limit(_)), "its share is spent: that is a denial");
    reservations.pop().unwrap().cancel();
    policy.finish().await;
    assert!(policy.decide_async(&call("/share")).await.is_allow());
    assert!(!policy.peek_async(&call("/share")).await.is_allow());
    redis.restart();
    for _ in 0..1_000 {
        let verdict = policy.decide_async(&call("/deny")).await;
        if verdict.is_allow() {
            assert_eq!(verdict.standings()[0].decided_by(), DecidedBy::Server);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come back");
}

#[tokio::test]
async fn a_policy_that_is_loaded_anew_grants_no_share_twice() {
    let server = Server::new(&ServerConfig::single("redis://127.0.0.1:1")).unwrap();
    let backend = RedisBackend::new(Arc::new(server), Namespace::new("reloaded").unwrap());
    let load = |limit: &str, more: &str| {
        let text = format!(
            "[[rule]]\nname = \"share\"\nlimit = \"{limit}\"\nalgorithm = \"fixed-window\"\n\
             key = \"user\"\nwhen_down = \"share of 2\"\n{more}"
        );
        policy_on(&Source::new("t", &text), &backend).unwrap()
    };
    let admitted = async |policy: &Policy, calls: usize| {
        let mut admitted = 0;
        for _ in 0..calls {
            let verdict = policy.decide_async(&call("alice")).await;
            admitted += usize::from(verdict.is_allow());
        }
        admitted
    };
    let first = load("8 per day", "");
    assert_eq!(admitted(&first, 3).await, 3);
    let other = "[[rule]]\nname = \"other\"\nlimit = \"1 per hour\"\nkey = \"user\"\n\
                 match = { path = \"/other\" }";
    let second = load("8 per day", other);
    assert_eq!(admitted(&second, 9).await, 1, "4, of which 3 were taken before");
    assert_eq!(admitted(&first, 1).await, 0, "calls that go on with the former one, too");
    drop(first);
    assert_eq!(admitted(&load("8 per day", ""), 9).await, 0);
    assert_eq!(admitted(&load("12 per day", ""), 9).await, 6, "another limit begins fresh");
}

#[tokio::test]
async fn who_does_not_wait_is_denied_not_let_through() {
    let redis = RedisServer::start();
    let policy = policy(&redis, IP_AND_USER);
    for verdict in [policy.decide(&call("alice")), policy.peek(&call("alice"))] {
        let Verdict::Deny(refusal) = verdict else { panic!() };
        assert!(matches!(refusal.reason(), Reason::Unavailable { .. }));
    }
    assert!(policy.account("ip", &call("alice")).unwrap_err().to_string().contains("on a server"));
}

#[test]
fn what_a_server_cannot_keep_is_refused_when_the_file_is_read() {
    let rule = |fields: &str| {
        errors(&format!("[[rule]]\nname = \"r\"\nlimit = \"5 per hour\"\nkey = \"user\"\n{fields}"))
    };
    let cases = [
        (
            "lease = true\nalgorithm = \"sliding-window-log\"",
            "t:5:9: rule `r`: limit: a sliding window log is exact to the microsecond, so it is not leased; use `sliding-window-counter`",
        ),
        (
            "when_down = \"share\"",
            "t:7:13: rule `r`: when_down: `share` is not known; use `deny`, `allow`, or, with the number of processes, `share of 4`",
        ),
        (
            "backend = \"disk\"",
            "t:7:11: rule `r`: backend: `disk` is not known; use `redis` or `local`",
        ),
        (
            "backend = \"local\"\nlease = 50",
            "t:8:9: rule `r`: lease: is for rules on a server that machines share, and this one is local",
        ),
        (
            "cost = \"llm-tokens\"\nreservation_expires_s = 60",
            "t:8:25: rule `r`: reservation_expires_s: is for rules in a file; what is reserved on a server stays charged when its process dies",
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(rule(fields), [expected]);
    }
    let concurrent = errors("[[rule]]\nname = \"r\"\nlimit = \"5 concurrent\"\nkey = \"user\"\n");
    assert_eq!(
        concurrent,
        [
            "t:5:9: rule `r`: limit: concurrent calls are counted by each process for itself, not on a server; say `backend = \"local\"`, and give each process its part"
        ]
    );
    let here = Policy::from_toml(
        "[[rule]]\nname = \"r\"\nlimit = \"5 per hour\"\nkey = \"user\"\nwhen_down = \"deny\"",
    );
    assert!(here.unwrap_err().to_string().contains("and this one is local"));
    let here = Policy::from_toml(
        "[[rule]]\nname = \"r\"\nlimit = \"5 per hour\"\nkey = \"user\"\nbackend = \"redis\"",
    );
    assert!(
        here.unwrap_err().to_string().contains("say in a section of its own where the server is")
    );
}

#[test]
fn what_is_wrong_with_the_server_is_told_with_its_line() {
    let rule = "[[rule]]\nname = \"r\"\nlimit = \"5 per hour\"\nkey = \"user\"\n";
    let cases = [
        ("", "redis.url: is missing"),
        ("url = \"http://x\"", "t:2:7: redis.url: the address is none"),
        (
            "url_env = \"TIDEGATE_NO_SUCH\"",
            "t:2:11: redis.url_env: the environment variable `TIDEGATE_NO_SUCH` is not set",
        ),
        (
            "url = \"redis://x\"\nurl_env = \"X\"",
            "t:2:7: redis.url: give either `url` or `url_env`",
        ),
        (
            "url = \"redis://x\"\nnamespace = \"a b\"",
            "t:3:13: redis.namespace: `a b` is not a name",
        ),
        ("url = \"redis://x\"\ntimeout_ms = 0", "t:3:14: redis.timeout_ms: "),
        ("url = \"redis://x\"\nmaster = \"m\"", "t:3:10: redis.master: needs `sentinels`"),
        ("sentinels = [\"redis://x\"]", "t:2:14: redis.sentinels: need `master`"),
        (
            "url = \"rediss://x\"\nca_file = \"/no/such\"",
            "t:3:11: redis.ca_file: cannot read /no/such",
        ),
    ];
    for (section, expected) in cases {
        let text = format!("[redis]\n{section}\n{rule}");
        let errors = policy_from_source(&Source::new("t", &text)).expect_err(section);
        assert!(errors[0].to_string().contains(expected), "{errors:?}");
    }
}

#[tokio::test]
async fn what_nobody_settles_stays_charged_though_a_dry_run_charged_nothing() {
    let redis = RedisServer::start();
    let rules = r#"
        [[rule]]
        name = "trial"
        limit = "10 per day"
        algorithm = "fixed-window"
        key = "user"
        cost = "llm-tokens"
        dry_run = true

        [[rule]]
        name = "budget"
        limit = "1000 per day"
        algorithm = "fixed-window"
        key = "user"
        cost = "llm-tokens"

        [[rule]]
        name = "money"
        limit = "1 USD per day"
        algorithm = "fixed-window"
        key = "user"
        cost = "money"
    "#;
    let policy = policy(&redis, rules);
    let alice = call("alice").with_llm_tokens(600).with_money("0.25 USD".parse::<Money>().unwrap());
    let Verdict::Allow(grant) = policy.decide_async(&alice).await else { panic!() };
    assert!(grant.standings()[0].decision().denial().is_some(), "the dry run would have denied");
    let reservation = grant.into_reservation().expect("two rules are settled later");
    assert_eq!(reservation.reserved(), Cost::new(600));
    drop(reservation);
    policy.finish().await;
    let nothing =
        call("alice").with_llm_tokens(0).with_money(Money::from_nanos(0, "USD".parse().unwrap()));
    assert_eq!(left(&policy.peek_async(&nothing).await)[1..], [400, 750_000_000]);
}

#[tokio::test]
async fn a_decision_that_nobody_waits_for_is_charged_nothing_here() {
    let redis = RedisServer::start();
    let rules = r#"
        [[rule]]
        name = "here"
        limit = "3 per hour"
        key = "user"
        backend = "local"

        [[rule]]
        name = "there"
        limit = "5 per hour"
        key = "user"
    "#;
    let policy = policy(&redis, rules);
    for _ in 0..10 {
        drop(policy.decide_async(&call("alice")));
    }
    assert_eq!(left(&policy.decide_async(&call("alice")).await), [2, 4]);
}

#[tokio::test]
async fn an_estimate_of_nothing_is_settled_by_what_was_used() {
    let redis = RedisServer::start();
    let rules = r#"
        [[rule]]
        name = "budget"
        limit = "1000 per day"
        algorithm = "fixed-window"
        key = "user"
        cost = "llm-tokens"
    "#;
    let policy = policy(&redis, rules);
    let alice = call("alice").with_llm_tokens(0);
    let Verdict::Allow(grant) = policy.decide_async(&alice).await else { panic!() };
    grant.into_reservation().expect("it is settled later").settle(Cost::new(300));
    policy.finish().await;
    assert_eq!(left(&policy.peek_async(&alice).await), [700]);
}
