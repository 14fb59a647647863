//! Server-sent events, split where they end.

use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;

/// Splits a stream of bytes into events, each with the blank line that ends it.
#[derive(Debug, Default)]
pub(super) struct Events {
    buffered: BytesMut,
    /// How far the buffer was searched for an end.
    searched: usize,
    /// Whether the buffer begins in the midst of an event that is too long.
    is_within: bool,
}

/// What has come of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Event(Bytes),
    /// Of an event that is too long to be kept and read.
    Part(Bytes),
}

/// An event longer than this is passed on as it comes, unread. Images come in events of some MiB.
const MAX_EVENT: usize = 16 << 20;

/// An end is found by its last bytes, and those before them that may be its own.
const MAX_END: usize = 4;

impl Events {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// The next whole event, or what there is of one that is too long.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        let Some(end) = self.find_end() else {
            let most = if self.is_within { MAX_END } else { MAX_EVENT };
            if self.buffered.len() <= most {
                return None;
            }
            self.is_within = true;
            let part = self.buffered.split_to(self.buffered.len() - (MAX_END - 1));
            self.searched = self.buffered.len();
            return Some(Piece::Part(part.freeze()));
        };
        self.searched = 0;
        let bytes = self.buffered.split_to(end).freeze();
        let is_last_part = std::mem::take(&mut self.is_within);
        Some(if is_last_part { Piece::Part(bytes) } else { Piece::Event(bytes) })
    }

    /// What is left at the end of the stream: an event that nothing ends, or a part of one.
    pub(super) fn rest(&mut self) -> Option<Piece> {
        self.searched = 0;
        let rest = Some(self.buffered.split().freeze()).filter(|rest| !rest.is_empty())?;
        let is_part = std::mem::take(&mut self.is_within);
        Some(if is_part { Piece::Part(rest) } else { Piece::Event(rest) })
    }

    /// Where the first event ends: after a blank line, in any of the three ways to end lines.
    fn find_end(&mut self) -> Option<usize> {
        let bytes = &self.buffered[..];
        let from = self.searched.saturating_sub(MAX_END - 1);
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

/// Whether data is one JSON text, and all of it.
pub(super) fn is_json(data: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(data).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> (Vec<String>, Option<String>) {
        let (mut events, mut found) = (Events::default(), Vec::new());
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        for chunk in chunks {
            events.push(chunk.as_bytes());
            while let Some(Piece::Event(event)) = events.next_piece() {
                found.push(text(event));
            }
        }
        let rest = events.rest().map(|rest| match rest {
            Piece::Event(bytes) | Piece::Part(bytes) => text(bytes),
        });
        (found, rest)
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
    fn an_event_that_is_too_long_is_passed_on_in_parts_until_it_ends() {
        let long = "x".repeat(MAX_EVENT);
        for end in ["\n\n", "\r\n\r\n", "\r\r"] {
            let (mut events, mut passed) = (Events::default(), Vec::new());
            let stream = format!("data: {long}more{end}data: 2\n\n");
            // Its end comes byte by byte.
            let (first, last) = stream.as_bytes().split_at(MAX_EVENT + 8);
            for chunk in std::iter::once(first).chain(last.chunks(1)) {
                events.push(chunk);
                while let Some(piece) = events.next_piece() {
                    passed.push(piece);
                }
            }
            assert_eq!(passed.pop(), Some(Piece::Event("data: 2\n\n".into())), "{end:?}");
            let mut parts = Vec::new();
            for piece in passed {
                let Piece::Part(bytes) = piece else { panic!("{piece:?}") };
                parts.extend_from_slice(&bytes);
            }
            assert_eq!(parts, format!("data: {long}more{end}").as_bytes());
            assert_eq!(events.rest(), None);
        }
    }

    #[test]
    fn data_is_the_one_line_of_it() {
        assert_eq!(data(b"event: x\ndata: {}\n\n"), Some(&b"{}"[..]));
        assert_eq!(data(b"data:[DONE]\r\n\r\n"), Some(&b"[DONE]"[..]));
        assert_eq!(data(b": ping\n\n"), None);
        assert_eq!(data(b"data: 1\ndata: 2\n\n"), None);
    }
}
