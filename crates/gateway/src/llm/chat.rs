//! Requests to OpenAI's chat completions API, as far as their cost goes.

use std::fmt;

use bytes::Bytes;
use serde_json::{Value, json};

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
        let mut request: Value =
            serde_json::from_slice(body).map_err(|error| ChatError::Json(error.to_string()))?;
        if !request.get("messages").is_some_and(Value::is_array) {
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
        let asks_usage =
            request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
        let hides_usage = request.get("stream") == Some(&Value::Bool(true)) && !asks_usage;
        let body = if hides_usage { ask_usage(&mut request)? } else { body.clone() };
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

/// The same request, asking for the usage at the end of its stream.
fn ask_usage(request: &mut Value) -> Result<Bytes, ChatError> {
    match &mut request["stream_options"] {
        Value::Object(options) => {
            options.insert("include_usage".to_owned(), Value::Bool(true));
        }
        options @ Value::Null => *options = json!({ "include_usage": true }),
        _ => return Err(ChatError::StreamOptions),
    }
    Ok(Bytes::from(request.to_string()))
}

/// A field that is a whole number, or is not there.
fn number(request: &Value, field: &'static str) -> Result<Option<u64>, ChatError> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| ChatError::Number { field, found: value.to_string() }),
    }
}

/// Why a body is no chat completion request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChatError {
    Json(String),
    Messages,
    Number { field: &'static str, found: String },
    StreamOptions,
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
        for quiet in [
            r#"{"messages":[],"stream":true}"#,
            r#"{"messages":[],"stream":true,"stream_options":null}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
        ] {
            let request = parse(quiet).unwrap();
            assert!(request.hides_usage());
            let body: Value = serde_json::from_slice(&request.body()).unwrap();
            assert_eq!(body["stream_options"]["include_usage"], true);
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
        ] {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{body}: {error}");
        }
    }
}
