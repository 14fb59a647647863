//! What was admitted, and when.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub const WINDOW_NS: u64 = 1_000_000_000;

/// An admitted call: it was decided at some time from `began` to `ended`, in ns, on this machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    pub began: u64,
    pub ended: u64,
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// A file that holds what is written, also when the process is killed right after.
pub struct Record(File);

impl Record {
    pub fn append(path: &Path) -> Self {
        Self(OpenOptions::new().append(true).create(true).open(path).unwrap())
    }

    pub fn note(&mut self, admitted: Admitted) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&admitted.began.to_le_bytes());
        bytes[8..].copy_from_slice(&admitted.ended.to_le_bytes());
        self.0.write_all(&bytes).unwrap();
    }
}

pub fn read(path: &Path) -> Vec<Admitted> {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_end(&mut bytes).unwrap();
    }
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes
        .chunks_exact(16)
        .map(|entry| Admitted { began: number(&entry[..8]), ended: number(&entry[8..]) })
        .collect()
}

/// The most calls that were surely decided within one window: they began and ended in it.
pub fn most_within_a_window(admitted: &[Admitted]) -> u64 {
    let mut by_end: Vec<_> = admitted.to_vec();
    by_end.sort_by_key(|one| one.ended);
    let within = |start: u64| {
        let first = by_end.partition_point(|one| one.ended < start);
        let last = by_end.partition_point(|one| one.ended < start + WINDOW_NS);
        by_end[first..last].iter().filter(|one| one.began >= start).count() as u64
    };
    by_end.iter().map(|one| within(one.began)).max().unwrap_or(0)
}

#[test]
fn calls_count_in_a_window_that_they_began_and_ended_in() {
    let call = |began, ended| Admitted { began, ended };
    let calls =
        [call(0, 10), call(5, WINDOW_NS - 1), call(5, WINDOW_NS + 4), call(9, WINDOW_NS + 6)];
    assert_eq!(most_within_a_window(&calls), 2);
    assert_eq!(most_within_a_window(&[]), 0);
}
