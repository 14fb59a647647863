//! [`List`]: a structured field's list, written where it costs no allocation.

use http::HeaderValue;

/// A list of strings with parameters, as RFC 9651 has it.
///
/// Every response carries two of these, so they are written by hand, and on the stack while they are
/// as long as those of four rules; the tests read them back with a parser for structured fields.
#[derive(Debug)]
pub(crate) struct List {
    stack: [u8; STACK],
    len: usize,
    /// All of it, once it is longer than the stack's part.
    heap: Vec<u8>,
}

const STACK: usize = 256;

/// The largest integer of structured fields: 15 digits. More units than that are as good as so many.
const MOST: u64 = 999_999_999_999_999;

impl List {
    /// A list of nothing.
    pub(crate) const fn new() -> Self {
        Self { stack: [0; STACK], len: 0, heap: Vec::new() }
    }

    /// Another item: a rule's name, which has only characters that stand for themselves in a string.
    pub(crate) fn item(&mut self, name: &str) -> &mut Self {
        self.push(if self.written().is_empty() { "\"" } else { ", \"" });
        self.push(name);
        self.push("\"");
        self
    }

    /// A number beside the item. The key comes with what is around it, such as `;q=`.
    pub(crate) fn number(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.push(key);
        self.push(itoa::Buffer::new().format(value.min(MOST)));
        self
    }

    /// A parameter of characters that stand for themselves, or a part of one, such as `;unit="tokens"`.
    pub(crate) fn text(&mut self, parameter: &str) {
        self.push(parameter);
    }

    /// The list as a header's value; `None` when it is empty, which no field may be.
    pub(crate) fn value(&self) -> Option<HeaderValue> {
        let written = self.written();
        if written.is_empty() { None } else { HeaderValue::from_bytes(written).ok() }
    }

    /// What there is of it.
    pub(crate) fn written(&self) -> &[u8] {
        if self.heap.is_empty() { &self.stack[..self.len] } else { &self.heap }
    }

    #[inline]
    fn push(&mut self, text: &str) {
        let end = self.len + text.len();
        match self.stack.get_mut(self.len..end) {
            Some(place) if self.heap.is_empty() => {
                place.copy_from_slice(text.as_bytes());
                self.len = end;
            }
            _ => self.spill(text),
        }
    }

    #[cold]
    fn spill(&mut self, text: &str) {
        if self.heap.is_empty() {
            self.heap.extend_from_slice(&self.stack[..self.len]);
        }
        self.heap.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use sfv::{BareItem, ListEntry, Parser};

    use super::*;

    #[test]
    fn a_parser_of_structured_fields_reads_what_was_written() {
        let numbers = [0, 1, 9, 10, 99, 86_400, 1 << 40, MOST - 1, MOST, MOST + 1, u64::MAX];
        for count in 0..20 {
            let names: Vec<_> = (0..count).map(|index| format!("a-Rule_{index}.x")).collect();
            let mut list = List::new();
            for (name, number) in names.iter().zip(numbers.iter().cycle()) {
                list.item(name).number(";q=", *number).number(";w=", number / 3).text(";u=\"x\"");
            }
            let Some(value) = list.value() else {
                assert_eq!(count, 0, "only the empty list has no value");
                continue;
            };
            let read: sfv::List = Parser::new(value.as_bytes()).parse().unwrap();
            assert_eq!(read.len(), count);
            for ((entry, name), number) in read.iter().zip(&names).zip(numbers.iter().cycle()) {
                let ListEntry::Item(item) = entry else { panic!("an item, not {entry:?}") };
                assert_eq!(item.bare_item.as_string().unwrap().as_str(), name);
                let parameter = |key: &str| item.params.get(key).and_then(BareItem::as_integer);
                let capped = |number: u64| Some(sfv::Integer::try_from(number.min(MOST)).unwrap());
                assert_eq!(parameter("q"), capped(*number));
                assert_eq!(parameter("w"), capped(number / 3));
                assert_eq!(item.params["u"].as_string().unwrap().as_str(), "x");
            }
        }
    }
}
