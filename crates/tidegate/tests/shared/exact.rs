//! All processes together are admitted what one alone would be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tidegate::policy::{Call, KeyPart, Policy, Rule};
use tidegate::{Cost, FakeClock, SharedFile};

use crate::worker::{Job, KEY, NOW, Worker, limit, users};

const ALGORITHMS: [&str; 4] =
    ["token-bucket", "fixed-window", "sliding-window-counter", "sliding-window-log"];

#[test]
fn eight_processes_admit_exactly_the_limit() {
    for algorithm in ALGORITHMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let text = format!("{algorithm} 1000 per hour");
        let mut workers: Vec<_> =
            (0..8).map(|_| Worker::start(&path, &text, Job::Decide(400))).collect();
        workers.iter_mut().for_each(Worker::go);
        let admitted: Vec<_> = workers.into_iter().map(Worker::finish).collect();
        assert_eq!(admitted.iter().sum::<u64>(), 1_000, "{algorithm}: {admitted:?}");
    }
}

#[test]
fn what_was_spent_is_still_spent_after_a_restart() {
    for algorithm in ALGORITHMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let text = format!("{algorithm} 10 per hour");
        let clock = FakeClock::at(NOW);
        assert!(users(&path, &text, &clock).decide(KEY, Cost::new(7)).is_allow());
        let again = users(&path, &text, &clock);
        assert_eq!(again.peek(KEY, Cost::ZERO).remaining(), 3, "{algorithm}");
        assert!(!again.decide(KEY, Cost::new(4)).is_allow());
    }
}

#[test]
fn a_table_is_told_by_its_name_and_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let remaining = |name: &str, text: &str, spend| {
        let limiter = file.limiter::<str>(name, limit(text), 100).unwrap();
        let limiter = limiter.with_clock(FakeClock::at(NOW));
        limiter.decide(KEY, Cost::new(spend)).remaining()
    };
    assert_eq!(remaining("users", "sliding-window-log 10 per hour", 4), 6);
    assert_eq!(remaining("teams", "sliding-window-log 10 per hour", 1), 9, "another name");
    assert_eq!(remaining("users", "sliding-window-log 20 per hour", 1), 19, "another limit");
    assert_eq!(remaining("users", "sliding-window-log 10 per hour", 1), 5, "the first again");
}

#[test]
fn a_file_is_opened_while_others_add_tables_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits");
    let file = SharedFile::open(&path).unwrap();
    let is_whole = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_whole.load(Ordering::Relaxed) {
                    SharedFile::open(&path).unwrap();
                }
            });
        }
        for table in 0..SharedFile::MAX_TABLES {
            let limit = limit("sliding-window-log 10 per hour");
            file.limiter::<str>(&format!("{table}"), limit, 10).unwrap();
        }
        is_whole.store(true, Ordering::Relaxed);
    });
    assert_eq!(SharedFile::open(&path).unwrap().tables().unwrap().len(), SharedFile::MAX_TABLES);
}

#[test]
fn a_policy_finds_its_rules_again_when_others_have_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits");
    let rule = |file: &SharedFile, name, text| {
        Rule::shared(name, limit(text), [KeyPart::User], 100, file).unwrap()
    };
    let call = Call::new("POST", "/chat").by_user("alice");
    let remaining = |policy: &Policy| {
        let verdict = policy.peek(&call);
        let standings = verdict.standings().iter();
        standings
            .map(|standing| (standing.rule().name().to_owned(), standing.remaining()))
            .collect()
    };

    let file = SharedFile::open(&path).unwrap();
    let (day, minute) = ("fixed-window 10 per day", "sliding-window-counter 5 per minute");
    let rules = [rule(&file, "day", day), rule(&file, "minute", minute)];
    let policy = Policy::with_clock(rules, FakeClock::at(NOW)).unwrap();
    assert!(policy.decide(&call).is_allow());
    drop((policy, file));

    let file = SharedFile::open(&path).unwrap();
    let rules =
        [rule(&file, "day", day), rule(&file, "minute", "sliding-window-counter 9 per minute")];
    let policy = Policy::with_clock(rules, FakeClock::at(NOW)).unwrap();
    let left: Vec<(String, u64)> = remaining(&policy);
    // Each with the call that was asked about.
    assert_eq!(left, [("day".to_owned(), 8), ("minute".to_owned(), 8)]);
}
