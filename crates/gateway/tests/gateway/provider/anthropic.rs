//! Anthropic's messages.

use http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::reply::{Answer, Error, Event, Form, words};
use super::script::Script;

pub fn error(status: StatusCode, message: &str) -> Value {
    let kind = match status.as_u16() {
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": "req_1" })
}

pub fn answer(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    let Some(ceiling) = asked.number("max_tokens") else {
        return Err(Error("max_tokens: Field required".to_owned()));
    };
    let (output, thought) = script.produced(Some(ceiling));
    let is_short = output < script.output + script.reasoning;
    let input = asked.input(script);
    let call = Call {
        asked,
        output,
        thought,
        stop: if is_short { "max_tokens" } else { "end_turn" },
        input: json!({
            "input_tokens": input - script.cached - script.cache_write,
            "cache_creation_input_tokens": script.cache_write,
            "cache_read_input_tokens": script.cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": script.cache_write - script.cache_write_1h,
                "ephemeral_1h_input_tokens": script.cache_write_1h,
            },
            "service_tier": script.tier.as_deref().unwrap_or("standard"),
            "server_tool_use": { "web_search_requests": 0 },
        }),
        tells_usage: !script.no_usage,
        searches: script.searches,
    };
    let is_stream = asked.body["stream"] == true;
    let form = if is_stream { Form::Events(call.events()) } else { Form::Whole(call.whole()) };
    Ok(Answer { input, output, form, goes_on: false })
}

struct Call<'a> {
    asked: &'a Asked,
    output: u64,
    thought: u64,
    stop: &'static str,
    /// The usage, as far as it is known at once.
    input: Value,
    tells_usage: bool,
    searches: u64,
}

impl Call<'_> {
    fn message(&self, content: Value, stop: Option<&str>, output: u64) -> Value {
        let mut message = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.asked.model(),
            "content": content, "stop_reason": stop, "stop_sequence": null,
        });
        if self.tells_usage {
            message["usage"] = self.input.clone();
            message["usage"]["output_tokens"] = output.into();
            if stop.is_some() {
                message["usage"]["server_tool_use"]["web_search_requests"] = self.searches.into();
            }
        }
        message
    }

    fn whole(&self) -> Value {
        let text = |tokens| words(tokens).collect::<String>();
        let mut content = Vec::new();
        if self.thought > 0 {
            content.push(json!({
                "type": "thinking", "thinking": text(self.thought), "signature": "c2lnbmVk",
            }));
        }
        content.push(json!({ "type": "text", "text": text(self.output - self.thought) }));
        self.message(content.into(), Some(self.stop), self.output)
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        // The first output is told here, and is not the last word on it.
        let start = self.message(json!([]), None, 1);
        events.push(Event::named(&json!({ "type": "message_start", "message": start }), 0));
        let mut output = 0;
        let mut block = |index: u64, kind: &str, tokens: u64| {
            let block = match kind {
                "thinking" => json!({ "type": "thinking", "thinking": "", "signature": "" }),
                _ => json!({ "type": "text", "text": "" }),
            };
            let event = |kind: &str, name: &str, value: Value| json!({ "type": kind, "index": index, name: value });
            let start = event("content_block_start", "content_block", block);
            events.push(Event::named(&start, output));
            events.push(Event::named(&json!({ "type": "ping" }), output));
            for word in words(tokens) {
                output += 1;
                let delta = json!({ "type": format!("{kind}_delta"), kind: word });
                events.push(Event::named(&event("content_block_delta", "delta", delta), output));
            }
            let stop = json!({ "type": "content_block_stop", "index": index });
            events.push(Event::named(&stop, output));
        };
        if self.thought > 0 {
            block(0, "thinking", self.thought);
        }
        block(u64::from(self.thought > 0), "text", self.output - self.thought);
        let mut end = json!({
            "type": "message_delta", "delta": { "stop_reason": self.stop, "stop_sequence": null },
        });
        if self.tells_usage {
            // All of it, and not what has come since; of the input, without how long it stays in a cache.
            let name = |name: &str| self.input[name].clone();
            end["usage"] = json!({
                "input_tokens": name("input_tokens"),
                "cache_creation_input_tokens": name("cache_creation_input_tokens"),
                "cache_read_input_tokens": name("cache_read_input_tokens"),
                "output_tokens": self.output,
                "server_tool_use": { "web_search_requests": self.searches },
            });
        }
        events.push(Event::named(&end, self.output));
        events.push(Event::named(&json!({ "type": "message_stop" }), self.output));
        events
    }
}
