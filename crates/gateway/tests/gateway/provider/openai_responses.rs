//! OpenAI's responses.

use http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::reply::{Answer, Error, Event, Form, words};
use super::script::Script;

pub fn answer(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    let call = Call::new(asked, script);
    let is_stream = asked.body["stream"] == true;
    let form = if is_stream { Form::Events(call.events()) } else { Form::Whole(call.ended()) };
    let goes_on = asked.body["background"] == true;
    Ok(Answer { input: asked.input(script), output: call.output, form, goes_on })
}

/// The event of a response that fails.
pub fn failed(_: StatusCode, message: &str) -> Value {
    json!({
        "type": "response.failed", "sequence_number": 1,
        "response": {
            "id": "resp_1", "object": "response", "status": "failed", "output": [], "usage": null,
            "error": { "code": "server_error", "message": message },
        },
    })
}

struct Call<'a> {
    asked: &'a Asked,
    output: u64,
    reasoning: u64,
    is_short: bool,
    image: usize,
    usage: Value,
    tier: Option<String>,
    searches: u64,
}

impl<'a> Call<'a> {
    fn new(asked: &'a Asked, script: &Script) -> Self {
        let (output, reasoning) = script.produced(asked.number("max_output_tokens"));
        let is_short = output < script.output + script.reasoning;
        let input = asked.input(script);
        let usage = json!({
            "input_tokens": input,
            "input_tokens_details": { "cached_tokens": script.cached },
            "output_tokens": output,
            "output_tokens_details": { "reasoning_tokens": reasoning },
            "total_tokens": input + output,
        });
        let usage = if script.no_usage { Value::Null } else { usage };
        let (tier, searches) = (script.tier.clone(), script.searches);
        let image = script.image;
        Self { asked, output, reasoning, is_short, image, usage, tier, searches }
    }

    /// The response as it stands at its beginning.
    fn begun(&self) -> Value {
        json!({
            "id": "resp_1", "object": "response", "created_at": 1_780_000_000,
            "status": "in_progress", "error": null, "incomplete_details": null,
            "instructions": null, "metadata": {}, "model": self.asked.model(), "output": [],
            "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "usage": null, "service_tier": "auto",
        })
    }

    /// The response as it is in the end.
    fn ended(&self) -> Value {
        let mut response = self.begun();
        response["status"] = if self.is_short { "incomplete" } else { "completed" }.into();
        if self.is_short {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response["output"] = match self.reasoning {
            0 => json!([self.message("completed", Some(&self.text()))]),
            _ => json!([reasoning(), self.message("completed", Some(&self.text()))]),
        };
        let output = response["output"].as_array_mut().unwrap();
        if self.image > 0 {
            output.push(self.drawn());
        }
        let search = json!({ "id": "ws_1", "type": "web_search_call", "status": "completed" });
        output.extend((0..self.searches).map(|_| search.clone()));
        response["service_tier"] = self.tier.as_deref().unwrap_or("default").into();
        response["usage"] = self.usage.clone();
        response
    }

    fn drawn(&self) -> Value {
        json!({
            "id": "ig_1", "type": "image_generation_call", "status": "completed",
            "result": "A".repeat(self.image),
        })
    }

    fn text(&self) -> String {
        words(self.output - self.reasoning).collect()
    }

    fn message(&self, status: &str, text: Option<&str>) -> Value {
        let content: Vec<_> = text.into_iter().map(part).collect();
        json!({
            "id": "msg_1", "type": "message", "status": status, "role": "assistant",
            "content": content,
        })
    }

    fn events(&self) -> Vec<Event> {
        let at = u64::from(self.reasoning > 0);
        let mut events = vec![(json!({ "type": "response.created", "response": self.begun() }), 0)];
        events.push((json!({ "type": "response.in_progress", "response": self.begun() }), 0));
        if self.reasoning > 0 {
            for kind in ["response.output_item.added", "response.output_item.done"] {
                let event = json!({ "type": kind, "output_index": 0, "item": reasoning() });
                events.push((event, self.reasoning));
            }
        }
        let mut output = self.reasoning;
        let item = self.message("in_progress", None);
        let added =
            json!({ "type": "response.output_item.added", "output_index": at, "item": item });
        events.push((added, output));
        let about = |kind: &str| json!({ "type": kind, "item_id": "msg_1", "output_index": at, "content_index": 0 });
        let with = |kind: &str, name: &str, value: Value| {
            let mut event = about(kind);
            event[name] = value;
            event
        };
        events.push((with("response.content_part.added", "part", part("")), output));
        for word in words(self.output - self.reasoning) {
            output += 1;
            let mut event = with("response.output_text.delta", "delta", word.into());
            event["logprobs"] = json!([]);
            events.push((event, output));
        }
        let text = self.text();
        let mut done = with("response.output_text.done", "text", text.as_str().into());
        done["logprobs"] = json!([]);
        events.push((done, output));
        events.push((with("response.content_part.done", "part", part(&text)), output));
        let item = self.message("completed", Some(&text));
        let done = json!({ "type": "response.output_item.done", "output_index": at, "item": item });
        events.push((done, output));
        if self.image > 0 {
            let done = json!({
                "type": "response.output_item.done", "output_index": at + 1, "item": self.drawn(),
            });
            events.push((done, output));
        }
        let kind = if self.is_short { "response.incomplete" } else { "response.completed" };
        events.push((json!({ "type": kind, "response": self.ended() }), output));
        let numbered = |(number, (mut event, output)): (usize, (Value, u64))| {
            event["sequence_number"] = number.into();
            Event::named(&event, output)
        };
        events.into_iter().enumerate().map(numbered).collect()
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn reasoning() -> Value {
    json!({ "id": "rs_1", "type": "reasoning", "summary": [] })
}
