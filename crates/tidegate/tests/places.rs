//! Places among concurrent calls that processes share in a file: none is given away while its call runs, and none
//! is lost for good.

use std::sync::Arc;
use std::time::Duration;

use tidegate::policy::{Call, CostRule, Held, KeyPart, Policy, Rule, Source, Verdict};
use tidegate::{FakeClock, Limit, Reservation, SharedFile, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A process with `places` for its calls and those of the other processes. What opens a file for itself is one.
fn process(folder: &tempfile::TempDir, places: u64, clock: &Arc<FakeClock>) -> Policy {
    let file = &SharedFile::open(folder.path().join("limits")).unwrap();
    let limit = Limit::concurrent(places).unwrap();
    let rule = Rule::shared("places", limit, [KeyPart::Global], 64, file).unwrap();
    let rule = rule.with_expiring_reservations(file, MINUTE).unwrap();
    Policy::with_clock([rule], clock.clone()).unwrap()
}

fn enter(policy: &Policy) -> Option<Reservation<Held>> {
    match policy.decide(&Call::new("GET", "/")) {
        Verdict::Allow(grant) => grant.into_reservation(),
        Verdict::Deny(_) => None,
    }
}

fn file(folder: &tempfile::TempDir) -> (SharedFile, Arc<FakeClock>) {
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    (file, Arc::new(FakeClock::at(NOW)))
}

/// Stopped for longer than its count lasts, it is taken for dead, and its places are given to others. What it
/// leaves when it goes on are not theirs.
#[test]
fn a_process_that_was_stopped_leaves_nobody_elses_places() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let [stopped, other] = [(); 2].map(|()| process(&folder, 2, &clock));
    let before = [(); 2].map(|()| enter(&stopped).unwrap());
    clock.advance(Duration::from_secs(120));
    let after =
        [(); 2].map(|()| enter(&other).expect("nobody has said for two minutes that he runs"));
    assert_eq!(stopped.renew_reservations(), 0, "they are somebody else's by now");
    drop(before);
    assert!(enter(&other).is_none(), "both of the others run");
    assert_eq!(other.renew_reservations(), 2);
    drop(after);
    assert!(enter(&other).is_some());
}

/// If nobody has taken them meanwhile, they are its own again.
#[test]
fn a_process_that_was_stopped_keeps_its_places_when_nobody_wanted_them() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let [stopped, other] = [(); 2].map(|()| process(&folder, 2, &clock));
    let before = [(); 2].map(|()| enter(&stopped).unwrap());
    clock.advance(Duration::from_secs(120));
    assert_eq!(stopped.renew_reservations(), 2);
    assert!(enter(&other).is_none(), "both run still");
    drop(before);
    let both = [(); 2].map(|()| enter(&other).unwrap());
    assert!(enter(&other).is_none());
    drop(both);
}

/// Nobody would renew them.
#[test]
fn places_that_do_not_expire_are_kept_for_as_long_as_their_calls_run() {
    let folder = tempfile::tempdir().unwrap();
    let (file, clock) = file(&folder);
    let limit = Limit::concurrent(1).unwrap();
    let rule = Rule::shared("places", limit, [KeyPart::Global], 64, &file).unwrap();
    let policy = Policy::with_clock([rule], clock.clone()).unwrap();
    let running = enter(&policy).unwrap();
    clock.advance(60 * MINUTE);
    assert!(enter(&policy).is_none());
    drop(running);
    assert!(enter(&policy).is_some());
}

/// Another boot, says the header: no call runs any more, whether its place expires or not.
#[test]
fn after_the_machine_has_restarted_every_place_is_free() {
    use std::os::unix::fs::FileExt;
    for expires in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(NOW));
        let path = folder.path().join("limits");
        let process = || {
            let file = SharedFile::open(&path).unwrap();
            let limit = Limit::concurrent(1).unwrap();
            let rule = Rule::shared("places", limit, [KeyPart::Global], 64, &file).unwrap();
            let rule = match expires {
                true => rule.with_expiring_reservations(&file, MINUTE).unwrap(),
                false => rule,
            };
            Policy::with_clock([rule], clock.clone()).unwrap()
        };
        std::mem::forget(enter(&process()).unwrap());
        assert!(enter(&process()).is_none());
        let raw = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        raw.write_all_at(&[1; 8], 7 * 8).unwrap();
        assert!(enter(&process()).is_some(), "expires: {expires}");
    }
}

/// A reload makes a new policy; calls that the former one let in run on.
#[test]
fn who_renews_for_a_reloaded_policy_renews_for_the_former_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = file(&folder);
    let text = "[[rule]]\nname = \"places\"\nlimit = \"2 concurrent\"\nkey = \"global\"\n\
        [[rule]]\nname = \"tokens\"\nlimit = \"100 per day\"\nkey = \"global\"\ncost = \"llm-tokens\"\n";
    let source = Source::new("policy", text);
    let former = Policy::shared(&source, &file).unwrap();
    let call = Call::new("POST", "/").with_llm_tokens(10);
    let Verdict::Allow(grant) = former.decide(&call) else { panic!("there is room") };
    let running = grant.into_reservation();
    let reloaded = Policy::reload(&source, Some(&file), &former).unwrap();
    drop(former);
    assert_eq!(reloaded.renew_reservations(), 2, "of either rule");
    drop(running);
    assert_eq!(reloaded.renew_reservations(), 0);
}

#[test]
fn a_lifetime_of_nothing_would_give_away_what_is_reserved() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = file(&folder);
    let limit = Limit::fixed_window("100 per day".parse().unwrap(), None).unwrap();
    let rule = Rule::shared("budget", limit, [KeyPart::Global], 64, &file).unwrap();
    let rule = rule.costing(CostRule::LlmTokens);
    let error = rule.with_expiring_reservations(&file, Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("at once"), "{error}");
}

/// What is settled of it would count as calls that never end.
#[test]
fn concurrent_calls_are_counted_one_by_one() {
    for cost in [CostRule::LlmTokens, CostRule::Money("USD".parse().unwrap())] {
        let rule = Rule::new("calls", Limit::concurrent(2).unwrap(), [KeyPart::Global]).unwrap();
        let error = Policy::new([rule.costing(cost)]).unwrap_err();
        assert!(error.to_string().contains("one by one"), "{error}");
    }
}

/// Looking at every note takes longer than a decision, so not each of them does.
#[test]
fn places_of_the_dead_are_given_back_every_ten_seconds_though_nobody_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let [dead, living] = [(); 2].map(|()| process(&folder, 9, &clock));
    std::mem::forget(enter(&dead).unwrap());
    let open = || living.rules()[0].open_reservations().0;
    clock.advance(MINUTE - Duration::from_secs(1));
    living.renew_reservations();
    drop(enter(&living).unwrap());
    assert_eq!(open(), 1, "not yet");
    clock.advance(Duration::from_secs(9));
    drop(enter(&living).unwrap());
    assert_eq!(open(), 1, "somebody looked nine seconds ago");
    clock.advance(Duration::from_secs(1));
    drop(enter(&living).unwrap());
    assert_eq!(open(), 0);
}
