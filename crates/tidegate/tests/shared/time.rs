//! One time for all who share a file, which never steps back.

use tidegate::{Clock, SharedFile, SystemClock, Timestamp};

#[test]
fn the_time_is_that_of_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let clock = SharedFile::open(folder.path().join("limits")).unwrap().clock();
    let (before, shared, after) = (SystemClock::new().now(), clock.now(), clock.now());
    assert!(shared.since(before) < std::time::Duration::from_secs(60));
    assert!(shared <= after);
}

#[test]
fn the_time_goes_on_from_the_latest_that_anybody_saw() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits");
    drop(SharedFile::open(&path).unwrap());
    // Somebody's wall clock was ahead by years.
    let ahead = Timestamp::from_secs(3_000_000_000);
    write_word(&path, 8, ahead.as_nanos());
    let (one, other) = (SharedFile::open(&path).unwrap(), SharedFile::open(&path).unwrap());
    for clock in [one.clock(), other.clock()] {
        let times = [clock.now(), clock.now(), clock.now()];
        assert!(times[0] >= ahead && times.is_sorted(), "{times:?}");
        assert!(times[2].since(ahead) < std::time::Duration::from_secs(60));
    }
}

#[test]
fn a_process_that_runs_follows_one_whose_wall_clock_is_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits");
    let clock = SharedFile::open(&path).unwrap().clock();
    let ahead = clock.now() + std::time::Duration::from_secs(500);
    write_word(&path, 8, ahead.as_nanos());
    assert!(clock.now() >= ahead);
    assert!(clock.now().since(ahead) < std::time::Duration::from_secs(60));
}

fn write_word(path: &std::path::Path, word: u64, value: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
}
