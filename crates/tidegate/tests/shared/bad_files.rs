//! Files that are none, cut off, damaged or hostile: an error that says what to do, or an answer; never a
//! crash, and never quota out of nothing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tidegate::{Cost, FakeClock, SharedFile, Timestamp};

use crate::worker::{KEYS, NOW, TABLE, limit, users};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("limits")
    }

    /// A file with one table, in which alice has spent 7 of 10.
    fn with_a_table(self, text: &str) -> Self {
        let users = users(&self.path(), text, FakeClock::at(NOW));
        assert!(users.decide("alice", Cost::new(7)).is_allow());
        self
    }
}

const LOG: &str = "sliding-window-log 10 per hour";

fn refused(path: &Path) -> String {
    SharedFile::open(path).expect_err("a bad file").to_string()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn a_file_is_its_owners_alone_and_made_whole() {
    let folder = Folder::new().with_a_table(LOG);
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> =
        fs::read_dir(folder.0.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["limits"], "nothing is left beside it");
}

#[test]
fn what_is_no_file_of_tables_is_refused_and_left_alone() {
    let folder = Folder::new();
    for content in [&b""[..], b"hello", &[0; 100_000], b"#!/bin/sh\necho not a table\n"] {
        fs::write(folder.path(), content).unwrap();
        let error = refused(&folder.path());
        assert!(error.contains("is not a file of Tidegate's tables"), "{error}");
        assert_eq!(fs::read(folder.path()).unwrap(), content);
    }
    let error = refused(folder.0.path());
    assert!(error.contains("is not a file; give the path of one"), "{error}");
    let error = refused(&folder.0.path().join("no/such/folder"));
    assert!(error.contains("cannot create") && error.contains("No such file"), "{error}");
    let error = SharedFile::open_existing(folder.0.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("there is no file"), "{error}");
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    let folder = Folder::new().with_a_table(LOG);
    let whole = fs::metadata(folder.path()).unwrap().len();
    for bytes in [whole - 1, 70_000, 65_535, 8] {
        let file = OpenOptions::new().write(true).open(folder.path()).unwrap();
        file.set_len(bytes).unwrap();
        let error = refused(&folder.path());
        assert!(error.contains("was cut off: it has") && error.contains("begin afresh"), "{error}");
    }
}

#[test]
fn another_version_and_another_hasher_are_told_apart() {
    let folder = Folder::new().with_a_table(LOG);
    overwrite(&folder.path(), 16, &[7]);
    assert!(refused(&folder.path()).contains("hashes keys in another way"));
    overwrite(&folder.path(), 8, &[9]);
    assert!(refused(&folder.path()).contains("has format 9, and this program knows 1"));
}

#[test]
fn a_time_that_cannot_be_is_refused() {
    let folder = Folder::new().with_a_table(LOG);
    let latest = Timestamp::MAX.as_nanos();
    for time in [latest + 1, u64::MAX] {
        overwrite(&folder.path(), 8 * 8, &time.to_ne_bytes());
        let error = refused(&folder.path());
        assert!(error.contains("its time is out of range"), "{error}");
    }
    overwrite(&folder.path(), 8 * 8, &latest.to_ne_bytes());
    assert!(SharedFile::open(folder.path()).is_ok());
}

#[test]
fn tables_that_overlap_are_refused() {
    let folder = Folder::new().with_a_table(LOG);
    let file = SharedFile::open(folder.path()).unwrap();
    file.limiter::<str>("second", limit(LOG), 10).unwrap();
    drop(file);
    // The offsets of the first two entries of the directory.
    let offset_at = |index: u64| (64 + index * 64 + 1) * 8;
    let offset = |index| {
        let mut bytes = [0; 8];
        let file = fs::File::open(folder.path()).unwrap();
        file.read_exact_at(&mut bytes, offset_at(index)).unwrap();
        u64::from_ne_bytes(bytes)
    };
    let (first, second) = (offset(0), offset(1));
    assert!(first < second);
    for overlapping in [first, second - 65_536] {
        overwrite(&folder.path(), offset_at(1), &overlapping.to_ne_bytes());
        let error = refused(&folder.path());
        assert!(error.contains("its tables overlap"), "{error}");
    }
    overwrite(&folder.path(), offset_at(1), &second.to_ne_bytes());
    assert!(SharedFile::open(folder.path()).is_ok());
}

#[test]
fn names_and_sizes_that_cannot_be_are_refused() {
    let folder = Folder::new();
    let file = SharedFile::open(folder.path()).unwrap();
    let refused = |name: &str, keys| {
        file.limiter::<str>(name, limit(LOG), keys).expect_err("no table").to_string()
    };
    assert!(refused("", 10).contains("is not a name for a table"));
    assert!(refused(&"n".repeat(65), 10).contains("use 1 to 64 bytes"));
    assert!(refused("users", usize::MAX).contains("cannot be made"));
    // More than any disk here: the file stays as it was.
    assert!(refused("users", 1 << 40).contains("cannot make room in"));
    assert!(file.limiter::<str>("users", limit(LOG), 10).is_ok());
}

#[test]
fn a_file_has_room_for_so_many_tables() {
    let folder = Folder::new();
    let file = SharedFile::open(folder.path()).unwrap();
    let add = |index: usize| file.limiter::<str>(&format!("t{index}"), limit(LOG), 4).map(drop);
    (0..SharedFile::MAX_TABLES).for_each(|index| add(index).unwrap());
    assert!(
        add(SharedFile::MAX_TABLES).unwrap_err().to_string().contains("has 120 tables already")
    );
    assert!(add(0).is_ok(), "those that are there are found");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Any bytes anywhere: the file is refused with an error, or every call is answered.
    #[test]
    fn damaged_bytes_neither_crash_nor_hang(
        algorithm in prop::sample::select(vec![
            "token-bucket", "fixed-window", "sliding-window-counter", "sliding-window-log",
        ]),
        damage in prop::collection::vec(
            (prop_oneof![0..600_u64, 65_536..65_560_u64, 131_072..140_000_u64],
             prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(1)]),
            1..8,
        ),
    ) {
        let text = format!("{algorithm} 10 per hour");
        let folder = Folder::new().with_a_table(&text);
        for (at, value) in damage {
            overwrite(&folder.path(), at / 8 * 8, &value.to_ne_bytes());
        }
        let Ok(file) = SharedFile::open(folder.path()) else { return Ok(()) };
        let Ok(limiter) = file.limiter::<str>(TABLE, limit(&text), KEYS) else { return Ok(()) };
        let limiter = limiter.with_clock(FakeClock::at(NOW));
        for key in ["alice", "bob", "carol"] {
            let _ = limiter.decide(key, Cost::ONE);
            if let Ok(reservation) = limiter.reserve(key, Cost::new(2)) {
                reservation.settle(Cost::new(3));
            }
            let remaining = limiter.peek(key, Cost::ZERO).remaining();
            prop_assert!(remaining <= 10);
        }
    }
}
