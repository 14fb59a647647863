//! Reservations that expire.

use std::sync::Arc;
use std::time::Duration;

use tidegate::policy::{Call, CostRule, KeyPart, Policy, Rule, Verdict};
use tidegate::{Cost, FakeClock, SharedFile, SharedHolds};

use crate::worker::{NOW, TABLE, limit};

const LIFETIME: Duration = Duration::from_secs(600);
const TEXT: &str = "fixed-window 100 per day";

fn holds<'a>(file: &SharedFile, clock: &'a FakeClock) -> SharedHolds<str, &'a FakeClock> {
    file.holds(TABLE, limit(TEXT), 64).unwrap().with_clock(clock)
}

fn left<C: tidegate::Clock>(holds: &SharedHolds<str, C>) -> u64 {
    holds.limiter().peek("alice", Cost::ZERO).remaining()
}

#[test]
fn what_is_not_settled_in_time_comes_back_once_and_settling_late_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits");
    let clock = FakeClock::at(NOW);
    let file = SharedFile::open(&path).unwrap();
    let holds = holds(&file, &clock);
    let late = holds.reserve("alice", Cost::new(60), LIFETIME).unwrap();
    let in_time = holds.reserve("alice", Cost::new(20), LIFETIME * 2).unwrap();
    assert_eq!((left(&holds), holds.open()), (20, (2, 80)));

    clock.advance(LIFETIME - Duration::from_nanos(1));
    assert_eq!(holds.return_expired(), 0);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(holds.return_expired(), 1);
    assert_eq!(holds.return_expired(), 0, "once");
    assert_eq!((left(&holds), holds.open()), (80, (1, 20)));

    late.settle(Cost::new(50));
    assert_eq!(left(&holds), 30, "charged in full, since nothing was held any more");
    in_time.settle(Cost::new(5));
    assert_eq!((left(&holds), holds.open()), (45, (0, 0)));
}

#[test]
fn what_was_reserved_yesterday_frees_nothing_today() {
    let folder = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let holds = holds(&file, &clock);
    std::mem::forget(holds.reserve("alice", Cost::new(60), LIFETIME).unwrap());
    clock.advance(Duration::from_secs(86_400));
    holds.reserve("alice", Cost::new(70), LIFETIME).unwrap().settle(Cost::new(70));
    assert_eq!(holds.return_expired(), 1);
    assert_eq!(left(&holds), 30);
}

#[test]
fn who_is_denied_looks_for_what_has_expired_only_so_often() {
    let folder = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let holds = holds(&file, &clock);
    let every = SharedHolds::<str>::LOOK_EVERY;
    let reserve = |lifetime| holds.reserve("alice", Cost::new(50), lifetime).map(std::mem::forget);
    reserve(every * 10).unwrap();
    reserve(every * 10 + every / 2).unwrap();
    clock.advance(every * 10);
    reserve(LIFETIME).expect("the first has expired");
    clock.advance(every / 2);
    reserve(LIFETIME).expect_err("the second has expired, but somebody has just looked");
    clock.advance(every / 2);
    reserve(LIFETIME).expect("the second has expired");
}

#[test]
fn ways_to_end_a_reservation_count_the_same_after_its_expiry() {
    for is_late in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let clock = FakeClock::at(NOW);
        let file = SharedFile::open(folder.path().join("limits")).unwrap();
        let holds = holds(&file, &clock);
        let reserve = |units| holds.reserve("alice", Cost::new(units), LIFETIME).unwrap();
        let (settled, cancelled) = (reserve(10), reserve(10));
        let (dropped, given_up) = (reserve(10), reserve(10).cancel_on_drop());
        if is_late {
            clock.advance(LIFETIME);
            assert_eq!(holds.return_expired(), 4);
        }
        settled.settle(Cost::new(13));
        cancelled.cancel();
        drop(dropped); // keeps its whole charge, since its call may have been paid for
        drop(given_up);
        assert_eq!(left(&holds), 100 - 13 - 10, "late: {is_late}");
        assert_eq!(holds.open(), (0, 0));
    }
}

#[test]
fn who_is_denied_for_what_a_dead_process_holds_gets_it_after_the_expiry() {
    let folder = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let path = folder.path().join("limits");
    let dead = SharedFile::open(&path).unwrap();
    std::mem::forget(holds(&dead, &clock).reserve("alice", Cost::new(100), LIFETIME).unwrap());

    let file = SharedFile::open(&path).unwrap();
    let holds = holds(&file, &clock);
    let reserve = || holds.reserve("alice", Cost::new(30), LIFETIME);
    assert!(reserve().is_err());
    clock.advance(LIFETIME);
    assert!(reserve().is_ok());
    assert_eq!(holds.open().0, 0, "the one that was dropped has ended too");
}

#[test]
fn beyond_the_records_reservations_are_made_without_an_expiry() {
    let folder = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let text = "fixed-window 100000 per day";
    let holds = file.holds::<u32>(TABLE, limit(text), 64).unwrap().with_clock(&clock);
    let records = SharedHolds::<u32>::RECORDS;
    let made = records as u64 + 1_000;
    for _ in 0..made {
        clock.advance(Duration::from_nanos(1));
        std::mem::forget(holds.reserve(&7, Cost::ONE, LIFETIME).expect("it fits"));
    }
    let (open, units) = holds.open();
    assert!(open <= records && open > records * 9 / 10, "{open} of {records}");
    assert_eq!(units, open as u128);
    clock.advance(LIFETIME);
    assert_eq!(holds.return_expired(), open);
    assert_eq!(holds.limiter().peek(&7, Cost::ZERO).remaining(), 100_000 - made + open as u64);
}

#[test]
fn after_the_machine_has_stopped_nothing_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let path = folder.path().join("limits");
    {
        let file = SharedFile::open(&path).unwrap();
        std::mem::forget(holds(&file, &clock).reserve("alice", Cost::new(60), LIFETIME).unwrap());
    }
    // Another boot, says the header.
    use std::os::unix::fs::FileExt;
    let raw = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    raw.write_all_at(&[1; 8], 7 * 8).unwrap();
    let file = SharedFile::open(&path).unwrap();
    let holds = holds(&file, &clock);
    assert_eq!(holds.open(), (0, 0));
    clock.advance(LIFETIME);
    assert_eq!(holds.return_expired(), 0);
    assert_eq!(left(&holds), 40);
}

#[test]
fn it_tells_what_is_reserved() {
    let folder = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let _plain = file.limiter::<str>("plain", limit(TEXT), 64).unwrap();
    let holds = holds(&file, &clock);
    let _open = holds.reserve("alice", Cost::new(60), LIFETIME).unwrap();
    let told: Vec<_> = file.tables().unwrap().iter().map(|table| table.open_holds()).collect();
    assert_eq!(told, [None, Some((1, 60))]);
}

#[test]
fn a_policys_reservations_come_back_in_every_layer_and_count_once_when_settled_late() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let rule = |name: &str, text: &str, key| {
        let rule = Rule::shared(name, limit(text), [key], 64, &file).unwrap();
        rule.costing(CostRule::LlmTokens).with_expiring_reservations(&file, LIFETIME).unwrap()
    };
    let rules = [
        rule("user", "fixed-window 100 per day", KeyPart::User),
        rule("all", "fixed-window 150 per day", KeyPart::Global),
    ];
    let policy = Policy::with_clock(rules, clock.clone()).unwrap();
    let reserve = |user, tokens| {
        let call = Call::new("POST", "/chat").by_user(user).with_llm_tokens(tokens);
        match policy.decide(&call) {
            Verdict::Allow(grant) => Ok(grant.into_reservation().unwrap()),
            Verdict::Deny(_) => Err(()),
        }
    };
    let dead = reserve("alice", 100).unwrap();
    let late = reserve("bob", 50).unwrap();
    std::mem::forget(dead);
    assert!(reserve("alice", 1).is_err());
    clock.advance(LIFETIME);
    // Denied by both layers for what has expired, it is allowed by both.
    let again = reserve("alice", 100).unwrap();
    late.settle(Cost::new(30));
    again.settle(Cost::new(60));
    assert_eq!(policy.return_expired(), 0, "nothing is left to come back");
    assert!(reserve("alice", 41).is_err());
    assert!(reserve("alice", 40).is_ok());
    assert!(reserve("bob", 21).is_err(), "150 less 30, 60 and 40");
    assert!(reserve("bob", 20).is_ok());
}

/// One that finds no record to be noted in is settled like any other; only that nobody else gives it back.
#[test]
fn a_reservation_that_could_not_be_noted_is_settled_by_what_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let clock = FakeClock::at(NOW);
    let holds: SharedHolds<str> =
        file.holds(TABLE, limit("fixed-window 1000000 per day"), 64).unwrap();
    let holds = holds.with_clock(&clock);
    let mut noted = Vec::new();
    let without_note = loop {
        clock.advance(Duration::from_nanos(1));
        let open = holds.open().0;
        let reservation = holds.reserve("alice", Cost::new(10), LIFETIME).unwrap();
        if holds.open().0 == open {
            break reservation;
        }
        noted.push(reservation);
        assert!(noted.len() <= SharedHolds::<str>::RECORDS, "more notes than records");
    };
    let charged = 10 * noted.len() as u64;
    assert_eq!(left(&holds), 1_000_000 - charged - 10);
    without_note.settle(Cost::new(4));
    assert_eq!(left(&holds), 1_000_000 - charged - 4);
}
