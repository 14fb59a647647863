//! Requests to OpenAI's chat completions API, as far as their cost goes.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::members::{Members, Twice, replace};

/// A chat completion request.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    body: Bytes,
    estimate: u64,
    hides_usage: bool,
}

/// The output tokens that are reserved for a request that sets no ceiling.
const DEFAULT_OUTPUT: u64 = 1_024;

/// The most choices a request may ask for.
const MAX_CHOICES: u64 = 128;

impl ChatRequest {
    /// Reads a request's body.
    pub(crate) fn parse(body: &Bytes) -> Result<Self, ChatError> {
        let text = std::str::from_utf8(body).map_err(|error| ChatError::Json(error.to_string()))?;
        serde_json::from_str::<Value>(text).map_err(|error| ChatError::Json(error.to_string()))?;
        let request = Members::read(text)?;
        if !request.find("messages").is_some_and(|messages| messages.starts_with('[')) {
            return Err(ChatError::Messages);
        }
        let ceiling = match number(&request, "max_completion_tokens")? {
            Some(ceiling) => ceiling,
            None => number(&request, "max_tokens")?.unwrap_or(DEFAULT_OUTPUT),
        };
        let choices = number(&request, "n")?.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&choices) {
            return Err(ChatError::Number { field: "n", found: choices.to_string() });
        }
        // Byte-level tokenizers make at most one token of a byte, and the JSON around a message is
        // longer than what the API adds to it.
        let input = body.len() as u64;
        let estimate = input.saturating_add(ceiling.saturating_mul(choices));
        let asking = match request.find("stream") {
            Some("true") => ask_usage(text, &request)?,
            _ => None,
        };
        let hides_usage = asking.is_some();
        let body = asking.map_or_else(|| body.clone(), Bytes::from);
        Ok(Self { body, estimate, hides_usage })
    }

    /// The most LLM tokens that it can use.
    pub(crate) const fn estimate(&self) -> u64 {
        self.estimate
    }

    /// The body to pass on: the client's own bytes, unless the usage of a stream had to be asked for.
    pub(crate) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Whether the usage in the answer was asked for by us, and is to be kept from the client.
    pub(crate) const fn hides_usage(&self) -> bool {
        self.hides_usage
    }
}

/// The same request, asking for the usage at the end of its stream; `None` where it asks already.
///
/// Nothing else of it changes, not by a byte: numbers would lose digits if it were written anew.
fn ask_usage(text: &str, members: &Members<'_>) -> Result<Option<String>, ChatError> {
    let Some(options) = members.find("stream_options") else {
        let asking = r#""stream_options":{"include_usage":true}"#;
        return Ok(Some(insert_first(text, members, asking)));
    };
    let asking = match options {
        "null" => r#"{"include_usage":true}"#.to_owned(),
        object if object.starts_with('{') => {
            let inner = Members::read(object)?;
            match inner.find("include_usage") {
                Some("true") => return Ok(None),
                Some(value) => replace(object, value, "true"),
                None => insert_first(object, &inner, r#""include_usage":true"#),
            }
        }
        _ => return Err(ChatError::StreamOptions),
    };
    Ok(Some(replace(text, options, &asking)))
}

/// The object with this member before all others.
fn insert_first(object: &str, members: &Members<'_>, member: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    object.replacen('{', &format!("{{{member}{comma}"), 1)
}

/// A field that is a whole number, or is not there.
fn number(request: &Members<'_>, field: &'static str) -> Result<Option<u64>, ChatError> {
    match request.find(field) {
        None | Some("null") => Ok(None),
        Some(value) => value
            .parse()
            .map(Some)
            .map_err(|_| ChatError::Number { field, found: value.to_owned() }),
    }
}

/// Why a body is no chat completion request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChatError {
    Json(String),
    Messages,
    Number { field: &'static str, found: String },
    StreamOptions,
    Twice(String),
}

impl From<Twice> for ChatError {
    fn from(Twice(name): Twice) -> Self {
        Self::Twice(name)
    }
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(reason) => write!(f, "The body is not JSON: {reason}."),
            Self::Messages => f.write_str("`messages` must be a list of messages."),
            Self::Number { field, found } => {
                let most =
                    if *field == "n" { format!(" from 1 to {MAX_CHOICES}") } else { String::new() };
                write!(f, "`{field}` must be a whole number{most}, not {found}.")
            }
            Self::StreamOptions => f.write_str("`stream_options` must be an object."),
            Self::Twice(name) => write!(f, "{name:?} is there twice; which one counts?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<ChatRequest, ChatError> {
        ChatRequest::parse(&Bytes::from(body.to_owned()))
    }

    #[test]
    fn the_estimate_is_the_bytes_and_the_ceiling_of_every_choice() {
        for (body, output) in [
            (r#"{"messages":[]}"#, 1_024),
            (r#"{"messages":[],"max_tokens":50}"#, 50),
            (r#"{"messages":[],"max_tokens":50,"max_completion_tokens":70}"#, 70),
            (r#"{"messages":[],"max_tokens":50,"n":3}"#, 150),
            (r#"{"messages":[],"max_tokens":null}"#, 1_024),
        ] {
            assert_eq!(parse(body).unwrap().estimate(), body.len() as u64 + output, "{body}");
        }
        let most = format!(r#"{{"messages":[],"max_tokens":{},"n":128}}"#, u64::MAX);
        assert_eq!(parse(&most).unwrap().estimate(), u64::MAX);
    }

    #[test]
    fn the_usage_of_a_stream_is_asked_for_where_the_client_did_not() {
        let plain = r#"{"messages": [], "stream": false}"#;
        assert_eq!(parse(plain).unwrap().body(), plain, "byte for byte");
        let asked = r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
        let request = parse(asked).unwrap();
        assert_eq!((request.body().as_ref(), request.hides_usage()), (asked.as_bytes(), false));
        for (quiet, asking) in [
            (
                r#" {"messages":[],"stream":true}"#,
                r#" {"stream_options":{"include_usage":true},"messages":[],"stream":true}"#,
            ),
            (
                r#"{"stream_options" : null, "stream":true,"messages":[{"seed": 1.5000000000000000001}]}"#,
                r#"{"stream_options" : {"include_usage":true}, "stream":true,"messages":[{"seed": 1.5000000000000000001}]}"#,
            ),
            (
                r#"{"messages":[],"stream":true,"stream_options":{ }}"#,
                r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true }}"#,
            ),
            (
                r#"{"z":"{","messages":[],"stream":true,"stream_options":{"x":1}}"#,
                r#"{"z":"{","messages":[],"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (
                r#"{"messages":[],"stream":true,"stream_options":{"include\u005fusage": false ,"x":1}}"#,
                r#"{"messages":[],"stream":true,"stream_options":{"include\u005fusage": true ,"x":1}}"#,
            ),
        ] {
            let request = parse(quiet).unwrap();
            assert!(request.hides_usage());
            assert_eq!(request.body(), asking, "nothing else has changed");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        for (body, reason) in [
            ("", "The body is not JSON"),
            ("[]", "`messages` must be a list"),
            (r#"{"messages":"hi"}"#, "`messages` must be a list"),
            (r#"{"messages":[],"max_tokens":-1}"#, "`max_tokens` must be a whole number, not -1."),
            (
                r#"{"messages":[],"max_tokens":1.5}"#,
                "`max_tokens` must be a whole number, not 1.5.",
            ),
            (
                r#"{"messages":[],"max_tokens":"9"}"#,
                "`max_tokens` must be a whole number, not \"9\".",
            ),
            (r#"{"messages":[],"n":0}"#, "`n` must be a whole number from 1 to 128, not 0."),
            (
                r#"{"messages":[],"stream":true,"stream_options":7}"#,
                "`stream_options` must be an object.",
            ),
            // One reader takes the first, another the last: only one of them would be charged.
            (
                r#"{"messages":[],"max_tokens":9,"max\u005ftokens":90000}"#,
                "\"max_tokens\" is there twice",
            ),
            (
                r#"{"messages":[],"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}"#,
                "\"include_usage\" is there twice",
            ),
        ] {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{body}: {error}");
        }
    }
}
