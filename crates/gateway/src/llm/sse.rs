//! Server-sent events, split where they end.

use bytes::{Bytes, BytesMut};

/// Splits a stream of bytes into events, each with the blank line that ends it.
#[derive(Debug, Default)]
pub(super) struct Events {
    buffered: BytesMut,
    /// How far the buffer was searched for an end.
    searched: usize,
}

/// An event longer than this is passed on as it comes, unread.
const MAX_EVENT: usize = 1 << 20;

impl Events {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// The next whole event.
    pub(super) fn next_event(&mut self) -> Option<Bytes> {
        let Some(end) = self.find_end() else {
            let oversized = self.buffered.len() > MAX_EVENT;
            return if oversized { self.rest() } else { None };
        };
        self.searched = 0;
        Some(self.buffered.split_to(end).freeze())
    }

    /// What is left at the end of the stream.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        self.searched = 0;
        Some(self.buffered.split().freeze()).filter(|rest| !rest.is_empty())
    }

    /// Where the first event ends: after a blank line, in any of the three ways to end lines.
    fn find_end(&mut self) -> Option<usize> {
        let bytes = &self.buffered[..];
        let from = self.searched.saturating_sub(3);
        for at in from..bytes.len() {
            let tail = &bytes[at..];
            for end in [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"] {
                if tail.starts_with(end) {
                    return Some(at + end.len());
                }
            }
        }
        self.searched = bytes.len();
        None
    }
}

/// The data of an event, if it is in one line, as it is in LLM streams.
pub(super) fn data(event: &[u8]) -> Option<&[u8]> {
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let mut data = lines.filter_map(|line| line.strip_prefix(b"data:"));
    let (first, None) = (data.next()?, data.next()) else { return None };
    Some(first.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> (Vec<String>, Option<String>) {
        let (mut events, mut found) = (Events::default(), Vec::new());
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        for chunk in chunks {
            events.push(chunk.as_bytes());
            while let Some(event) = events.next_event() {
                found.push(text(event));
            }
        }
        (found, events.rest().map(text))
    }

    #[test]
    fn events_are_whole_however_they_arrive() {
        let stream = "data: 1\n\ndata: 2\r\n\r\n: comment\n\ndata: 3";
        let expected = ["data: 1\n\n", "data: 2\r\n\r\n", ": comment\n\n"];
        for size in 1..stream.len() {
            let chunks: Vec<_> = stream.as_bytes().chunks(size).collect();
            let chunks: Vec<_> = chunks.iter().map(|c| std::str::from_utf8(c).unwrap()).collect();
            let (found, rest) = events(&chunks);
            assert_eq!(found, expected, "in chunks of {size}");
            assert_eq!(rest.as_deref(), Some("data: 3"));
        }
    }

    #[test]
    fn an_event_that_never_ends_is_passed_on() {
        let long = "x".repeat(MAX_EVENT + 1);
        let (found, rest) = events(&[&long]);
        assert_eq!((found.len(), rest), (1, None));
    }

    #[test]
    fn data_is_the_one_line_of_it() {
        assert_eq!(data(b"event: x\ndata: {}\n\n"), Some(&b"{}"[..]));
        assert_eq!(data(b"data:[DONE]\r\n\r\n"), Some(&b"[DONE]"[..]));
        assert_eq!(data(b": ping\n\n"), None);
        assert_eq!(data(b"data: 1\ndata: 2\n\n"), None);
    }
}
