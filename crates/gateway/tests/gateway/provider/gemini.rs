//! Gemini's generateContent, whole, as events and as a list.

use http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::reply::{Answer, Error, Event, Form, words};
use super::script::Script;

pub fn error(status: StatusCode, message: &str) -> Value {
    let name = match status.as_u16() {
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    json!({ "error": { "code": status.as_u16(), "message": message, "status": name } })
}

pub fn whole(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    let call = Call::new(asked, script)?;
    let text: String = words(call.said()).collect();
    let part = call.part(&text, true, call.output, call.thoughts);
    Ok(Answer { input: call.input, output: call.total(), form: Form::Whole(part), goes_on: false })
}

pub fn stream(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    let call = Call::new(asked, script)?;
    let mut parts = Vec::new();
    for (index, word) in words(call.said()).enumerate() {
        let said = index as u64 + 1;
        // Thoughts come before all that is said.
        let part = call.part(word, said == call.said(), said + call.thoughts, call.thoughts);
        parts.push(Event::data(&part, call.choices * (said + call.thoughts)));
    }
    if parts.is_empty() {
        // All that the ceiling has room for was thought.
        parts.push(Event::data(&call.part("", true, call.output, call.thoughts), call.total()));
    }
    let is_events = asked.query.split('&').any(|pair| pair == "alt=sse");
    let form = if is_events { Form::Events(parts) } else { Form::List(parts) };
    Ok(Answer { input: call.input, output: call.total(), form, goes_on: false })
}

struct Call {
    model: String,
    input: u64,
    cached: u64,
    choices: u64,
    /// Of each candidate, with thoughts.
    output: u64,
    thoughts: u64,
    finish: &'static str,
    tells_usage: bool,
}

impl Call {
    fn new(asked: &Asked, script: &Script) -> Result<Self, Error> {
        if !asked.body["contents"].is_array() {
            return Err(Error("contents is not specified".to_owned()));
        }
        let config = &asked.body["generationConfig"];
        let (output, thoughts) = script.produced(config["maxOutputTokens"].as_u64());
        let is_short = output < script.output + script.reasoning;
        let model = asked.path.rsplit('/').next().and_then(|last| last.split(':').next());
        Ok(Self {
            model: model.unwrap_or_default().to_owned(),
            input: asked.input(script),
            cached: script.cached,
            choices: config["candidateCount"].as_u64().unwrap_or(1),
            output,
            thoughts,
            finish: if is_short { "MAX_TOKENS" } else { "STOP" },
            tells_usage: !script.no_usage,
        })
    }

    fn said(&self) -> u64 {
        self.output - self.thoughts
    }

    fn total(&self) -> u64 {
        self.choices * self.output
    }

    /// A part of the answer, when so much of each candidate has been produced.
    fn part(&self, text: &str, is_last: bool, output: u64, thoughts: u64) -> Value {
        let candidate = |index: u64| {
            let content = json!({ "parts": [{ "text": text }], "role": "model" });
            let mut candidate = json!({ "content": content, "index": index });
            if is_last {
                candidate["finishReason"] = self.finish.into();
            }
            candidate
        };
        let candidates: Vec<_> = (0..self.choices).map(candidate).collect();
        let mut part = json!({
            "candidates": candidates, "modelVersion": self.model, "responseId": "r1",
        });
        if self.tells_usage {
            let (said, thoughts) = (self.choices * (output - thoughts), self.choices * thoughts);
            let mut usage = json!({
                "promptTokenCount": self.input,
                "candidatesTokenCount": said,
                "totalTokenCount": self.input + said + thoughts,
                "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": self.input }],
            });
            if thoughts > 0 {
                usage["thoughtsTokenCount"] = thoughts.into();
            }
            if self.cached > 0 {
                usage["cachedContentTokenCount"] = self.cached.into();
            }
            part["usageMetadata"] = usage;
        }
        part
    }
}
