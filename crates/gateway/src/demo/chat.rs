//! Chat completions, whole and streamed, with usage that is what was produced.

use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::words::{USUAL_LENGTH, tokens, words};

#[derive(Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    model: String,
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    n: Option<usize>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// The most words of an answer, so that nobody is drowned.
const LONGEST: usize = 100_000;

/// An answer: so many choices of so many words.
struct Answer {
    id: String,
    created: u64,
    model: String,
    choices: usize,
    length: usize,
    finish: &'static str,
    usage: Value,
}

pub(super) async fn complete(request: Result<Json<Request>, JsonRejection>) -> Response {
    let request = match request {
        Ok(Json(request)) => request,
        Err(error) => return super::error(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    if request.messages.is_empty() {
        return super::error(StatusCode::BAD_REQUEST, "`messages` must have at least one message.");
    }
    let answer = Answer::to(&request);
    if request.stream {
        let usage = request.stream_options.is_some_and(|options| options.include_usage);
        answer.stream(usage)
    } else {
        Json(answer.whole()).into_response()
    }
}

impl Answer {
    fn to(request: &Request) -> Self {
        let ceiling = request.max_completion_tokens.or(request.max_tokens).unwrap_or(LONGEST);
        // An answer of its own length, unless the ceiling asks for a long one.
        let wanted = if ceiling < LONGEST { ceiling } else { USUAL_LENGTH };
        let length = wanted.min(LONGEST);
        let finish = if length > USUAL_LENGTH || length == ceiling { "length" } else { "stop" };
        let choices = request.n.unwrap_or(1).clamp(1, 128);
        let prompt: usize =
            request.messages.iter().map(|message| prompt_tokens(&message.content)).sum();
        let completion = length * choices;
        let created =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            id: format!("chatcmpl-demo-{created}"),
            created,
            model: if request.model.is_empty() {
                super::MODEL.to_owned()
            } else {
                request.model.clone()
            },
            choices,
            length,
            finish,
            usage: json!({
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }),
        }
    }

    fn whole(&self) -> Value {
        let content: String = words(self.length).collect();
        let choice = |index: usize| {
            json!({
                "index": index,
                "message": { "role": "assistant", "content": content },
                "logprobs": null,
                "finish_reason": self.finish,
            })
        };
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": (0..self.choices).map(choice).collect::<Vec<_>>(),
            "usage": self.usage,
        })
    }

    /// A word at a time, as events.
    fn stream(self, with_usage: bool) -> Response {
        let mut events =
            vec![self.chunk(0, json!({ "role": "assistant", "content": "" }), None, with_usage)];
        for index in 0..self.choices {
            for word in words(self.length) {
                events.push(self.chunk(index, json!({ "content": word }), None, with_usage));
            }
            events.push(self.chunk(index, json!({}), Some(self.finish), with_usage));
        }
        if with_usage {
            let mut last = self.envelope(json!([]));
            last["usage"] = self.usage.clone();
            events.push(last);
        }
        let lines = events.into_iter().map(|event| format!("data: {event}\n\n"));
        let lines = lines.chain(["data: [DONE]\n\n".to_owned()]);
        let body = stream::iter(
            lines.map(|line| Ok::<_, Infallible>(Bytes::from(line))).collect::<Vec<_>>(),
        );
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
    }

    fn chunk(&self, index: usize, delta: Value, finish: Option<&str>, with_usage: bool) -> Value {
        let choice =
            json!([{ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish }]);
        let mut chunk = self.envelope(choice);
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn envelope(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// The tokens of a message: of its text, or of the texts of its parts.
fn prompt_tokens(content: &Value) -> usize {
    match content {
        Value::String(text) => tokens(text),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text")?.as_str()).map(tokens).sum()
        }
        _ => 0,
    }
}
