//! [`LlmRequest`]: a request to an LLM, as far as its cost goes.

mod ceiling;
mod error;
mod fields;
mod streamed_usage;

use bytes::Bytes;

use super::edits::Edits;
use super::input::Media;
use super::members::Members;
use super::{Api, Settings, Terms, Unseen, tokens};
use ceiling::{Parts, least_output};
pub(in crate::llm) use error::RequestError;
pub(in crate::llm) use fields::{number, one_of, text};

/// A request to an LLM: what it can use at most, and how to lower that.
#[derive(Debug)]
pub(crate) struct LlmRequest {
    api: Api,
    body: Bytes,
    /// The model, and those that the provider may take in its place. In lower case, so that no spelling is
    /// another model.
    models: Vec<String>,
    terms: Terms,
    /// The most LLM tokens that its input has.
    input: u64,
    /// What of the input was bounded by bytes, and not by a tokenizer.
    bounded_text: u64,
    /// The most output tokens of each choice.
    ceiling: u64,
    choices: u64,
    least_output: u64,
    edits: Edits,
    hides_usage: bool,
    unseen: Unseen,
}

/// What an API puts around messages.
const TEMPLATE_TOKENS: u64 = 32;

impl LlmRequest {
    /// Reads a request's body. The model is in the path, or else in the body.
    pub(crate) fn parse(
        api: Api,
        model: Option<String>,
        body: &Bytes,
        settings: &Settings,
    ) -> Result<Self, RequestError> {
        let text =
            std::str::from_utf8(body).map_err(|error| RequestError::Json(error.to_string()))?;
        let media = Media::of(text).map_err(|error| RequestError::Json(error.to_string()))?;
        let members = Members::read(text)?;
        check_content(api, &members)?;
        let models = models(model, &members)?;
        let tool_tokens = settings.allowances.tool_tokens;
        let terms = Terms::of(api, &models, &members, &media, tool_tokens)?;
        let unseen = Unseen::of(api, &models, &members)?.or_of(&terms);
        let mut parts = Parts { text, members: &members, edits: Edits::default() };
        let choices = parts.choices(api)?;
        let (asked, least_output) = (parts.ceiling(api, settings)?, least_output(api, &members)?);
        let is_stream = members.find("stream") == Some("true");
        let asks = is_stream && matches!(api, Api::OpenAiChat | Api::OpenAiCompletions);
        let hides_usage = asks && parts.ask_usage()?;
        let ceiling =
            if api.has_output() { asked.unwrap_or(settings.default_max_output) } else { 0 };
        // Byte-level tokenizers make at most one token of a byte, and the JSON around a message is
        // longer than what the API puts in its place.
        let bounded_text = media.text_bytes(text);
        let allowed = media.allowed(&settings.allowances).saturating_add(terms.tool_input);
        let input = bounded_text.saturating_add(allowed);
        let is_text_only = media.is_text_only();
        let edits = parts.edits;
        Ok(Self {
            api,
            body: body.clone(),
            models,
            terms,
            input,
            bounded_text: if is_text_only { bounded_text } else { 0 },
            ceiling,
            choices,
            least_output: least_output.min(ceiling),
            edits,
            hides_usage,
            unseen,
        })
    }

    pub(crate) const fn api(&self) -> Api {
        self.api
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.models.first().map(String::as_str)
    }

    /// The model, and those that the provider may take in its place.
    pub(crate) fn models(&self) -> &[String] {
        &self.models
    }

    /// What it asks for that is charged otherwise than by plain tokens.
    pub(crate) const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What of its output may not be seen to pass.
    pub(crate) const fn unseen(&self) -> Unseen {
        self.unseen
    }

    /// The most LLM tokens that its input has.
    pub(crate) const fn input(&self) -> u64 {
        self.input
    }

    /// The most output tokens of each choice that it asks for, or may have.
    pub(crate) const fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// The most output tokens under a ceiling.
    pub(crate) const fn output(&self, ceiling: u64) -> u64 {
        ceiling.saturating_mul(self.choices)
    }

    /// The highest ceiling under which so many output tokens are enough; `None` when that would be too
    /// low to be of use.
    pub(crate) const fn ceiling_within(&self, output: u64) -> Option<u64> {
        let ceiling = output / self.choices;
        if ceiling < self.least_output || ceiling == 0 { None } else { Some(ceiling) }
    }

    /// The bytes of its text, where it has been bounded by them only.
    pub(crate) const fn bounded_text(&self) -> u64 {
        self.bounded_text
    }

    /// The least input and output that it could do with, were its text counted as so many LLM tokens: with the
    /// ceiling as low as that may go.
    pub(crate) fn least(&self, counted: u64, ceiling: u64, is_lowering: bool) -> (u64, u64) {
        let counted = counted.saturating_add(TEMPLATE_TOKENS).min(self.bounded_text);
        let ceiling = if is_lowering { self.least_output } else { ceiling };
        (self.input - self.bounded_text + counted, self.output(ceiling))
    }

    /// Its text, where that has been bounded by its bytes only. Where another model may be taken, nobody knows
    /// whose tokenizer would count it.
    pub(crate) fn uncounted(&self) -> Option<Uncounted> {
        let is_countable = self.bounded_text > 0 && self.models.len() == 1;
        let model = self.model().filter(|_| is_countable)?;
        Some(Uncounted { model: model.to_owned(), body: self.body.clone() })
    }

    /// Takes what its text was counted as, if it could be; whether that is less than it was.
    pub(crate) fn take_count(&mut self, counted: Option<u64>) -> bool {
        let bounded = std::mem::take(&mut self.bounded_text);
        let Some(counted) = counted else { return false };
        let less = bounded.saturating_sub(counted.saturating_add(TEMPLATE_TOKENS));
        self.input -= less;
        less > 0
    }

    /// The body to pass on: the client's own bytes, but for a ceiling that is lower or was not set, and
    /// the usage of a stream, which is asked for.
    pub(crate) fn body(&self, ceiling: u64) -> Bytes {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        self.edits.apply(text, Some(ceiling)).map_or_else(|| self.body.clone(), Bytes::from)
    }

    /// The body to pass on where no ceiling is to be kept.
    pub(crate) fn body_without_ceiling(&self) -> Bytes {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        self.edits.apply(text, None).map_or_else(|| self.body.clone(), Bytes::from)
    }

    /// The body as it came.
    pub(crate) fn into_body(self) -> Bytes {
        self.body
    }

    /// Whether the usage in the answer was asked for by us, and is to be kept from the client.
    pub(crate) const fn hides_usage(&self) -> bool {
        self.hides_usage
    }
}

/// A text whose LLM tokens have not been counted.
#[derive(Debug)]
pub(crate) struct Uncounted {
    model: String,
    body: Bytes,
}

impl Uncounted {
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Its LLM tokens, if the model's tokenizer is known, and they are no more than `most`.
    pub(crate) fn count(&self, most: u64) -> Option<u64> {
        tokens::count(&self.model, std::str::from_utf8(&self.body).ok()?, most)
    }
}

impl Api {
    const fn has_output(self) -> bool {
        !matches!(self, Self::OpenAiEmbeddings | Self::GeminiEmbed)
    }
}

/// The model, of the path or else of the body, and those that the provider may take in its place.
fn models(of_path: Option<String>, members: &Members<'_>) -> Result<Vec<String>, RequestError> {
    let of_body = text(members.find("model"), "model")?;
    let others = members.find("models").filter(|list| *list != "null");
    let others: Vec<String> = others
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| RequestError::Models)?
        .unwrap_or_default();
    let mut models: Vec<String> = Vec::new();
    for model in of_path.or(of_body).into_iter().chain(others) {
        let model = model.to_lowercase();
        if !models.contains(&model) {
            models.push(model);
        }
    }
    Ok(models)
}

/// The member that holds the input, which says that this is a request of the API at all.
fn check_content(api: Api, members: &Members<'_>) -> Result<(), RequestError> {
    let (field, is_list) = match api {
        Api::OpenAiChat | Api::AnthropicMessages => ("messages", true),
        Api::GeminiGenerate | Api::GeminiStream => ("contents", true),
        Api::OpenAiCompletions => ("prompt", false),
        Api::OpenAiEmbeddings => ("input", false),
        Api::GeminiEmbed => ("content", false),
        // A stored prompt may be all that it has.
        Api::OpenAiResponses if members.is_empty() => ("input", false),
        Api::OpenAiResponses => return Ok(()),
    };
    match members.find(field) {
        Some(value) if value.starts_with('[') || !is_list => Ok(()),
        _ => Err(RequestError::Content { field, is_list }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn read(api: Api, body: &str) -> Result<LlmRequest, RequestError> {
        LlmRequest::parse(api, None, &Bytes::from(body.to_owned()), &Settings::default())
    }

    pub(super) fn chat(body: &str) -> LlmRequest {
        read(Api::OpenAiChat, body).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    #[test]
    fn the_most_that_can_be_used_is_the_bytes_and_the_ceiling_of_every_choice() {
        for (body, output) in [
            (r#"{"messages":[]}"#, 4_096),
            (r#"{"messages":[],"max_tokens":50}"#, 50),
            (r#"{"messages":[],"max_tokens":50,"max_completion_tokens":70}"#, 70),
            (r#"{"messages":[],"max_tokens":90,"max_completion_tokens":70}"#, 90),
            (r#"{"messages":[],"max_tokens":50,"n":3}"#, 150),
            (r#"{"messages":[],"max_tokens":null}"#, 4_096),
        ] {
            let request = chat(body);
            assert_eq!(request.input(), body.len() as u64);
            assert_eq!(request.output(request.ceiling()), output, "{body}");
        }
        let most = format!(r#"{{"messages":[],"max_tokens":{},"n":128}}"#, u64::MAX);
        assert_eq!(chat(&most).output(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_model_is_one_however_it_is_spelt() {
        assert_eq!(chat(r#"{"messages":[],"model":"GPT-5"}"#).model(), Some("gpt-5"));
        assert_eq!(chat(r#"{"messages":[]}"#).model(), None);
    }

    #[test]
    fn models_that_may_be_taken_instead_are_told_and_no_tokenizer_is_theirs() {
        let text = "the tide comes in ".repeat(50);
        let body = format!(
            r#"{{"model":"GPT-5","models":["gpt-5","x/Y"],"messages":[{{"content":"{text}"}}]}}"#
        );
        let request = chat(&body);
        assert_eq!(request.models(), ["gpt-5", "x/y"]);
        assert!(request.uncounted().is_none());
        assert_eq!(chat(r#"{"messages":[],"models":["a","b"]}"#).model(), Some("a"));
        assert!(chat(r#"{"messages":[],"models":null}"#).models().is_empty());
    }

    #[test]
    fn the_input_is_counted_where_a_tokenizer_is_known() {
        let text = "the tide comes in and the tide goes out ".repeat(50);
        let body = |model: &str| {
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]}}"#)
        };
        let mut request = chat(&body("gpt-5"));
        assert_eq!(request.input(), body("gpt-5").len() as u64);
        assert_eq!(request.least(0, 400, false), (TEMPLATE_TOKENS, 400));
        assert_eq!(request.least(0, 400, true), (TEMPLATE_TOKENS, ceiling::LEAST_OUTPUT));
        let count =
            |request: &LlmRequest| request.uncounted().and_then(|text| text.count(u64::MAX));
        let tokens = count(&request);
        assert!(request.take_count(tokens));
        let counted = request.input();
        assert!((450..600).contains(&counted), "{counted}");
        assert_eq!(request.least(0, 400, false), (counted, 400));
        assert!(request.uncounted().is_none() && !request.take_count(None), "once");
        let mut request = chat(&body("llama-4"));
        let tokens = count(&request);
        assert!(!request.take_count(tokens));
        assert_eq!(request.input(), body("llama-4").len() as u64);
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        for (api, body, reason) in [
            (Api::OpenAiChat, "", "The body is not JSON"),
            (Api::OpenAiChat, "[]", "`messages` must be a list."),
            (Api::OpenAiChat, r#"{"messages":"hi"}"#, "`messages` must be a list."),
            (Api::AnthropicMessages, "{}", "`messages` must be a list."),
            (Api::GeminiStream, r#"{"contents":{}}"#, "`contents` must be a list."),
            (Api::OpenAiResponses, "{}", "`input` must be there."),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":-1}"#,
                "`max_tokens` must be a whole number, not -1.",
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":1.5}"#,
                "`max_tokens` must be a whole number, not 1.5.",
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":"9"}"#,
                "`max_tokens` must be a whole number, not \"9\".",
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"n":0}"#,
                "`n` must be a whole number from 1 to 128, not 0.",
            ),
            (Api::OpenAiChat, r#"{"messages":[],"model":5}"#, "`model` must be a string."),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"models":"gpt-5"}"#,
                "`models` must be a list of strings.",
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"service_tier":5}"#,
                "`service_tier` must be a string.",
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"service_tier":"flex","serviceTier":"priority"}"#,
                "\"serviceTier\" is there twice",
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"stream":true,"stream_options":7}"#,
                "`stream_options` must be an object.",
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":[]}"#,
                "`generationConfig` must be an object.",
            ),
            // One reader takes the first, another the last: only one of them would be charged.
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":9,"max\u005ftokens":90000}"#,
                "\"max_tokens\" is there twice",
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#,
                "\"max_output_tokens\" is there twice",
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}"#,
                "\"include_usage\" is there twice",
            ),
        ] {
            let error = read(api, body).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{body}: {error}");
        }
    }
}
