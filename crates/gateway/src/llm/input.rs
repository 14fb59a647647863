//! The input of a call, before it is made: its text counted, and allowances for what is no text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// What is reserved for input that cannot be counted here. Real usage settles it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowances {
    /// LLM tokens of an image.
    pub(crate) image_tokens: u64,
    /// LLM tokens of a document, a recording or a video.
    pub(crate) file_tokens: u64,
    /// LLM tokens of what the provider keeps: an earlier response, a conversation, a cache.
    pub(crate) stored_tokens: u64,
    /// LLM tokens that one use of a tool brings which the provider runs: a search, a page, what an MCP server says.
    /// OpenAI bills 8,000 for a search with some models; a page of 30 kB has about as many.
    pub(crate) tool_tokens: u64,
}

/// What a request holds besides text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Media {
    images: u64,
    files: u64,
    stored: u64,
    /// Things said before that are named, and not sent again.
    references: u64,
    sounds: u64,
    /// Objects that say of what kind they are, and cannot be heard.
    silent: u64,
    /// Parts that are to be put into the provider's cache, and those that stay there for longer than usual.
    cached: u64,
    long_cached: u64,
    /// Bytes of images and files, which are no text.
    bytes: usize,
    /// Bytes that are of an image or file, should the object around them be one.
    unclaimed: usize,
}

impl Media {
    /// What a JSON text holds besides text. `None` when it is no JSON.
    pub(super) fn of(json: &str) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let media = reader.deserialize_any(Any { is_request: true })?;
        reader.end()?;
        Ok(media)
    }

    /// The bytes of the text around.
    pub(super) const fn text_bytes(&self, json: &str) -> u64 {
        json.len().saturating_sub(self.bytes) as u64
    }

    pub(super) const fn is_text_only(&self) -> bool {
        self.bytes == 0
    }

    /// The LLM tokens that are allowed for what is no text.
    pub(super) const fn allowed(&self, allowances: &Allowances) -> u64 {
        let images = self.images.saturating_mul(allowances.image_tokens);
        let files = self.files.saturating_mul(allowances.file_tokens);
        let stored =
            self.stored.saturating_add(self.references).saturating_mul(allowances.stored_tokens);
        images.saturating_add(files).saturating_add(stored)
    }

    /// Whether there is a recording in it, or what may be one.
    pub(super) const fn has_sound(&self) -> bool {
        self.sounds > 0
    }

    /// Whether a part of it is to be put into the provider's cache.
    pub(super) const fn is_cached(&self) -> bool {
        self.cached > 0
    }

    /// Whether it is to stay there for longer than usual.
    pub(super) const fn is_cached_for_long(&self) -> bool {
        self.long_cached > 0
    }

    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.files += other.files;
        self.stored += other.stored;
        self.references += other.references;
        self.sounds += other.sounds;
        self.silent += other.silent;
        self.cached += other.cached;
        self.long_cached += other.long_cached;
        self.bytes += other.bytes;
        self.unclaimed += other.unclaimed;
    }

    /// This, found where the provider reads all as text. Allowances stay, should it not; but an `id` is one of its
    /// own there.
    const fn as_text(self) -> Self {
        Self { bytes: 0, unclaimed: 0, references: 0, ..self }
    }

    /// This, found in an image (or, if not, a file).
    fn claimed(mut self, is_image: bool) -> Self {
        if is_image {
            self.images += 1;
        } else {
            self.files += 1;
        }
        self.bytes += self.unclaimed;
        self.unclaimed = 0;
        self
    }
}

/// A string this long or longer may be an image's bytes.
const PAYLOAD: usize = 256;

/// Whether a string is bytes in base64, by itself or in a `data:` URL, and those of no text.
fn is_payload(text: &str) -> bool {
    let base64 = match text.strip_prefix("data:") {
        Some(url) => match url.split_once(";base64,") {
            Some((kind, base64)) if !is_text_type(kind) => base64,
            _ => return false,
        },
        None => text,
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_\r\n".contains(&byte);
    base64.len() >= PAYLOAD && base64.bytes().all(is_base64)
}

/// Whether files of a MIME type may be read as the text that they are: all but those that surely are not.
fn is_text_type(kind: &str) -> bool {
    let begins = |start: &&str| {
        kind.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
    };
    let binary = ["image/", "audio/", "video/", "application/pdf", "application/octet-stream"];
    let office = ["application/vnd.", "application/msword"];
    !binary.iter().chain(&office).any(begins)
}

/// What an object is by its `type`, or by the name of the member that it is: an image, a file, or
/// neither.
fn image_or_file(name: &str) -> Option<bool> {
    match name {
        "image" | "image_url" | "input_image" | "computer_screenshot" => Some(true),
        "document" | "document_url" | "file" | "input_file" | "input_audio" | "audio"
        | "audio_url" | "video" | "input_video" | "video_url" | "container_upload" => Some(false),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Media {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any { is_request: false })
    }
}

/// Whether an object of this `type` may be heard.
fn is_sound(name: &str) -> bool {
    let sounds = ["input_audio", "audio", "audio_url", "video", "input_video", "video_url"];
    sounds.contains(&name)
}

/// Whether a file of this kind cannot be heard.
fn is_silent(mime_type: &str) -> bool {
    ["image/", "text/", "application/"].iter().any(|kind| mime_type.starts_with(kind))
}

struct Any {
    /// Whether it is the request itself, and not a part of it.
    is_request: bool,
}

/// What a member's value is.
enum Value {
    /// `null`, a number or a truth value.
    Scalar,
    Text {
        is_payload: bool,
        bytes: usize,
        is_image_type: bool,
        is_text_type: bool,
        is_text_source: bool,
        kind: Option<bool>,
        is_sound: bool,
        is_silent: bool,
        is_usual_time: bool,
        is_reference: bool,
    },
    List(Media),
    Object(Media),
}

impl<'de> Visitor<'de> for Any {
    type Value = Media;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Media, E> {
        Ok(Media::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Media, E> {
        Ok(Media::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Media, E> {
        Ok(Media::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Media, E> {
        Ok(Media::default())
    }

    fn visit_unit<E>(self) -> Result<Media, E> {
        Ok(Media::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Media, E> {
        Ok(Media::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Media, A::Error> {
        let mut media = Media::default();
        while let Some(item) = items.next_element()? {
            media.add(item);
        }
        Ok(media)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Media, A::Error> {
        let (mut media, mut kind, mut is_image_type) = (Media::default(), None, false);
        // Of the payload that stands in this object itself.
        let (mut payload, mut is_text) = (0, false);
        let mut is_silent = false;
        // An object that is nothing but its `id`, and perhaps a `type`, names something.
        let (mut has_id, mut is_more, mut is_reference) = (false, false, false);
        while let Some(Name(name)) = members.next_key()? {
            let value = members.next_value()?;
            has_id |= matches!((name, &value), (Known::Id, Value::Text { .. }));
            is_more |= !matches!(name, Known::Id | Known::Type) && !matches!(value, Value::Scalar);
            is_reference |=
                matches!((name, &value), (Known::Type, Value::Text { is_reference: true, .. }));
            match (name, value) {
                (_, Value::Scalar) => {}
                (Known::Type, Value::Text { kind: told, is_text_source, is_sound, .. }) => {
                    kind = kind.or(told);
                    is_text |= is_text_source;
                    media.sounds += u64::from(is_sound);
                }
                (
                    Known::MimeType,
                    Value::Text { is_image_type: told, is_text_type, is_silent: silent, .. },
                ) => {
                    (is_image_type, is_silent) = (told, silent);
                    is_text |= is_text_type;
                }
                (Known::MediaType, Value::Text { is_text_type, .. }) => is_text |= is_text_type,
                (Known::Ttl, Value::Text { is_usual_time: false, .. }) => media.long_cached += 1,
                (Known::Cache, Value::Object(inner)) => {
                    media.cached += 1;
                    media.add(inner.as_text());
                }
                (Known::Payload | Known::File, Value::Text { is_payload: true, bytes, .. }) => {
                    payload += bytes;
                }
                // The member's own `mimeType` says what it is.
                (Known::Inline | Known::File, Value::Object(inner)) => {
                    let is_image = inner.images > 0;
                    let sounds = u64::from(inner.silent == 0);
                    let inner = Media { images: 0, silent: 0, sounds, ..inner };
                    media.add(inner.claimed(is_image));
                }
                (Known::Stored, Value::Text { .. }) => media.stored += 1,
                (Known::Stored | Known::Prompt, Value::Object(inner)) => {
                    media.stored += 1;
                    media.add(inner.as_text());
                }
                (_, Value::Text { .. }) => {}
                (Known::Content | Known::Payload, Value::List(inner) | Value::Object(inner)) => {
                    media.add(inner);
                }
                // Elsewhere it is what a tool is called with.
                (Known::Input, Value::List(inner)) if self.is_request => media.add(inner),
                (_, Value::List(inner) | Value::Object(inner)) => media.add(inner.as_text()),
            }
        }
        if !is_text {
            media.unclaimed += payload;
        }
        media.references += u64::from(is_reference || has_id && !is_more);
        // For the member that this is, if that is one of bytes.
        media.images += u64::from(is_image_type);
        media.silent += u64::from(is_silent);
        Ok(match kind {
            Some(is_image) => media.claimed(is_image),
            None => media,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOr;

        impl<'de> Visitor<'de> for TextOr {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
                Ok(Value::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
                Ok(Value::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
                Ok(Value::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
                Ok(Value::Scalar)
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Scalar)
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text {
                    is_payload: is_payload(text),
                    bytes: text.len(),
                    is_image_type: text.starts_with("image/"),
                    is_text_type: is_text_type(text),
                    is_text_source: text == "text",
                    kind: image_or_file(text),
                    is_sound: is_sound(text),
                    is_silent: is_silent(text),
                    is_usual_time: text == "5m",
                    is_reference: text == "item_reference",
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
                Any { is_request: false }.visit_seq(items).map(Value::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Value, A::Error> {
                Any { is_request: false }.visit_map(members).map(Value::Object)
            }
        }

        deserializer.deserialize_any(TextOr)
    }
}

/// A member's name, as far as it says something.
struct Name(Known);

#[derive(Clone, Copy)]
enum Known {
    Type,
    Id,
    MimeType,
    /// The same in Anthropic's API, where the object around it says whether it is an image.
    MediaType,
    Payload,
    Inline,
    /// A file: in OpenAI's APIs its bytes, in Gemini's what it is.
    File,
    /// Where images and files are, or what they are in.
    Content,
    /// All that is said, in OpenAI's responses.
    Input,
    /// That a part is to be put into the provider's cache, and for how long.
    Cache,
    Ttl,
    Stored,
    /// A prompt that is stored, unless it is a text.
    Prompt,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(match name {
                    "type" => Known::Type,
                    "id" => Known::Id,
                    "mimeType" | "mime_type" => Known::MimeType,
                    "media_type" => Known::MediaType,
                    "data" | "url" | "image_url" | "document_url" => Known::Payload,
                    "file_data" => Known::File,
                    "messages" | "contents" | "content" | "system" | "systemInstruction"
                    | "system_instruction" | "parts" | "output" | "functionResponse"
                    | "function_response" | "source" | "file" | "input_audio" | "audio"
                    | "audio_url" | "video_url" => Known::Content,
                    "input" => Known::Input,
                    "inlineData" | "inline_data" | "fileData" => Known::Inline,
                    "cache_control" => Known::Cache,
                    "ttl" => Known::Ttl,
                    "previous_response_id"
                    | "conversation"
                    | "cachedContent"
                    | "cached_content" => Known::Stored,
                    "prompt" => Known::Prompt,
                    _ => Known::Other,
                }))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCES: Allowances =
        Allowances { image_tokens: 1_000, file_tokens: 20_000, stored_tokens: 5, tool_tokens: 0 };

    fn media(json: &str) -> (u64, u64) {
        let media = Media::of(json).unwrap();
        (json.len() as u64 - media.text_bytes(json), media.allowed(&ALLOWANCES))
    }

    #[test]
    fn images_and_files_are_allowances_and_not_text() {
        let data = "iVBORw0KGgo/".repeat(100);
        for (json, bytes, allowed) in [
            (r#"{"messages":[{"role":"user","content":"hi"}]}"#.to_owned(), 0, 0),
            (
                format!(
                    r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#
                ),
                data.len() + 22,
                1_000,
            ),
            (
                r#"{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}"#.to_owned(),
                0,
                1_000,
            ),
            (
                format!(r#"{{"image_url":"data:image/png;base64,{data}","type":"input_image"}}"#),
                data.len() + 22,
                1_000,
            ),
            (
                format!(
                    r#"{{"source":{{"data":"{data}","type":"base64","media_type":"image/png"}},"type":"image"}}"#
                ),
                data.len(),
                1_000,
            ),
            (
                format!(
                    r#"{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}},{{"text":"x"}}]}}"#
                ),
                data.len(),
                1_000,
            ),
            (
                format!(r#"{{"inline_data":{{"data":"{data}","mime_type":"application/pdf"}}}}"#),
                data.len(),
                20_000,
            ),
            (
                format!(
                    r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"wav"}}}}"#
                ),
                data.len(),
                20_000,
            ),
            (r#"{"previous_response_id":"resp_1","input":"go on"}"#.to_owned(), 0, 5),
            (r#"{"previous_response_id":null,"prompt":{"id":"p"}}"#.to_owned(), 0, 5),
            (r#"{"prompt":["Once upon a time"]}"#.to_owned(), 0, 0),
            (r#"{"cachedContent":"cachedContents/1"}"#.to_owned(), 0, 5),
            // What was said before, by name.
            (
                r#"{"input":[{"type":"item_reference","id":"a"},{"id":"b"},{"type":null,"id":"c"},{"type":"image_generation_call","id":"d"}]}"#
                    .to_owned(),
                0,
                20,
            ),
            (r#"{"input":[{"type":"message","id":"a","content":"x"}]}"#.to_owned(), 0, 0),
            (
                r#"{"messages":[{"role":"assistant","audio":{"id":"a"},"content":null}]}"#
                    .to_owned(),
                0,
                5,
            ),
            (r#"{"input":"x","metadata":{"id":"mine"},"conversation":{"id":"c"}}"#.to_owned(), 0, 5),
        ] {
            assert_eq!(media(&json), (bytes as u64, allowed), "{json}");
        }
    }

    #[test]
    fn what_may_be_heard_and_what_goes_into_a_cache_is_told() {
        let heard = |json: &str| Media::of(json).unwrap().has_sound();
        for json in [
            r#"{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}"#,
            r#"{"inlineData":{"mimeType":"audio/mp3","data":"x"}}"#,
            r#"{"parts":[{"text":"x"},{"fileData":{"mimeType":"video/mp4","fileUri":"x"}}]}"#,
            r#"{"fileData":{"fileUri":"of any kind"}}"#,
            r#"{"file_data":{"file_uri":"of any kind"}}"#,
        ] {
            assert!(heard(json), "{json}");
        }
        for json in [
            r#"{"inlineData":{"mimeType":"image/png","data":"x"}}"#,
            r#"{"inline_data":{"mime_type":"application/pdf","data":"x"}}"#,
            r#"{"type":"image_url","image_url":{"url":"x"}}"#,
            r#"{"type":"file","file":{"file_data":"x"}}"#,
        ] {
            assert!(!heard(json), "{json}");
        }
        let cached = |json: &str| {
            let media = Media::of(json).unwrap();
            (media.is_cached(), media.is_cached_for_long())
        };
        let block = |cache: &str| format!(r#"[{{"type":"text","cache{cache}}}]"#);
        assert_eq!(cached(&block(r#"_control":{"type":"ephemeral"}"#)), (true, false));
        assert_eq!(cached(&block(r#"_control":{"ttl":"5m"}"#)), (true, false));
        assert_eq!(cached(&block(r#"\u005fcontrol":{"ttl":"1h"}"#)), (true, true));
        assert_eq!(cached(&block(r#"_control":null"#)), (false, false));
    }

    #[test]
    fn text_that_looks_like_bytes_is_text_where_no_image_is() {
        let data = "A".repeat(1_000);
        assert_eq!(media(&format!(r#"{{"role":"user","content":"{data}"}}"#)), (0, 0));
        assert_eq!(media(&format!(r#"{{"data":"{data}"}}"#)), (0, 0), "of nothing that is known");
        let text = "not base64 at all ".repeat(100);
        let document =
            format!(r#"{{"type":"document","source":{{"type":"text","data":"{text}"}}}}"#);
        assert_eq!(media(&document), (0, 20_000), "plain text counts as text too");
        let document = document.replace(' ', "-");
        assert_eq!(media(&document), (0, 20_000), "also without a blank");
    }

    #[test]
    fn text_is_text_wherever_the_provider_reads_it_as_such() {
        let text = "a-".repeat(500);
        let image = format!(r#"{{"type":"image","data":"{text}"}}"#);
        for json in [
            format!(r#"{{"messages":[{{"content":[{{"type":"tool_use","input":{image}}}]}}]}}"#),
            format!(r#"{{"messages":[{{"content":[{{"type":"tool_use","input":[{image}]}}]}}]}}"#),
            format!(r#"{{"contents":[{{"parts":[{{"functionCall":{{"args":{image}}}}}]}}]}}"#),
            format!(
                r#"{{"contents":[{{"parts":[{{"functionResponse":{{"response":{{"content":[{image}]}}}}}}]}}]}}"#
            ),
            format!(r#"{{"tools":[{{"input_schema":{{"default":{image}}}}}]}}"#),
            format!(r#"{{"documents":[{image}],"messages":[]}}"#),
            // What is in the `source` of a text is that text, and so are bytes of a kind that is text.
            format!(r#"{{"type":"document","source":{{"data":"{text}","type":"text"}}}}"#),
            format!(
                r#"{{"type":"document","source":{{"type":"base64","media_type":"text/plain","data":"{text}"}}}}"#
            ),
            format!(r#"{{"inlineData":{{"data":"{text}","mimeType":"text/plain"}}}}"#),
            format!(r#"{{"inline_data":{{"mime_type":"application/json","data":"{text}"}}}}"#),
            format!(
                r#"{{"type":"file","file":{{"file_data":"data:text/csv;base64,{text}","filename":"x"}}}}"#
            ),
        ] {
            let json = format!(r#"{{"input":[{json}]}}"#);
            assert_eq!(media(&json).0, 0, "{json}");
        }
        // But the answer of a tool may be an image.
        for (json, bytes) in [
            (
                format!(
                    r#"{{"messages":[{{"content":[{{"type":"tool_result","content":[{{"type":"image","source":{{"type":"base64","data":"{text}"}}}}]}}]}}]}}"#
                ),
                1_000,
            ),
            (
                format!(
                    r#"{{"contents":[{{"parts":[{{"functionResponse":{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{text}"}}}}]}}}}]}}]}}"#
                ),
                1_000,
            ),
            (
                format!(
                    r#"{{"input":[{{"type":"computer_call_output","output":{{"type":"computer_screenshot","image_url":"data:image/png;base64,{text}"}}}}]}}"#
                ),
                1_022,
            ),
        ] {
            assert_eq!(media(&json), (bytes, 1_000), "{json}");
        }
    }

    #[test]
    fn a_file_elsewhere_is_allowed_for_however_it_is_spelt() {
        for json in [
            r#"{"file_data":{"mime_type":"video/mp4","file_uri":"u"}}"#,
            r#"{"fileData":{"mimeType":"video/mp4","fileUri":"u"}}"#,
            r#"{"type":"audio_url","audio_url":{"url":"https://a.example/b.mp3"}}"#,
            r#"{"type":"document_url","document_url":"https://a.example/b.pdf"}"#,
        ] {
            assert_eq!(media(json), (0, 20_000), "{json}");
        }
    }
}
