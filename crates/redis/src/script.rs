//! [`Script`]: what the server runs, put together from one source for each algorithm.

use std::sync::OnceLock;

/// A script, and the hash that the server knows it by.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) hash: String,
}

impl Source {
    fn new(text: &str) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { text: text.to_owned(), hash }
    }
}

/// The algorithms that a script knows: one bit each, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Algorithms(u8);

/// The algorithms' names in the sources' sections.
const NAMES: [&str; 4] = ["bucket", "window", "counter", "log"];

impl Algorithms {
    #[cfg(test)]
    const ALL: Self = Self(0b1111);

    /// With the algorithm of this number, counted from 1.
    pub(crate) const fn with(self, kind: u8) -> Self {
        Self(self.0 | 1 << (kind - 1))
    }

    fn names(self) -> impl Iterator<Item = (usize, &'static str)> {
        NAMES.into_iter().enumerate().filter(move |(index, _)| self.0 >> index & 1 == 1)
    }
}

/// What a script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Asks all layers, and charges all of them if all allow.
    Decide,
    /// The same, and leaves a hold that is taken away when it is settled.
    Reserve,
    /// The same, and leases more units than were asked for, where there are.
    Lease,
    /// Asks all layers.
    Peek,
    /// Charges or refunds each layer, whether it fits or not.
    Book,
}

const OPERATIONS: usize = 5;

const ASK: [&str; 4] = [
    include_str!("script/bucket.lua"),
    include_str!("script/window.lua"),
    include_str!("script/counter.lua"),
    include_str!("script/log.lua"),
];

const BOOK: [&str; 4] = [
    include_str!("script/bucket_book.lua"),
    include_str!("script/window_book.lua"),
    include_str!("script/counter_book.lua"),
    include_str!("script/log_book.lua"),
];

/// Where the time comes from, as the prelude has it.
#[cfg(feature = "fake-time")]
const TIME: &str = "local time = call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n";

/// In tests: from the caller; and a state does not go away while that stands still.
#[cfg(feature = "fake-time")]
const FAKE_TIME: &str = "local now = tonumber(table.remove(ARGV))\n";

impl Operation {
    /// The script for these algorithms.
    pub(crate) fn script(self, algorithms: Algorithms) -> &'static Source {
        static SCRIPTS: [[OnceLock<Source>; 16]; OPERATIONS] =
            [const { [const { OnceLock::new() }; 16] }; OPERATIONS];
        SCRIPTS[self as usize][algorithms.0 as usize]
            .get_or_init(|| Source::new(&self.text(algorithms)))
    }

    /// The same, with the time as its last argument, and states that stay for 1,000,000 s longer.
    #[cfg(feature = "fake-time")]
    pub(crate) fn script_of_fake_time(self, algorithms: Algorithms) -> &'static Source {
        static SCRIPTS: [[OnceLock<Source>; 16]; OPERATIONS] =
            [const { [const { OnceLock::new() }; 16] }; OPERATIONS];
        SCRIPTS[self as usize][algorithms.0 as usize].get_or_init(|| {
            let text = self.text(algorithms);
            assert!(text.contains(TIME) && text.contains("/ 1000) + 2"), "{text}");
            Source::new(
                &text.replace(TIME, FAKE_TIME).replace("/ 1000) + 2", "/ 1000) + 1000000002"),
            )
        })
    }

    /// Only what is needed: each time a script runs, all of it does.
    fn text(self, algorithms: Algorithms) -> String {
        let mut text = include_str!("script/prelude.lua").to_owned();
        if matches!(self, Self::Reserve | Self::Lease) {
            text.push_str("local hold_ms = table.remove(ARGV)\n");
        }
        let mut sections: Vec<_> = algorithms.names().map(|(_, name)| name).collect();
        for (index, _) in algorithms.names() {
            text.push_str(ASK[index]);
            if self == Self::Book {
                text.push_str(BOOK[index]);
            }
        }
        let body: &[&str] = match self {
            Self::Decide => &[include_str!("script/ask.lua"), include_str!("script/charge.lua")],
            Self::Reserve => {
                sections.push("reserve");
                &[include_str!("script/ask.lua"), include_str!("script/charge.lua")]
            }
            Self::Lease => {
                sections.push("lease");
                text.push_str(include_str!("script/lease.lua"));
                &[include_str!("script/ask.lua"), include_str!("script/charge.lua")]
            }
            Self::Peek => &[include_str!("script/ask.lua"), include_str!("script/peek.lua")],
            Self::Book => &[include_str!("script/book.lua")],
        };
        text.push_str(&sections_of(&body.concat(), &sections));
        without_comments(&text)
    }
}

/// The text with the sections of these names: a section begins with `--{name` and ends with `--}`, and
/// may lie in another.
fn sections_of(text: &str, names: &[&str]) -> String {
    let (mut kept, mut open) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("--{") {
            open.push(names.contains(&name));
        } else if line.trim() == "--}" {
            open.pop().expect("a section ends that has begun");
        } else if open.iter().all(|is_kept| *is_kept) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    assert!(open.is_empty(), "a section that does not end");
    kept
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_what_its_algorithms_need_and_nothing_else() {
        let bucket = Operation::Decide.text(Algorithms::default().with(1));
        assert!(bucket.contains("local function bucket("));
        assert!(!bucket.contains("counter") && !bucket.contains("--") && !bucket.contains("hold"));
        let all = Operation::Lease.text(Algorithms::ALL);
        assert!(all.contains("lease_counter(") && all.contains("hold_ms"));
        assert!(Operation::Book.text(Algorithms::ALL).contains("book_log("));
    }

    #[test]
    fn no_number_becomes_text_on_the_way() {
        for operation in [Operation::Decide, Operation::Lease, Operation::Peek, Operation::Book] {
            let text = operation.text(Algorithms::ALL);
            assert!(!text.contains("tostring") && !text.contains("format"), "{text}");
        }
    }
}
