//! [`LlmRequest`]: a request to an LLM, as far as its cost goes.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::edits::Edits;
use super::input::Media;
use super::members::{Members, Twice};
use super::{Api, Settings, Unseen, tokens};

/// A request to an LLM: what it can use at most, and how to lower that.
#[derive(Debug)]
pub(crate) struct LlmRequest {
    api: Api,
    body: Bytes,
    /// In lower case, so that no spelling is another model.
    model: Option<String>,
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

/// The most choices a request may ask for.
const MAX_CHOICES: u64 = 128;

/// The fewest output tokens that a ceiling is lowered to; some APIs take no fewer.
const LEAST_OUTPUT: u64 = 16;

/// Where Gemini has the ceiling, in its two spellings.
const GENERATION_CONFIG: [&str; 2] = ["generationConfig", "generation_config"];

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
        let body_model = members.find("model").map(string).transpose()?;
        let model = model.or(body_model).map(|model| model.to_lowercase());
        let unseen = Unseen::of(api, model.as_deref(), &members)?;
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
        let input = bounded_text.saturating_add(media.allowed(&settings.allowances));
        let is_text_only = media.is_text_only();
        let edits = parts.edits;
        Ok(Self {
            api,
            body: body.clone(),
            model,
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
        self.model.as_deref()
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

    /// The least input and output that it could do with: counted as hardly anything, and with the ceiling as
    /// low as that may go.
    pub(crate) fn least(&self, ceiling: u64, is_lowering: bool) -> (u64, u64) {
        let counted = self.bounded_text.min(TEMPLATE_TOKENS);
        let ceiling = if is_lowering { self.least_output } else { ceiling };
        (self.input - self.bounded_text + counted, self.output(ceiling))
    }

    /// Its text, where that has been bounded by its bytes only.
    pub(crate) fn uncounted(&self) -> Option<Uncounted> {
        let model = self.model().filter(|_| self.bounded_text > 0)?;
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

    /// Its LLM tokens, if the model's tokenizer is known.
    pub(crate) fn count(&self) -> Option<u64> {
        tokens::count(&self.model, std::str::from_utf8(&self.body).ok()?)
    }
}

impl Api {
    const fn has_output(self) -> bool {
        !matches!(self, Self::OpenAiEmbeddings | Self::GeminiEmbed)
    }
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

/// How many prompts a completion has, each of which is answered: a list is one of tokens, or one of prompts.
fn prompts(members: &Members<'_>) -> u64 {
    let list = members.find("prompt").map(serde_json::from_str::<Vec<&RawValue>>);
    let Some(Ok(list)) = list else { return 1 };
    match list.first().map(|first| first.get()) {
        Some(first) if first.starts_with(['"', '[']) => list.len() as u64,
        _ => 1,
    }
}

/// Anthropic takes no ceiling that is not above what may be thought.
fn least_output(api: Api, members: &Members<'_>) -> Result<u64, RequestError> {
    let thinking = members.find("thinking").filter(|_| api == Api::AnthropicMessages);
    let Some(thinking) = thinking.filter(|thinking| thinking.starts_with('{')) else {
        return Ok(LEAST_OUTPUT);
    };
    let budget = number(&Members::read(thinking)?, "budget_tokens")?.unwrap_or(0);
    Ok(budget.saturating_add(LEAST_OUTPUT))
}

/// A request's members, and what is to be changed of it.
struct Parts<'a> {
    text: &'a str,
    members: &'a Members<'a>,
    edits: Edits,
}

impl<'a> Parts<'a> {
    /// How many answers are asked for.
    fn choices(&self, api: Api) -> Result<u64, RequestError> {
        let choices = match api {
            Api::OpenAiChat => number(self.members, "n")?,
            Api::OpenAiCompletions => {
                let best = number(self.members, "best_of")?;
                number(self.members, "n")?.max(best)
            }
            Api::GeminiGenerate | Api::GeminiStream => match self.generation_config()? {
                Some((_, config)) => one_of(&config, ["candidateCount", "candidate_count"])?
                    .map(|(value, field)| whole(value, field))
                    .transpose()?
                    .flatten(),
                None => None,
            },
            _ => None,
        };
        let choices = choices.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&choices) {
            return Err(RequestError::Number { field: "n", found: choices.to_string() });
        }
        let prompts = if api == Api::OpenAiCompletions { prompts(self.members) } else { 1 };
        Ok(choices.saturating_mul(prompts))
    }

    /// The ceiling that is set, if one is; and notes how to lower or set it.
    fn ceiling(&mut self, api: Api, settings: &Settings) -> Result<Option<u64>, RequestError> {
        let fields: &[&'static str] = match api {
            Api::OpenAiChat => &["max_completion_tokens", "max_tokens"],
            Api::OpenAiCompletions | Api::AnthropicMessages => &["max_tokens"],
            Api::OpenAiResponses => &["max_output_tokens"],
            Api::GeminiGenerate | Api::GeminiStream => return self.gemini_ceiling(),
            Api::OpenAiEmbeddings | Api::GeminiEmbed => return Ok(None),
        };
        // Where both are there, servers differ in which one they take.
        let mut highest = None;
        for field in fields {
            let Some(value) = self.members.find(field) else { continue };
            let set = positive(value, field)?;
            if set.is_some() {
                self.edits.lower(self.text, value, set);
                highest = highest.max(set);
            }
        }
        // OpenAI's own servers read both, and want no two; others read nothing but `max_tokens`.
        let own = if api == Api::OpenAiChat { settings.max_output_field } else { fields[0] };
        let found = self.members.find(own);
        let is_set = found.is_some_and(|value| value != "null");
        if !is_set && (highest.is_none() || own == "max_tokens") {
            if let Some(null) = found {
                self.edits.lower(self.text, null, None);
            } else {
                let comma = if self.members.is_empty() { "" } else { "," };
                self.edits.insert_ceiling(self.text, self.text, (format!("\"{own}\":"), comma));
            }
        }
        Ok(highest)
    }

    /// Gemini's is in an object of its own, and either may be spelt in two ways.
    fn gemini_ceiling(&mut self) -> Result<Option<u64>, RequestError> {
        let Some((place, config)) = self.generation_config()? else {
            let begin = "{\"maxOutputTokens\":";
            if let Some((null, _)) = one_of(self.members, GENERATION_CONFIG)? {
                self.edits.replace_with_ceiling(self.text, null, (begin.to_owned(), "}"));
                return Ok(None);
            }
            let end = if self.members.is_empty() { "}" } else { "}," };
            let begin = format!("\"generationConfig\":{begin}");
            self.edits.insert_ceiling(self.text, self.text, (begin, end));
            return Ok(None);
        };
        if let Some((value, field)) = one_of(&config, ["maxOutputTokens", "max_output_tokens"])? {
            let set = positive(value, field)?;
            self.edits.lower(self.text, value, set);
            return Ok(set);
        }
        let comma = if config.is_empty() { "" } else { "," };
        self.edits.insert_ceiling(self.text, place, ("\"maxOutputTokens\":".to_owned(), comma));
        Ok(None)
    }

    fn generation_config(&self) -> Result<Option<(&'a str, Members<'a>)>, RequestError> {
        let Some((place, _)) = one_of(self.members, GENERATION_CONFIG)? else { return Ok(None) };
        if place == "null" {
            return Ok(None);
        }
        if !place.starts_with('{') {
            return Err(RequestError::GenerationConfig);
        }
        Ok(Some((place, Members::read(place)?)))
    }

    /// Asks for the usage at the end of the stream; whether it had not been asked for.
    fn ask_usage(&mut self) -> Result<bool, RequestError> {
        let Some(options) = self.members.find("stream_options") else {
            let asking = r#""stream_options":{"include_usage":true}"#;
            self.edits.insert(self.text, self.text, self.members, asking);
            return Ok(true);
        };
        match options {
            "null" => self.edits.replace(self.text, options, r#"{"include_usage":true}"#),
            object if object.starts_with('{') => {
                let inner = Members::read(object)?;
                match inner.find("include_usage") {
                    Some("true") => return Ok(false),
                    Some(value) => self.edits.replace(self.text, value, "true"),
                    None => self.edits.insert(self.text, object, &inner, r#""include_usage":true"#),
                }
            }
            _ => return Err(RequestError::StreamOptions),
        }
        Ok(true)
    }
}

/// The one of two spellings that is there, with its value. Both are one too many.
fn one_of<'m>(
    members: &Members<'m>,
    spellings: [&'static str; 2],
) -> Result<Option<(&'m str, &'static str)>, RequestError> {
    let mut found = spellings.into_iter().filter_map(|name| Some((members.find(name)?, name)));
    match (found.next(), found.next()) {
        (_, Some((_, name))) => Err(RequestError::Twice(name.to_owned())),
        (first, None) => Ok(first),
    }
}

/// A field that is a whole number, or is not there.
fn number(members: &Members<'_>, field: &'static str) -> Result<Option<u64>, RequestError> {
    members.find(field).map_or(Ok(None), |value| whole(value, field))
}

fn whole(value: &str, field: &'static str) -> Result<Option<u64>, RequestError> {
    let error = |_| RequestError::Number { field, found: value.to_owned() };
    if value == "null" { Ok(None) } else { value.parse().map(Some).map_err(error) }
}

/// A ceiling, if one is set.
fn positive(value: &str, field: &'static str) -> Result<Option<u64>, RequestError> {
    match whole(value, field)? {
        Some(0) => Err(RequestError::Zero(field)),
        set => Ok(set),
    }
}

fn string(value: &str) -> Result<String, RequestError> {
    serde_json::from_str(value).map_err(|_| RequestError::Model)
}

/// Why a body is no request to an LLM.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestError {
    Json(String),
    Content {
        field: &'static str,
        is_list: bool,
    },
    Number {
        field: &'static str,
        found: String,
    },
    /// A ceiling of 0.
    Zero(&'static str),
    Model,
    StreamOptions,
    GenerationConfig,
    Twice(String),
}

impl From<Twice> for RequestError {
    fn from(Twice(name): Twice) -> Self {
        Self::Twice(name)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(reason) => write!(f, "The body is not JSON: {reason}."),
            Self::Content { field, is_list: true } => write!(f, "`{field}` must be a list."),
            Self::Content { field, is_list: false } => write!(f, "`{field}` must be there."),
            Self::Number { field, found } => {
                let most =
                    if *field == "n" { format!(" from 1 to {MAX_CHOICES}") } else { String::new() };
                write!(f, "`{field}` must be a whole number{most}, not {found}.")
            }
            Self::Zero(field) => {
                write!(f, "`{field}` must be 1 or more; some servers take 0 for no limit.")
            }
            Self::Model => f.write_str("`model` must be a string."),
            Self::StreamOptions => f.write_str("`stream_options` must be an object."),
            Self::GenerationConfig => f.write_str("`generationConfig` must be an object."),
            Self::Twice(name) => write!(f, "{name:?} is there twice; which one counts?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: Api, body: &str) -> Result<LlmRequest, RequestError> {
        LlmRequest::parse(api, None, &Bytes::from(body.to_owned()), &Settings::default())
    }

    fn chat(body: &str) -> LlmRequest {
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
    fn the_ceiling_is_lowered_or_set_and_nothing_else_changes() {
        for (api, body, ceiling, changed) in [
            (
                Api::OpenAiChat,
                r#"{ "messages":[], "max_tokens" : 5000,"seed":1.50 }"#,
                70,
                r#"{ "messages":[], "max_tokens" : 70,"seed":1.50 }"#,
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":50,"max_completion_tokens":90}"#,
                70,
                r#"{"messages":[],"max_tokens":50,"max_completion_tokens":70}"#,
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":50}"#,
                50,
                r#"{"messages":[],"max_tokens":50}"#,
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[]}"#,
                70,
                r#"{"max_completion_tokens":70,"messages":[]}"#,
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_tokens":null}"#,
                70,
                r#"{"max_completion_tokens":70,"messages":[],"max_tokens":null}"#,
            ),
            (Api::OpenAiCompletions, r#"{"prompt":"x"}"#, 70, r#"{"max_tokens":70,"prompt":"x"}"#),
            (
                Api::OpenAiResponses,
                r#"{"input":"x","max_output_tokens":900}"#,
                70,
                r#"{"input":"x","max_output_tokens":70}"#,
            ),
            (Api::OpenAiEmbeddings, r#"{"input":"x"}"#, 0, r#"{"input":"x"}"#),
            (
                Api::AnthropicMessages,
                r#"{"max_tokens":900,"messages":[]}"#,
                70,
                r#"{"max_tokens":70,"messages":[]}"#,
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":{"temperature":0.10,"maxOutputTokens":900}}"#,
                70,
                r#"{"contents":[],"generationConfig":{"temperature":0.10,"maxOutputTokens":70}}"#,
            ),
            (
                Api::GeminiStream,
                r#"{"contents":[],"generation_config":{"max_output_tokens":900}}"#,
                70,
                r#"{"contents":[],"generation_config":{"max_output_tokens":70}}"#,
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":{"temperature":0}}"#,
                70,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":70,"temperature":0}}"#,
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[]}"#,
                70,
                r#"{"generationConfig":{"maxOutputTokens":70},"contents":[]}"#,
            ),
        ] {
            assert_eq!(read(api, body).unwrap().body(ceiling), changed, "{body}");
        }
    }

    #[test]
    fn a_ceiling_too_low_to_be_of_use_is_none() {
        let request = chat(r#"{"messages":[],"max_tokens":500,"n":2}"#);
        assert_eq!(request.ceiling_within(1_001), Some(500));
        assert_eq!(request.ceiling_within(33), Some(16));
        assert_eq!(request.ceiling_within(31), None);
        let few = chat(r#"{"messages":[],"max_tokens":3}"#);
        assert_eq!((few.ceiling_within(3), few.ceiling_within(2)), (Some(3), None));
        let thinks = r#"{"messages":[],"max_tokens":3000,"thinking":{"type":"enabled","budget_tokens":1024}}"#;
        let thinks = read(Api::AnthropicMessages, thinks).unwrap();
        assert_eq!(
            (thinks.ceiling_within(1_040), thinks.ceiling_within(1_039)),
            (Some(1_040), None)
        );
    }

    #[test]
    fn several_candidates_are_choices() {
        let body =
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":100,"candidateCount":3}}"#;
        assert_eq!(read(Api::GeminiGenerate, body).unwrap().output(100), 300);
        for (body, output) in [
            (r#"{"prompt":"x","n":2,"best_of":5}"#, 50),
            (r#"{"prompt":["x","y","z"],"n":2}"#, 60),
            (r#"{"prompt":[[1,2],[3]]}"#, 20),
            (r#"{"prompt":[1,2,3]}"#, 10),
            (r#"{"prompt":[]}"#, 10),
        ] {
            assert_eq!(read(Api::OpenAiCompletions, body).unwrap().output(10), output, "{body}");
        }
    }

    #[test]
    fn a_model_is_one_however_it_is_spelt() {
        assert_eq!(chat(r#"{"messages":[],"model":"GPT-5"}"#).model(), Some("gpt-5"));
        assert_eq!(chat(r#"{"messages":[]}"#).model(), None);
    }

    #[test]
    fn the_input_is_counted_where_a_tokenizer_is_known() {
        let text = "the tide comes in and the tide goes out ".repeat(50);
        let body = |model: &str| {
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]}}"#)
        };
        let mut request = chat(&body("gpt-5"));
        assert_eq!(request.input(), body("gpt-5").len() as u64);
        assert_eq!(request.least(400, false), (TEMPLATE_TOKENS, 400));
        assert_eq!(request.least(400, true), (TEMPLATE_TOKENS, LEAST_OUTPUT));
        let count = |request: &LlmRequest| request.uncounted().and_then(|text| text.count());
        let tokens = count(&request);
        assert!(request.take_count(tokens));
        let counted = request.input();
        assert!((450..600).contains(&counted), "{counted}");
        assert_eq!(request.least(400, false), (counted, 400));
        assert!(request.uncounted().is_none() && !request.take_count(None), "once");
        let mut request = chat(&body("llama-4"));
        let tokens = count(&request);
        assert!(!request.take_count(tokens));
        assert_eq!(request.input(), body("llama-4").len() as u64);
    }

    #[test]
    fn the_usage_of_a_stream_is_asked_for_where_the_client_did_not() {
        let body = |request: &LlmRequest| request.body(request.ceiling());
        let plain = r#"{"messages": [], "stream": false,"max_tokens":1}"#;
        assert_eq!(body(&chat(plain)), plain, "byte for byte");
        let asked = r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"max_tokens":1}"#;
        let request = chat(asked);
        assert_eq!((body(&request).as_ref(), request.hides_usage()), (asked.as_bytes(), false));
        for (quiet, asking) in [
            (
                r#" {"messages":[],"stream":true,"max_tokens":1}"#,
                r#" {"stream_options":{"include_usage":true},"messages":[],"stream":true,"max_tokens":1}"#,
            ),
            (
                r#"{"stream_options" : null, "stream":true,"max_tokens":1,"messages":[{"seed": 1.5000000000000000001}]}"#,
                r#"{"stream_options" : {"include_usage":true}, "stream":true,"max_tokens":1,"messages":[{"seed": 1.5000000000000000001}]}"#,
            ),
            (
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{ }}"#,
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{"include_usage":true }}"#,
            ),
            (
                r#"{"z":"{","messages":[],"stream":true,"max_tokens":1,"stream_options":{"x":1}}"#,
                r#"{"z":"{","messages":[],"stream":true,"max_tokens":1,"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{"include\u005fusage": false ,"x":1}}"#,
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{"include\u005fusage": true ,"x":1}}"#,
            ),
        ] {
            let request = chat(quiet);
            assert!(request.hides_usage());
            assert_eq!(body(&request), asking, "nothing else has changed");
        }
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

    #[test]
    fn a_ceiling_that_the_upstream_may_not_read_is_none() {
        let settings = Settings { max_output_field: "max_tokens", ..Settings::default() };
        for (body, ceiling, changed) in [
            (
                r#"{"messages":[],"max_completion_tokens":9}"#,
                9,
                r#"{"max_tokens":9,"messages":[],"max_completion_tokens":9}"#,
            ),
            (
                r#"{"messages":[],"max_completion_tokens":9,"max_tokens":null}"#,
                9,
                r#"{"messages":[],"max_completion_tokens":9,"max_tokens":9}"#,
            ),
            (
                r#"{"messages":[],"max_completion_tokens":9,"max_tokens":20}"#,
                20,
                r#"{"messages":[],"max_completion_tokens":9,"max_tokens":20}"#,
            ),
            (r#"{"messages":[]}"#, 4_096, r#"{"max_tokens":4096,"messages":[]}"#),
        ] {
            let bytes = Bytes::from(body.to_owned());
            let request = LlmRequest::parse(Api::OpenAiChat, None, &bytes, &settings).unwrap();
            assert_eq!(request.ceiling(), ceiling, "{body}");
            assert_eq!(request.body(ceiling), changed, "{body}");
        }
        let lowered = Bytes::from(r#"{"messages":[],"max_completion_tokens":90}"#);
        let request = LlmRequest::parse(Api::OpenAiChat, None, &lowered, &settings).unwrap();
        let changed = r#"{"max_tokens":70,"messages":[],"max_completion_tokens":70}"#;
        assert_eq!(request.body(70), changed);
    }

    #[test]
    fn a_null_is_as_if_it_were_not_there() {
        for (api, body, ceiling, changed) in [
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_completion_tokens":null,"max_tokens":50}"#,
                50,
                r#"{"messages":[],"max_completion_tokens":null,"max_tokens":50}"#,
            ),
            (
                Api::OpenAiChat,
                r#"{"messages":[],"max_completion_tokens":null,"max_tokens":null}"#,
                70,
                r#"{"messages":[],"max_completion_tokens":70,"max_tokens":null}"#,
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":null}"#,
                70,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":70}}"#,
            ),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":null}}"#,
                70,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":70}}"#,
            ),
        ] {
            let request = read(api, body).unwrap_or_else(|error| panic!("{body}: {error}"));
            assert_eq!(request.body(ceiling), changed, "{body}");
        }
    }

    #[test]
    fn a_ceiling_of_0_which_some_take_for_none_at_all_is_refused() {
        for (api, body, field) in [
            (Api::OpenAiChat, r#"{"messages":[],"max_tokens":0}"#, "max_tokens"),
            (Api::OpenAiCompletions, r#"{"prompt":"x","max_tokens":0}"#, "max_tokens"),
            (Api::OpenAiResponses, r#"{"input":"x","max_output_tokens":0}"#, "max_output_tokens"),
            (Api::AnthropicMessages, r#"{"messages":[],"max_tokens":0}"#, "max_tokens"),
            (
                Api::GeminiGenerate,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":0}}"#,
                "maxOutputTokens",
            ),
        ] {
            let error = read(api, body).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{field}` must be 1 or more")), "{error}");
        }
    }
}
