//! OpenAI's chat completions, and completions.

use http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::reply::{Answer, Error, Event, Form, words};
use super::script::Script;

pub fn error(status: StatusCode, message: &str) -> Value {
    let kind = match status.as_u16() {
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
}

pub fn chat(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    if !asked.body["messages"].is_array() {
        return Err(Error("Missing required parameter: 'messages'.".to_owned()));
    }
    Ok(Call::new(asked, script, Kind::Chat).answer())
}

pub fn completions(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    Ok(Call::new(asked, script, Kind::Completions).answer())
}

/// The prompts that are answered: a list is one of tokens, or one of prompts.
fn prompts(prompt: &Value) -> u64 {
    let list = prompt.as_array().filter(|list| list.first().is_some_and(|one| !one.is_number()));
    list.map_or(1, |list| list.len() as u64)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Chat,
    Completions,
}

/// A call, and how much it produces.
struct Call<'a> {
    asked: &'a Asked,
    kind: Kind,
    choices: u64,
    /// Of each choice.
    output: u64,
    reasoning: u64,
    finish: &'static str,
    calls_tool: bool,
    usage: Option<Value>,
    input: u64,
    model: String,
    tier: String,
}

impl<'a> Call<'a> {
    fn new(asked: &'a Asked, script: &Script, kind: Kind) -> Self {
        let ceiling = asked.number("max_completion_tokens").or(asked.number("max_tokens"));
        let choices = asked.number("n").unwrap_or(1) * prompts(&asked.body["prompt"]);
        let (output, reasoning) = script.produced(ceiling);
        let calls_tool = kind == Kind::Chat && asked.body["tools"].is_array();
        let finish = match calls_tool {
            _ if output < script.output + script.reasoning => "length",
            true => "tool_calls",
            false => "stop",
        };
        let input = asked.input(script);
        let usage = json!({
            "prompt_tokens": input,
            "completion_tokens": choices * output,
            "total_tokens": input + choices * output,
            "prompt_tokens_details": { "cached_tokens": script.cached, "audio_tokens": 0 },
            "completion_tokens_details": {
                "reasoning_tokens": choices * reasoning, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        });
        let usage = (!script.no_usage).then_some(usage);
        let model = script.served_by.clone().unwrap_or_else(|| asked.model());
        let tier = script.tier.clone().unwrap_or_else(|| "default".to_owned());
        Self {
            asked,
            kind,
            choices,
            output,
            reasoning,
            finish,
            calls_tool,
            usage,
            input,
            model,
            tier,
        }
    }

    fn answer(self) -> Answer {
        let is_stream = self.asked.body["stream"] == true;
        let form = if is_stream { Form::Events(self.events()) } else { Form::Whole(self.whole()) };
        Answer { input: self.input, output: self.choices * self.output, form, goes_on: false }
    }

    fn head(&self, chunk: bool) -> Value {
        let (id, object) = match (self.kind, chunk) {
            (Kind::Completions, _) => ("cmpl-1", "text_completion"),
            (Kind::Chat, false) => ("chatcmpl-1", "chat.completion"),
            (Kind::Chat, true) => ("chatcmpl-1", "chat.completion.chunk"),
        };
        json!({
            "id": id, "object": object, "created": 1_780_000_000, "model": self.model,
            "service_tier": self.tier, "system_fingerprint": "fp_1",
        })
    }

    fn said(&self) -> Vec<&'static str> {
        words(self.output - self.reasoning).collect()
    }

    fn whole(&self) -> Value {
        let text = self.said().concat();
        let choice = |index: u64| match (self.kind, self.calls_tool) {
            (Kind::Completions, _) => {
                json!({ "index": index, "text": text, "finish_reason": self.finish, "logprobs": null })
            }
            (Kind::Chat, false) => json!({
                "index": index, "finish_reason": self.finish, "logprobs": null,
                "message": { "role": "assistant", "content": text, "refusal": null },
            }),
            (Kind::Chat, true) => json!({
                "index": index, "finish_reason": self.finish, "logprobs": null,
                "message": { "role": "assistant", "content": null, "tool_calls": [self.tool(&text)] },
            }),
        };
        let mut whole = self.head(false);
        whole["choices"] = (0..self.choices).map(choice).collect();
        if let Some(usage) = &self.usage {
            whole["usage"] = usage.clone();
        }
        whole
    }

    fn tool(&self, text: &str) -> Value {
        let name = &self.asked.body["tools"][0]["function"]["name"];
        let arguments = json!({ "text": text }).to_string();
        json!({ "id": "call_1", "type": "function", "function": { "name": name, "arguments": arguments } })
    }

    fn events(&self) -> Vec<Event> {
        let includes_usage = self.asked.body["stream_options"]["include_usage"] == true;
        let chunk = |choices: Value, output| {
            let mut chunk = self.head(true);
            chunk["choices"] = choices;
            if includes_usage {
                chunk["usage"] = Value::Null;
            }
            Event::data(&chunk, output)
        };
        let choice = |index: u64, delta: Value, finish: Option<&str>| match self.kind {
            Kind::Completions => json!([{
                "index": index, "text": delta["content"].as_str().unwrap_or(""), "finish_reason": finish,
            }]),
            Kind::Chat => json!([{
                "index": index, "delta": delta, "finish_reason": finish, "logprobs": null,
            }]),
        };
        let (mut events, mut output) = (Vec::new(), 0);
        for index in 0..self.choices {
            // What is thought is produced, and never seen.
            output += self.reasoning;
            events.push(chunk(choice(index, self.first(), None), output));
            for word in self.said() {
                output += 1;
                events.push(chunk(choice(index, self.delta(word), None), output));
            }
            events.push(chunk(choice(index, json!({}), Some(self.finish)), output));
        }
        if let Some(usage) = self.usage.as_ref().filter(|_| includes_usage) {
            let mut last = self.head(true);
            last["choices"] = json!([]);
            last["usage"] = usage.clone();
            events.push(Event::data(&last, output));
        }
        events.push(Event { text: "data: [DONE]\n\n".to_owned(), output });
        events
    }

    fn first(&self) -> Value {
        match self.calls_tool {
            false => json!({ "role": "assistant", "content": "", "refusal": null }),
            true => {
                let mut tool = self.tool("");
                tool["index"] = 0.into();
                tool["function"]["arguments"] = "".into();
                json!({ "role": "assistant", "content": null, "tool_calls": [tool] })
            }
        }
    }

    fn delta(&self, word: &str) -> Value {
        match self.calls_tool {
            false => json!({ "content": word }),
            true => {
                json!({ "tool_calls": [{ "index": 0, "function": { "arguments": word } }] })
            }
        }
    }
}
