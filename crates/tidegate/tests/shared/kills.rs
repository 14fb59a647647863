//! SIGKILL at any moment: nobody else is blocked, and at most the call under way is charged for nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use tidegate::{Cost, FakeClock, SharedFile};

use crate::worker::{Job, KEY, KEYS, LIFETIME, NOW, TABLE, Worker, limit, users};

/// As many as a test run has time for, or as the environment says.
fn kills() -> u64 {
    std::env::var("TIDEGATE_KILLS").map_or(40, |kills| kills.parse().expect("a number of kills"))
}

/// Workers, two at a time, that are killed in the middle of their job. Gives how often they
/// acknowledged something.
fn storm(path: &Path, text: &str, job: Job) -> u64 {
    let start = || {
        let mut worker = Worker::start(path, text, job);
        worker.go();
        worker
    };
    let (mut acknowledged, mut other) = (0, start());
    for kill in 1..kills() {
        let mut worker = start();
        acknowledged += worker.wait_for_a_sign();
        // A while that is another one each time, so that the kill meets any step of a call.
        let until = Instant::now() + Duration::from_micros(kill * 37 % 300);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        acknowledged += std::mem::replace(&mut other, worker).kill();
    }
    acknowledged + other.kill()
}

const MUCH: u64 = 1_000_000_000;

#[test]
fn at_most_one_unit_is_lost_for_each_process_that_is_killed() {
    for algorithm in ["token-bucket", "fixed-window", "sliding-window-counter"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let text = format!("{algorithm} {MUCH} per day");
        let acknowledged = storm(&path, &text, Job::Spend);
        let users = users(&path, &text, FakeClock::at(NOW));
        let granted = MUCH - users.peek(KEY, Cost::ZERO).remaining();
        let lost = granted.checked_sub(acknowledged).expect("never more than was granted");
        assert!(lost <= kills(), "{algorithm}: {lost} of {granted} lost by {} kills", kills());
        println!("{algorithm}: {} kills, {granted} granted, {lost} lost", kills());
    }
}

#[test]
fn a_reservation_of_a_process_that_is_killed_stays_charged() {
    for algorithm in ["token-bucket", "fixed-window", "sliding-window-counter"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let text = format!("{algorithm} {MUCH} per day");
        let settled = 3 * storm(&path, &text, Job::Settle);
        let users = users(&path, &text, FakeClock::at(NOW));
        let used = MUCH - users.peek(KEY, Cost::ZERO).remaining();
        let held = used.checked_sub(settled).expect("what was settled is charged");
        assert!(held <= 10 * kills(), "{algorithm}: {held} held after {} kills", kills());
    }
}

/// Of a process that dies while it has one, all but what lies between two steps comes back.
#[test]
fn a_reservation_that_expires_comes_back_when_its_process_is_killed() {
    for algorithm in ["token-bucket", "fixed-window", "sliding-window-counter"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let text = format!("{algorithm} {MUCH} per day");
        let settled = 3 * storm(&path, &text, Job::Hold);
        let file = SharedFile::open(&path).unwrap();
        let holds = file.holds::<str>(TABLE, limit(&text), KEYS).unwrap();
        let clock = FakeClock::at(NOW);
        let holds = holds.with_clock(&clock);
        let used = || {
            MUCH - holds
                .limiter()
                .table()
                .peek(holds.limiter().key(KEY), Cost::ZERO, NOW)
                .remaining()
        };
        let (open, units) = holds.open();
        let before = used();
        assert_eq!(holds.return_expired(), 0, "their time is not over");
        clock.advance(LIFETIME);
        assert_eq!(holds.return_expired(), open);
        assert_eq!(holds.open(), (0, 0));
        let left = before - u64::try_from(units).unwrap();
        // What was settled stays; of the calls under way, at most all that they had reserved.
        let lost = left.checked_sub(settled).expect("what was settled is charged");
        assert!(lost <= 10 * kills(), "{algorithm}: {lost} lost by {} kills", kills());
        println!("{algorithm}: {} kills, {open} came back, {lost} units lost", kills());
    }
}

/// Keys come and go, slots change hands and epochs turn while processes die. Afterwards everything
/// goes on, and each key has exactly its limit once a window has passed.
#[test]
fn after_any_deaths_every_key_has_its_limit_again() {
    for algorithm in
        ["token-bucket", "fixed-window", "sliding-window-counter", "sliding-window-log"]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits");
        let text = format!("{algorithm} 5 per second");
        storm(&path, &text, Job::Churn);
        let file = SharedFile::open(&path).unwrap();
        for table in file.tables().unwrap() {
            assert_eq!(table.faults(tidegate::Clock::now(&file.clock())), [], "{algorithm}");
        }
        let limiter = file.limiter::<u32>(TABLE, limit(&text), KEYS).unwrap();
        let later = FakeClock::at(NOW + Duration::from_secs(1_000_000_000));
        let limiter = limiter.with_clock(&later);
        assert_eq!(limiter.table().live_keys(tidegate::Clock::now(&&later)), 0, "{algorithm}");
        for key in 0..KEYS as u32 {
            let admitted = (0..9).filter(|_| limiter.decide(&key, Cost::ONE).is_allow()).count();
            assert_eq!(admitted, 5, "{algorithm}, key {key}");
        }
    }
}
