//! How much output a part of a stream holds, for when nobody tells.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The bytes of what a model has said, thought or called in one event of a stream, whichever API it is.
/// `None` of what nobody can read.
pub(super) fn text_bytes(event: &[u8]) -> Option<u64> {
    match serde_json::from_slice(event) {
        Ok(Text { is_repeated: true, .. }) => Some(0),
        Ok(Text { bytes, .. }) => Some(bytes),
        Err(_) if event.is_empty() || event == b"[DONE]" => Some(0),
        Err(_) => None,
    }
}

/// The members that hold a model's words.
const WORDS: [&str; 11] = [
    "content",
    "text",
    "delta",
    "arguments",
    "partial_json",
    "thinking",
    "reasoning",
    "reasoning_content",
    "refusal",
    "transcript",
    "args",
];

#[derive(Default)]
struct Text {
    bytes: u64,
    /// Events that say again what others have said.
    is_repeated: bool,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Part)
    }
}

struct Part;

/// A member's value: how long it is as a string, and what is in it else.
struct Value {
    string: u64,
    is_repeated: bool,
    inner: u64,
}

macro_rules! nothing {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E>(self, _: $kind) -> Result<Self::Value, E> { Ok(Self::NOTHING) })*
        fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok(Self::NOTHING) }
    };
}

impl Part {
    const NOTHING: Text = Text { bytes: 0, is_repeated: false };
}

impl<'de> Visitor<'de> for Part {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    nothing!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        let mut bytes = 0;
        while let Some(Text { bytes: more, .. }) = items.next_element()? {
            bytes += more;
        }
        Ok(Text { bytes, is_repeated: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
        let mut all = Text::default();
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            // A whole response, at a stream's beginning and end.
            if name == "response" || name == "message" {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Value = members.next_value()?;
            if name == "type" {
                all.is_repeated = value.is_repeated;
            } else if WORDS.contains(&name.as_ref()) {
                all.bytes += value.string;
            }
            all.bytes += value.inner;
        }
        Ok(all)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOr;

        impl StringOr {
            const NOTHING: Value = Value { string: 0, is_repeated: false, inner: 0 };
        }

        impl<'de> Visitor<'de> for StringOr {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            nothing!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64);

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                let is_repeated = text.ends_with(".done") || text.ends_with(".added");
                Ok(Value { string: text.len() as u64, is_repeated, inner: 0 })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
                Part.visit_seq(items).map(|text| Value { inner: text.bytes, ..Self::NOTHING })
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Value, A::Error> {
                Part.visit_map(members).map(|text| Value { inner: text.bytes, ..Self::NOTHING })
            }
        }

        deserializer.deserialize_any(StringOr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_wherever_an_api_has_them_and_once() {
        for (event, bytes) in [
            (
                r#"{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"}}]}"#,
                5,
            ),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}}]}"#,
                7,
            ),
            (r#"{"choices":[{"text":"Hello"}]}"#, 5),
            (r#"{"type":"response.output_text.delta","item_id":"x","delta":"Hello"}"#, 5),
            (r#"{"type":"response.output_text.done","text":"Hello and goodbye"}"#, 0),
            (r#"{"type":"response.content_part.done","part":{"text":"Hello and goodbye"}}"#, 0),
            (
                r#"{"type":"response.completed","response":{"output":[{"content":[{"text":"Hello"}]}]}}"#,
                0,
            ),
            (
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
                5,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a"}}"#,
                3,
            ),
            (r#"{"type":"message_start","message":{"content":[{"text":"Hello"}]}}"#, 0),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"Hello"},{"text":"!"}],"role":"model"}}]}"#,
                6,
            ),
            ("[DONE]", 0),
            ("", 0),
        ] {
            assert_eq!(text_bytes(event.as_bytes()), Some(bytes), "{event}");
        }
        assert_eq!(text_bytes(br#"{"choices":[{"delta":{"content":"Hel"#), None);
    }
}
