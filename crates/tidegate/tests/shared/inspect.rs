//! A file as people look at it.

use std::os::unix::fs::FileExt;

use tidegate::{Cost, FakeClock, Fault, SharedFile};

use crate::worker::{NOW, limit};

#[test]
fn it_tells_who_has_used_most() {
    let folder = tempfile::tempdir().unwrap();
    let file = SharedFile::open(folder.path().join("limits")).unwrap();
    let text = "fixed-window 10 per day";
    let users = file.limiter::<u32>("users", limit(text), 100).unwrap();
    let users = users.with_clock(FakeClock::at(NOW));
    for key in 0..7 {
        assert!(users.decide(&key, Cost::new(u64::from(key))).is_allow());
    }
    let tables = file.tables().unwrap();
    let [table] = &tables[..] else { panic!("one table") };
    assert_eq!(table.name(), "users");
    assert_eq!(table.limit().to_string(), "fixed-window, 10 per day, zone UTC");
    assert_eq!(table.live_keys(NOW), 6);
    let top = table.top_consumers(2, NOW);
    let left: Vec<_> = top.iter().map(|key| key.standing.remaining()).collect();
    assert_eq!(left, [4, 5]);
    let fingerprint = users.key(&6).hash() & ((1 << 46) - 1);
    assert_eq!(top[0].fingerprint, fingerprint);
    assert_eq!(table.faults(NOW), []);
}

#[test]
fn it_finds_a_slot_that_no_call_leaves_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits");
    let file = SharedFile::open(&path).unwrap();
    let users = file.limiter::<u32>("users", limit("token-bucket 10 per day"), 4).unwrap();
    let users = users.with_clock(FakeClock::at(NOW));
    assert!(users.decide(&1, Cost::ONE).is_allow());
    // The table's lines follow its tally, which follows the header.
    let lines_at = 2 << 16;
    let on_disk = std::fs::read(&path).unwrap();
    let bytes = file.tables().unwrap()[0].bytes();
    let slots = on_disk[lines_at..lines_at + bytes].chunks(16);
    let used = slots.clone().position(|slot| slot != [0; 16]).expect("alice's slot");
    let unused = slots.clone().position(|slot| slot == [0; 16]).expect("a free slot");
    let head: Vec<u8> = slots.clone().nth(used).unwrap().to_vec();
    let writable = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    writable.write_all_at(&head, (lines_at + unused * 16) as u64).unwrap();
    let tables = file.tables().unwrap();
    let expected = Fault::TwoSlots { first: used.min(unused), second: used.max(unused) };
    assert_eq!(tables[0].faults(NOW), [expected]);
}
