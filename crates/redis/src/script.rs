//! [`Script`]: what the server runs, put together from one source for each algorithm.

mod compact;

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

/// The algorithms that a script knows: one bit each, in the order of their numbers; and which layer has which,
/// while they are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Algorithms {
    known: u8,
    layers: usize,
    /// The layers' numbers, as the digits of one number to the base of [`BASE`].
    sequence: usize,
    /// Whether a layer is a dry run, or costs nothing.
    is_special: bool,
}

/// One more than there are algorithms.
const BASE: usize = 5;

/// The most layers that a script is written out for. Others are decided by a loop over them.
const MOST_WRITTEN_OUT: usize = 4;

/// The algorithms' names in the sources' sections.
const NAMES: [&str; 4] = ["bucket", "window", "counter", "log"];

impl Algorithms {
    /// With a layer whose algorithm has this number, counted from 1.
    pub(crate) fn with(self, kind: u8) -> Self {
        let layers = self.layers + 1;
        let is_short = layers <= MOST_WRITTEN_OUT;
        let sequence = if is_short { self.sequence * BASE + usize::from(kind) } else { 0 };
        Self { known: self.known | 1 << (kind - 1), layers, sequence, ..self }
    }

    /// With a layer that is a dry run, or costs nothing.
    pub(crate) fn with_special(self) -> Self {
        Self { is_special: true, ..self }
    }

    fn names(self) -> impl Iterator<Item = (usize, &'static str)> {
        let known = self.known;
        NAMES.into_iter().enumerate().filter(move |(index, _)| known >> index & 1 == 1)
    }

    /// Which algorithm each layer has, while they are few; else 0.
    pub(crate) const fn sequence(self) -> usize {
        self.sequence
    }

    /// The algorithm of each layer, as an index to [`NAMES`], while they are few.
    fn of_layers(self) -> Vec<usize> {
        let digit = |place: usize| self.sequence / BASE.pow(place as u32) % BASE - 1;
        (0..self.layers).rev().map(digit).collect()
    }
}

/// What a script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
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

/// In tests: from the caller; and a state goes away so many ms later, which is never while a test runs.
#[cfg(feature = "fake-time")]
const FAKE_TIME: &str = "local now = tonumber(table.remove(ARGV))\n";
#[cfg(feature = "fake-time")]
const FAKE_EXPIRIES: [(&str, &str); 2] = [
    ("'PXAT', ", "'PXAT', 1000000000000 + "),
    ("'PEXPIREAT', key, ", "'PEXPIREAT', key, 1000000000000 + "),
];

/// The scripts of a kind of time, each put together when it is first used.
struct Scripts {
    loops: [[OnceLock<Source>; 16]; OPERATIONS],
    written_out: [[OnceLock<Source>; BASE.pow(MOST_WRITTEN_OUT as u32)]; 2],
    compact: [[OnceLock<Source>; BASE.pow(MOST_WRITTEN_OUT as u32)]; 2],
}

impl Scripts {
    const fn new() -> Self {
        Self {
            loops: [const { [const { OnceLock::new() }; 16] }; OPERATIONS],
            written_out: [const { [const { OnceLock::new() }; BASE.pow(MOST_WRITTEN_OUT as u32)] };
                2],
            compact: [const { [const { OnceLock::new() }; BASE.pow(MOST_WRITTEN_OUT as u32)] }; 2],
        }
    }

    fn of(&self, operation: Operation, algorithms: Algorithms) -> &OnceLock<Source> {
        let reserves = usize::from(operation == Operation::Reserve);
        match operation {
            _ if operation.is_compact(algorithms) => &self.compact[reserves][algorithms.sequence],
            Operation::Decide | Operation::Reserve if algorithms.sequence > 0 => {
                &self.written_out[reserves][algorithms.sequence]
            }
            _ => &self.loops[operation as usize][usize::from(algorithms.known)],
        }
    }
}

impl Operation {
    /// The script for these algorithms.
    pub(crate) fn script(self, algorithms: Algorithms) -> &'static Source {
        static SCRIPTS: Scripts = Scripts::new();
        SCRIPTS.of(self, algorithms).get_or_init(|| Source::new(&self.text(algorithms)))
    }

    /// Whether the script is one of those in [`compact`]: then one argument holds the parameters of all
    /// layers, and one string is the answer.
    pub(crate) fn is_compact(self, algorithms: Algorithms) -> bool {
        const WHOLE: u8 = 0b11;
        matches!(self, Self::Decide | Self::Reserve)
            && algorithms.sequence > 0
            && algorithms.known & !WHOLE == 0
            && !algorithms.is_special
    }

    /// The script for several calls of such layers at once, where that is a [compact](Self::is_compact) one.
    pub(crate) fn script_of_batch(algorithms: Algorithms) -> &'static Source {
        static SCRIPTS: [OnceLock<Source>; BASE.pow(MOST_WRITTEN_OUT as u32)] =
            [const { OnceLock::new() }; BASE.pow(MOST_WRITTEN_OUT as u32)];
        SCRIPTS[algorithms.sequence]
            .get_or_init(|| Source::new(&compact::text_of_batch(&algorithms.of_layers())))
    }

    /// The same, with the time as its last argument, and states that stay longer.
    #[cfg(feature = "fake-time")]
    pub(crate) fn script_of_fake_time(self, algorithms: Algorithms) -> &'static Source {
        static SCRIPTS: Scripts = Scripts::new();
        SCRIPTS.of(self, algorithms).get_or_init(|| {
            let text = self.text(algorithms);
            assert!(text.contains(TIME), "{text}");
            let text = text.replace(TIME, FAKE_TIME);
            let later = |text: String, (real, fake): &(&str, &str)| text.replace(real, fake);
            Source::new(&FAKE_EXPIRIES.iter().fold(text, later))
        })
    }

    /// Only what is needed: each time a script runs, all of it does.
    fn text(self, algorithms: Algorithms) -> String {
        if self.is_compact(algorithms) {
            return compact::text(&algorithms.of_layers(), self == Self::Reserve);
        }
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
        if matches!(self, Self::Decide | Self::Reserve) && algorithms.sequence > 0 {
            text.push_str(&self.written_out(&algorithms.of_layers()));
            return without_comments(&text);
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

impl Operation {
    /// What the loops of `ask.lua` and `charge.lua` do, layer by layer, with a local variable for each thing:
    /// no tables but the answer. States that one command can read are read at once.
    fn written_out(self, layers: &[usize]) -> String {
        let mut text = String::new();
        let mut line = |line: String| text.push_str(&(line + "\n"));
        let each = || layers.iter().enumerate().map(|(index, kind)| (index + 1, NAMES[*kind]));
        for (i, _) in each().filter(|(_, name)| *name == "window") {
            line(format!("local _, _, _, number{i} = place(ARGV[{i}])"));
            line(format!("if not number{i} then return {{ -1, now }} end"));
        }
        let whole = |name: &str| name == "bucket" || name == "window";
        let read: Vec<_> = each().filter(|(_, name)| whole(name)).map(|(i, _)| i).collect();
        if read.len() > 1 {
            let keys: Vec<_> = read.iter().map(|i| format!("KEYS[{i}]")).collect();
            line(format!("local got = call('MGET', {})", keys.join(", ")));
        }
        for (i, name) in each() {
            let state = match read.iter().position(|read| *read == i) {
                None => format!("KEYS[{i}]"),
                Some(place) if read.len() > 1 => format!("got[{}]", place + 1),
                Some(_) => format!("call('GET', KEYS[{i}])"),
            };
            line(format!("local at{i} = ARGV[{i}]"));
            line(format!("local dry{i}, charges{i} = byte(at{i}, 2, 3)"));
            line(format!("local state{i}, next{i}, keep{i} = {name}({state}, at{i})"));
        }
        line("local denied, refused = 0, false".to_owned());
        for (i, _) in each() {
            let bit = 1 << (i - 1);
            line(format!(
                "if not next{i} then denied, refused = denied + {bit}, refused or dry{i} == 0 end"
            ));
        }
        let states: Vec<_> = each().map(|(i, _)| format!("state{i} or ''")).collect();
        let answer = format!("return {{ denied, now, {} }}", states.join(", "));
        line("if refused then".to_owned());
        // As in `ask.lua`.
        for (i, _) in each().filter(|(_, name)| *name == "counter") {
            line(format!("if next{i} then state{i} = call('GET', KEYS[{i}]) end"));
        }
        line(format!("{answer} end"));
        for (i, name) in each() {
            let set = format!("call('SET', KEYS[{i}], next{i}, 'PXAT', expiry(keep{i}))");
            let write = match name {
                "log" => format!("record(KEYS[{i}], at{i}, keep{i})"),
                "counter" => {
                    format!(
                        "if keep{i} then {set} else call('SETRANGE', KEYS[{i}], 0, next{i}) end"
                    )
                }
                _ => set,
            };
            line(format!("if next{i} and charges{i} ~= 0 then state{i} = next{i} {write} end"));
        }
        if self == Self::Reserve {
            line("call('SET', KEYS[#KEYS], '', 'PX', hold_ms)".to_owned());
        }
        line(answer);
        text
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

    fn all_four() -> Algorithms {
        (1..=4).fold(Algorithms::default(), Algorithms::with)
    }

    #[test]
    fn the_layers_are_those_that_were_given() {
        assert_eq!(all_four().of_layers(), [0, 1, 2, 3]);
        let few = Algorithms::default().with(4).with(1).with(4);
        assert_eq!(few.of_layers(), [3, 0, 3]);
        assert_eq!(all_four().with(1).sequence, 0, "too many");
    }

    #[test]
    fn a_script_has_what_its_algorithms_need_and_nothing_else() {
        let bucket = Operation::Decide.text(Algorithms::default().with(1).with_special());
        assert!(bucket.contains("local function bucket("));
        assert!(!bucket.contains("counter") && !bucket.contains("--") && !bucket.contains("hold"));
        let all = Operation::Lease.text(all_four());
        assert!(all.contains("lease_counter(") && all.contains("hold_ms"));
        assert!(Operation::Book.text(all_four()).contains("book_log("));
    }

    #[test]
    fn no_number_becomes_text_on_the_way() {
        for operation in [Operation::Decide, Operation::Lease, Operation::Peek, Operation::Book] {
            let text = operation.text(all_four());
            assert!(!text.contains("tostring") && !text.contains("format"), "{text}");
        }
    }
}
