//! Server-sent events, split where they end.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Splits a stream of bytes into events, each with the blank line that ends it.
#[derive(Debug, Default)]
pub(super) struct Events {
    buffered: BytesMut,
    /// How far the buffer was searched for an end.
    searched: usize,
    /// How the line has ended that ends there, if one does.
    line_end: LineEnd,
    /// Whether the buffer begins in the midst of an event that is too long.
    is_within: bool,
}

/// How a line ends. Lines of one stream may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LineEnd {
    /// Not yet.
    #[default]
    Open,
    /// By CR, which LF may follow.
    Cr,
    /// By LF, or by both.
    Lf,
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
            let length = self.buffered.len() - (MAX_END - 1);
            let part = self.buffered.split_to(length);
            self.searched -= length;
            return Some(Piece::Part(part.freeze()));
        };
        (self.searched, self.line_end) = (0, LineEnd::Open);
        let bytes = self.buffered.split_to(end).freeze();
        let is_last_part = std::mem::take(&mut self.is_within);
        Some(if is_last_part { Piece::Part(bytes) } else { Piece::Event(bytes) })
    }

    /// What is left at the end of the stream: an event that nothing ends, or a part of one.
    pub(super) fn rest(&mut self) -> Option<Piece> {
        (self.searched, self.line_end) = (0, LineEnd::Open);
        let rest = Some(self.buffered.split().freeze()).filter(|rest| !rest.is_empty())?;
        let is_part = std::mem::take(&mut self.is_within);
        Some(if is_part { Piece::Part(rest) } else { Piece::Event(rest) })
    }

    /// Where the first event ends: after a line that ends where it begins.
    fn find_end(&mut self) -> Option<usize> {
        let bytes = &self.buffered[..];
        while let Some(&byte) = bytes.get(self.searched) {
            let next = self.searched + 1;
            self.line_end = match (self.line_end, byte) {
                (LineEnd::Open, b'\r') => LineEnd::Cr,
                (LineEnd::Open | LineEnd::Cr, b'\n') => LineEnd::Lf,
                (LineEnd::Lf, b'\n') => return Some(next),
                (ended, b'\r') => match (bytes.get(next), ended) {
                    (Some(b'\n'), _) => return Some(next + 1),
                    // Lines that end by CR alone are not waited for.
                    (Some(_), _) | (None, LineEnd::Cr) => return Some(next),
                    (None, _) => return None,
                },
                _ => LineEnd::Open,
            };
            self.searched = next;
        }
        None
    }
}

/// What is in an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Data(Cow<'a, [u8]>),
    /// A comment, or an event that has a name and nothing else.
    Nothing,
    /// What no reader of events takes for one.
    Unreadable,
}

/// What is in an event: its lines of data, with a line's end between them.
pub(super) fn content(event: &[u8]) -> Content<'_> {
    // A stream may begin with a mark of its encoding.
    let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    let (mut data, mut is_odd) = (None::<Cow<'_, [u8]>>, false);
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let field = line.split(|byte| *byte == b':').next().unwrap_or_default();
        match field {
            b"data" => {
                let value = line.get(5..).unwrap_or_default().trim_ascii();
                match &mut data {
                    None => data = Some(value.into()),
                    Some(before) => {
                        before.to_mut().push(b'\n');
                        before.to_mut().extend_from_slice(value);
                    }
                }
            }
            // The first is of a comment, or of no line at all.
            b"" | b"event" | b"id" | b"retry" => {}
            _ => is_odd = true,
        }
    }
    match data {
        Some(data) => Content::Data(data),
        None if is_odd => Content::Unreadable,
        None => Content::Nothing,
    }
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
    fn an_event_ends_at_a_blank_line_however_lines_end() {
        for end in ["\n\n", "\r\r", "\r\n\r\n", "\n\r\n", "\r\n\n", "\n\r", "\r\n\r", "\r\r\n"] {
            let stream = format!("event: x\ndata: 1{end}data: 2");
            for size in [1, 2, 3, stream.len()] {
                let chunks: Vec<_> = stream.as_bytes().chunks(size).collect();
                let chunks: Vec<_> =
                    chunks.iter().map(|c| std::str::from_utf8(c).unwrap()).collect();
                let (found, rest) = events(&chunks);
                assert_eq!(found.len(), 1, "{stream:?} in chunks of {size}: {found:?}");
                assert_eq!(content(found[0].as_bytes()), Content::Data(b"1"[..].into()));
                let rest = rest.unwrap();
                assert_eq!(content(rest.as_bytes()), Content::Data(b"2"[..].into()));
                assert_eq!(found[0].clone() + &rest, stream, "nothing is lost");
            }
        }
    }

    #[test]
    fn data_is_all_lines_of_it() {
        for (event, expected) in [
            (&b"event: x\ndata: {}\n\n"[..], Some("{}")),
            (b"data:[DONE]\r\n\r\n", Some("[DONE]")),
            (b"data: {\ndata: \"a\":1}\n\n", Some("{\n\"a\":1}")),
            (b"data: {\r\nid: 7\r\ndata: }\r\n\r\n", Some("{\n}")),
            (b"data\n\n", Some("")),
            (b"\xef\xbb\xbfdata: 1\n\n", Some("1")),
            (b": ping\n\n", None),
            (b"event: ping\nid: 1\nretry: 5\n\n", None),
            (b"\n", None),
        ] {
            let expected =
                expected.map_or(Content::Nothing, |data| Content::Data(data.as_bytes().into()));
            assert_eq!(content(event), expected, "{}", String::from_utf8_lossy(event));
        }
        for odd in [&b"{\"choices\":[]}\n\n"[..], b"\x1f\x8b\x08 x\n\n", b"datum: x\n\n"] {
            assert_eq!(content(odd), Content::Unreadable);
        }
    }
}
