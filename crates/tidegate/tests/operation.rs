//! A policy in operation: it is reloaded, looked at and topped up while calls go on.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate::policy::{AccountError, Call, Policy, Source, Verdict};
use tidegate::{Cost, SharedFile};

const USER: &str = "[[rule]]\nname = \"user\"\nlimit = \"10 per hour\"\nkey = \"user\"\n";
const BUDGET: &str = "[[rule]]\nname = \"budget\"\nlimit = \"1000 per day\"\nalgorithm = \"fixed-window\"\n\
                      key = \"user\"\ncost = \"llm-tokens\"\n";

fn call(user: &str) -> Call<'_> {
    Call::new("GET", "/chat").by_user(user).with_llm_tokens(100)
}

fn remaining(policy: &Policy, rule: &str, user: &str) -> u64 {
    policy.account(rule, &call(user)).unwrap().standing().remaining()
}

fn reload(text: &str, shared: Option<&SharedFile>, former: &Policy) -> Result<Policy, Vec<String>> {
    let reloaded = Policy::reload(&Source::new("t", text), shared, former);
    reloaded.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Whatever else changes: rules that come and go, their order, whom they apply to.
#[test]
fn a_reload_keeps_what_was_spent_under_rules_that_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("state")).unwrap();
    for shared in [None, Some(&file)] {
        let both = format!("{USER}{BUDGET}");
        let policy = match shared {
            None => Policy::from_toml(&both).unwrap(),
            Some(file) => Policy::shared(&Source::new("t", &both), file).unwrap(),
        };
        let Verdict::Allow(grant) = policy.decide(&call("alice")) else { panic!("it fits") };
        let reservation = grant.into_reservation().unwrap();
        let other = "[[rule]]\nname = \"ip\"\nlimit = \"5 per hour\"\nkey = \"ip\"\nmissing_key = \"skip\"\n";
        let changed = USER.replace("10 per hour", "7 per hour");
        let budget = format!("{BUDGET}match = {{ path = \"/chat\" }}\n");
        let reloaded = reload(&format!("{other}{budget}{changed}"), shared, &policy).unwrap();
        assert_eq!(remaining(&reloaded, "budget", "alice"), 900);
        assert_eq!(remaining(&reloaded, "user", "alice"), 7, "another limit begins fresh");
        assert_eq!(reloaded.rules()[1].open_reservations(), (1, 100));
        // A call that began before the reload ends after it, with both policies seeing the same.
        reservation.settle(Cost::new(30));
        assert_eq!(remaining(&reloaded, "budget", "alice"), 970);
        assert_eq!(remaining(&policy, "budget", "alice"), 970);
        assert_eq!(reloaded.rules()[1].open_reservations(), (0, 0));
    }
}

#[test]
fn a_bad_file_changes_nothing_and_tells_all_that_is_wrong() {
    let policy = Policy::from_toml(USER).unwrap();
    assert!(policy.decide(&call("alice")).is_allow());
    let bad = "[[rule]]\nname = \"a b\"\nlimit = \"1 per hour\"\nkey = \"user\"\n\
               [[rule]]\nname = \"c\"\nlimit = \"1 each hour\"\nkey = \"usr\"\nmissing_key = \"no\"\n\
               [[rule]]\nname = \"d\"\nlimit = 5\nkey = \"user\"\n";
    let errors = reload(bad, None, &policy).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["t:2:8", "t:7:9", "t:8:7", "t:9:15", "t:12:9"], "{errors:#?}");
    assert_eq!(remaining(&policy, "user", "alice"), 9);
    assert_eq!(policy.rules()[0].name(), "user");
}

#[test]
fn a_spent_user_who_is_topped_up_is_allowed_so_much_and_no_more() {
    let policy = Policy::from_toml(USER).unwrap();
    let passed = || (0..100).filter(|_| policy.decide(&call("alice")).is_allow()).count();
    assert_eq!(passed(), 10);
    let account = policy.account("user", &call("alice")).unwrap();
    assert_eq!(account.top_up(3).remaining(), 3);
    assert_eq!(passed(), 3);
    assert_eq!(account.charge(5).remaining(), 0, "debt");
    assert_eq!(account.top_up(5).remaining(), 0);
    assert_eq!(account.top_up(1).remaining(), 1);
    assert_eq!(account.charge(100).remaining(), 0);
    assert_eq!(account.reset().remaining(), 10);
    assert_eq!(passed(), 10);
    assert_eq!(remaining(&policy, "user", "bob"), 10, "nobody else");
}

/// The limit and what was forgiven, exactly, whoever calls meanwhile.
#[test]
fn topping_up_during_a_storm_admits_exactly_so_much_more() {
    for algorithm in ["sliding-window-counter", "sliding-window-log", "fixed-window"] {
        let text = format!(
            "{}algorithm = \"{algorithm}\"\n",
            USER.replace("10 per hour", "1000 per week")
        );
        let policy = Policy::from_toml(&text).unwrap();
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let passes = u64::from(policy.decide(&call("alice")).is_allow());
                        admitted.fetch_add(passes, Ordering::Relaxed); // read when all have ended
                    }
                });
            }
            let account = policy.account("user", &call("alice")).unwrap();
            for _ in 0..100 {
                // Of an account with less used than that, the rest of a top-up is lost.
                while account.standing().remaining() > 990 {
                    std::thread::yield_now();
                }
                let _ = account.top_up(10);
            }
        });
        while policy.decide(&call("alice")).is_allow() {
            admitted.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(admitted.into_inner(), 2_000, "{algorithm}");
    }
}

#[test]
fn accounts_are_found_by_rule_and_key_or_it_is_said_what_is_missing() {
    let text = format!("{USER}{}", USER.replace("\"user\"", "\"global\""));
    let policy = Policy::from_toml(&text).unwrap();
    assert!(policy.decide(&call("alice")).is_allow());
    let standings = policy.peek(&call("alice")).standings().to_vec();
    let account = policy.account_of("user", standings[0].key()).unwrap();
    assert_eq!(account.key(), policy.account("user", &call("alice")).unwrap().key());
    assert_eq!(account.standing().remaining(), 9);
    assert_eq!(policy.account("global", &Call::new("", "")).unwrap().standing().remaining(), 9);
    let error = policy.account("users", &call("alice")).unwrap_err();
    assert_eq!(error.to_string(), "there is no rule `users`; the rules are `user`, `global`");
    let error = policy.account("user", &Call::new("", "")).unwrap_err();
    assert!(matches!(error, AccountError::MissingKey { .. }));
    assert_eq!(error.to_string(), "the rule `user` tells callers apart by `user`; say which");
}

#[test]
fn top_consumers_are_those_with_the_least_left() {
    let policy = Policy::from_toml(USER).unwrap();
    for (user, calls) in [("alice", 3), ("bob", 9), ("carol", 1), ("dave", 6)] {
        (0..calls).for_each(|_| assert!(policy.decide(&call(user)).is_allow()));
    }
    let (rule, now) = (&policy.rules()[0], policy.now());
    assert_eq!(rule.live_keys(now), 4);
    let top = |most| {
        let keys = rule.top_consumers(most, now).into_iter();
        keys.map(|key| key.standing.remaining()).collect::<Vec<_>>()
    };
    assert_eq!(top(10), [1, 4, 7, 9]);
    assert_eq!(top(2), [1, 4]);
    let bob = policy.account("user", &call("bob")).unwrap().key();
    assert_eq!(rule.top_consumers(1, now)[0].fingerprint, bob.hash() & ((1 << 46) - 1));
}
