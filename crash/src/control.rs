//! What must fail: a limit behind a lock, and one whose state is two words.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use tidegate::Pages;
use tidegate::core::AtomicU64;

use crate::operation::LIMIT;
use crate::survivor::Outcome;

/// A limit in a file as it should not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A word that says "locked".
    Lock,
    /// The window in one word, and what was spent in it in another.
    TwoWords,
}

type Words = Pages<AtomicU64>;

/// The window that the victim comes in.
const WINDOW: u64 = 7;

impl Control {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lock => "a lock",
            Self::TwoWords => "two words",
        }
    }

    pub(crate) fn prepare(self, path: &Path) {
        let file = File::create_new(path).expect("a file");
        file.set_len(Words::ALIGN).expect("room");
    }

    pub(crate) fn ready(self, path: &Path) -> Box<dyn FnOnce()> {
        let words = open(path);
        Box::new(move || {
            self.decide(&words);
        })
    }

    pub(crate) fn survive(self, path: &Path) -> Outcome {
        let words = open(path);
        // What the victim went on with: the survivor writes here too.
        let spent = words[2].load(SeqCst);
        let mut admitted = 0;
        loop {
            match self.decide(&words) {
                None => return Outcome::Blocked,
                Some(false) => break,
                Some(true) => admitted += 1,
            }
        }
        if admitted + spent > LIMIT { Outcome::Overspent } else { Outcome::Exact }
    }

    /// Whether one more unit is admitted; `None` when somebody holds the lock.
    fn decide(self, words: &Words) -> Option<bool> {
        let [lock_or_window, used, acknowledged, ..] = &words[..] else { return None };
        match self {
            Self::Lock => {
                let taken = |_: &u32| lock_or_window.compare_exchange(0, 1, SeqCst, SeqCst).is_ok();
                (0..10_000).find(taken)?;
                let is_allowed = used.load(SeqCst) < LIMIT;
                used.fetch_add(u64::from(is_allowed), SeqCst);
                lock_or_window.store(0, SeqCst);
                Some(is_allowed)
            }
            Self::TwoWords => {
                if lock_or_window.load(SeqCst) != WINDOW {
                    used.store(0, SeqCst);
                    used.fetch_add(1, SeqCst);
                    // The caller goes on from here, as far as anybody else can see.
                    acknowledged.store(1, SeqCst);
                    lock_or_window.store(WINDOW, SeqCst);
                    return Some(true);
                }
                let is_allowed = used.load(SeqCst) < LIMIT;
                used.fetch_add(u64::from(is_allowed), SeqCst);
                Some(is_allowed)
            }
        }
    }
}

fn open(path: &Path) -> Words {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
    Pages::of_file(&file, 0, 8).expect("its words")
}
