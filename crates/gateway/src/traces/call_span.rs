//! [`CallSpan`]: what is told of one call.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tidegate::Money;

use super::TRACER;
use crate::llm::{Api, Maker, TokenCounts};
use crate::metrics::Outcome;

/// The span of a call, or nothing where there are no traces. Clones are the same span, which ends with
/// the last of them, or where it is told to.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallSpan(Option<Context>);

/// The longest text of a caller's that a span keeps, in bytes. Spans wait in memory.
const MAX_TEXT: usize = 256;

impl CallSpan {
    /// Begins the span of a call, as a part of what its caller is doing, by `traceparent`.
    pub(crate) fn begin(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let propagator = TraceContextPropagator::new();
        let parent = propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let span = tracer
            .span_builder(short(method.as_str()))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", short(method.as_str())),
                KeyValue::new("url.path", short(path)),
            ])
            .start_with_context(tracer, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// Tells the API behind that it is asked as a part of this.
    pub(crate) fn propagate(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        }
    }

    /// Whether anything that is told is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().is_recording())
    }

    /// Who calls, and by which route.
    pub(crate) fn caller(&self, ip: Option<IpAddr>, user: Option<&str>, route: &'static str) {
        if !self.is_kept() {
            return;
        }
        self.set("http.route", route);
        if let Some(ip) = ip {
            self.set("client.address", ip.to_string());
        }
        if let Some(user) = user {
            self.set("enduser.id", short(user));
        }
    }

    /// An LLM call, and the most that it can use by what it asks for.
    pub(crate) fn asks(&self, api: Api, model: Option<&str>, llm_tokens: u64, nanos: Option<u64>) {
        let Some(context) = self.0.as_ref().filter(|_| self.is_kept()) else { return };
        let operation = operation(api);
        let model = model.map(short);
        context.span().update_name(match &model {
            Some(model) => format!("{operation} {model}"),
            None => operation.to_owned(),
        });
        self.set("gen_ai.operation.name", operation);
        self.set("gen_ai.provider.name", provider(api));
        if let Some(model) = model {
            self.set("gen_ai.request.model", model);
        }
        self.count("tidegate.asked.llm_tokens", llm_tokens);
        if let Some(nanos) = nanos {
            self.count("tidegate.asked.nanos", nanos);
        }
    }

    /// What is held for an LLM call until it ends, and the most output that it may have for that.
    pub(crate) fn holds(&self, llm_tokens: u64, nanos: Option<u64>, max_output: u64) {
        self.count("gen_ai.request.max_tokens", max_output);
        self.count("tidegate.held.llm_tokens", llm_tokens);
        if let Some(nanos) = nanos {
            self.count("tidegate.held.nanos", nanos);
        }
    }

    /// What an LLM call has used.
    pub(crate) fn used(&self, counts: &TokenCounts, paid: Option<Money>) {
        if !self.is_kept() {
            return;
        }
        self.count("gen_ai.usage.input_tokens", counts.input);
        self.count("gen_ai.usage.output_tokens", counts.output);
        self.count("gen_ai.usage.cache_read.input_tokens", counts.cached_input);
        self.count("gen_ai.usage.cache_creation.input_tokens", counts.cache_write);
        self.count("tidegate.settled.llm_tokens", counts.total());
        if let Some(paid) = paid {
            self.count("tidegate.settled.nanos", paid.nanos());
            self.set("tidegate.currency", paid.currency().code().to_owned());
        }
    }

    /// All that was held is given back.
    pub(crate) fn gave_back(&self) {
        self.count("tidegate.settled.llm_tokens", 0);
    }

    /// The rule that denied it.
    pub(crate) fn denied_by(&self, rule: &str) {
        self.set("tidegate.rule", rule.to_owned());
    }

    /// How it was answered.
    pub(crate) fn answered(&self, status: StatusCode, outcome: Outcome) {
        let Some(context) = self.0.as_ref().filter(|_| self.is_kept()) else { return };
        self.count("http.response.status_code", u64::from(status.as_u16()));
        self.set("tidegate.outcome", outcome.name());
        if status.is_server_error() {
            self.set("error.type", status.as_str().to_owned());
            context.span().set_status(Status::error(""));
        }
    }

    fn count(&self, name: &'static str, count: u64) {
        self.set(name, i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }
}

/// As much of a text as a span keeps.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// What GenAI's conventions call what an endpoint does.
const fn operation(api: Api) -> &'static str {
    match api {
        Api::OpenAiChat | Api::OpenAiResponses | Api::AnthropicMessages => "chat",
        Api::OpenAiCompletions => "text_completion",
        Api::OpenAiEmbeddings | Api::GeminiEmbed => "embeddings",
        Api::GeminiGenerate | Api::GeminiStream => "generate_content",
    }
}

/// What GenAI's conventions call the maker of an API.
const fn provider(api: Api) -> &'static str {
    match api.maker() {
        Maker::OpenAi => "openai",
        Maker::Anthropic => "anthropic",
        Maker::Gemini => "gcp.gemini",
        Maker::Nobody => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_callers_are_cut_where_a_character_ends() {
        assert_eq!(short("gpt-5"), "gpt-5");
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(short(&long).len(), MAX_TEXT);
        let odd = format!("x{long}");
        assert_eq!(short(&odd).len(), MAX_TEXT - 1);
    }
}
