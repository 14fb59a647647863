//! LLM calls of every API, through the gateway to a provider that bills them.

mod ceilings;
mod ends;
mod money;
mod no_answer;
mod settling;
mod setups;
mod terms;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::process::{Gateway, get_as};
use crate::provider::Provider;
use crate::provider::ledger::Billed;

/// An API, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Chat,
    ChatMaxTokens,
    Completions,
    Responses,
    Messages,
    Gemini,
    GeminiList,
}

pub const ALL: [Kind; 7] = [
    Kind::Chat,
    Kind::ChatMaxTokens,
    Kind::Completions,
    Kind::Responses,
    Kind::Messages,
    Kind::Gemini,
    Kind::GeminiList,
];

impl Kind {
    pub fn path(self, is_stream: bool) -> &'static str {
        match (self, is_stream) {
            (Self::Chat | Self::ChatMaxTokens, _) => "/v1/chat/completions",
            (Self::Completions, _) => "/v1/completions",
            (Self::Responses, _) => "/v1/responses",
            (Self::Messages, _) => "/v1/messages",
            (Self::Gemini | Self::GeminiList, false) => {
                "/v1beta/models/gemini-2.5-flash:generateContent"
            }
            (Self::Gemini, true) => "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            (Self::GeminiList, true) => "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        }
    }

    pub fn model(self) -> &'static str {
        match self {
            Self::Messages => "claude-sonnet-4-5",
            Self::Gemini | Self::GeminiList => "gemini-2.5-flash",
            _ => "gpt-5-mini",
        }
    }

    /// Whether a stream of it comes as events.
    pub fn has_events(self) -> bool {
        self != Self::GeminiList
    }

    /// Where its ceiling is in the body.
    pub fn ceiling(self) -> &'static str {
        match self {
            Self::Chat => "/max_completion_tokens",
            Self::ChatMaxTokens | Self::Completions | Self::Messages => "/max_tokens",
            Self::Responses => "/max_output_tokens",
            Self::Gemini | Self::GeminiList => "/generationConfig/maxOutputTokens",
        }
    }

    /// Where the number of choices is in the body, if it can have several.
    pub fn choices(self) -> Option<&'static str> {
        match self {
            Self::Chat | Self::ChatMaxTokens | Self::Completions => Some("n"),
            _ => None,
        }
    }

    /// A call under a ceiling.
    pub fn body(self, ceiling: u64, is_stream: bool) -> Value {
        let text = "When does the tide come in?";
        let messages = json!([{ "role": "user", "content": text }]);
        let mut body = match self {
            Self::Chat => json!({ "messages": messages, "max_completion_tokens": ceiling }),
            Self::ChatMaxTokens | Self::Messages => {
                json!({ "messages": messages, "max_tokens": ceiling })
            }
            Self::Completions => json!({ "prompt": text, "max_tokens": ceiling }),
            Self::Responses => json!({ "input": text, "max_output_tokens": ceiling }),
            Self::Gemini | Self::GeminiList => {
                return json!({
                    "contents": [{ "role": "user", "parts": [{ "text": text }] }],
                    "generationConfig": { "maxOutputTokens": ceiling },
                });
            }
        };
        body["model"] = self.model().into();
        if is_stream {
            body["stream"] = true.into();
        }
        body
    }

    /// Takes the ceiling out of a body.
    pub fn take_ceiling(self, body: &mut Value) -> Value {
        let (object, name) = self.ceiling().rsplit_once('/').unwrap();
        body.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(name).unwrap()
    }

    /// The call, with a script for the provider.
    pub fn call(self, body: &Value, is_stream: bool, script: &str) -> Request<Full<Bytes>> {
        call_to(self.path(is_stream), body, script)
    }
}

pub fn call_to(path: &str, body: &Value, script: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("authorization", "Bearer alice-key")
        .header("content-type", "application/json")
        .header("x-script", script)
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// A gateway with a budget of LLM tokens, in front of a provider.
pub struct Setup {
    pub gateway: Gateway,
    pub provider: Provider,
}

/// The budget where nothing else is said.
pub const BUDGET: u64 = 100_000;

impl Setup {
    pub async fn new(lines: &str) -> Self {
        let rule = budget_rule(BUDGET, "");
        Self::with_rules(lines, &rule).await
    }

    /// With these lines at the front, and these rules.
    pub async fn with_rules(lines: &str, rules: &str) -> Self {
        let provider = Provider::start().await;
        let gateway = Gateway::configured(&config(&provider, lines, rules));
        Self { gateway, provider }
    }

    /// What is left of a rule's limit now.
    pub async fn left(&self, rule: &str) -> u64 {
        left(&self.gateway, rule).await
    }

    /// What is left of the budget, once that is another number.
    pub async fn left_after(&self, before: u64) -> u64 {
        for _ in 0..2_000 {
            let left = self.left("budget").await;
            if left != before {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is {before} still");
    }

    /// The call that has come last to the provider.
    pub fn billed(&self) -> Billed {
        self.provider.ledger.calls().pop().expect("a call that came to the provider")
    }
}

/// What is left of a rule's limit, as a call that costs nothing is told.
pub async fn left(gateway: &Gateway, rule: &str) -> u64 {
    gateway.send(get_as("alice-key", "/v1/models")).await.remaining(rule)
}

/// A budget in a sliding window, so that no test depends on the time of day.
pub fn budget_rule(units: u64, lines: &str) -> String {
    format!(
        "[[rule]]\nname = \"budget\"\nlimit = \"{units} per hour\"\nkey = \"user\"\n\
         cost = \"llm-tokens\"\nmatch = {{ authenticated = true }}\n{lines}\n"
    )
}

pub fn config(provider: &Provider, lines: &str, rules: &str) -> String {
    format!(
        "{lines}\n[upstream]\nurl = \"http://{}\"\napi_key_env = \"TIDEGATE_TEST_KEY\"\n\
         [auth]\nrequired = [\"/*\"]\n[[user]]\nname = \"alice\"\nkey = \"alice-key\"\n{rules}",
        provider.address
    )
}

/// The data of each event of a stream.
pub fn data_of(stream: &str) -> Vec<Value> {
    let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}
