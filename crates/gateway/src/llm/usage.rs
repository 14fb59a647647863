//! [`Told`]: the usage that an answer tells, or a part of a stream.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Api;

/// LLM tokens, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TokenCounts {
    /// All input.
    pub(crate) input: u64,
    /// Of the input, what was in the provider's cache.
    pub(crate) cached_input: u64,
    /// Of the input, what was put into the provider's cache.
    pub(crate) cache_write: u64,
    /// Of that, what stays there for an hour; `None` where that is not told.
    pub(crate) cache_write_1h: Option<u64>,
    /// Of the input, what was heard.
    pub(crate) audio_input: u64,
    /// All output, with reasoning.
    pub(crate) output: u64,
    /// Of the output, sounds and pictures.
    pub(crate) audio_output: u64,
    pub(crate) image_output: u64,
}

impl TokenCounts {
    pub(crate) const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Input that is in no cache, before or after: what was heard of it, at most, and the rest.
    pub(crate) fn uncached_input(&self) -> (u64, u64) {
        let uncached =
            self.input.saturating_sub(self.cached_input).saturating_sub(self.cache_write);
        let heard = self.audio_input.min(uncached);
        (heard, uncached - heard)
    }
}

/// What an answer says of its usage. Later parts of a stream replace what earlier ones said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    input: Input,
    output: Option<u64>,
    /// What of the output is no text.
    shown: Shown,
    /// Whether usage is all that there is in it, as in the last chunk of OpenAI's streams.
    pub(super) alone: bool,
}

/// Input, as far as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Input {
    /// All of it, as most tell it.
    all: Option<u64>,
    /// What is in no cache, as Anthropic tells it.
    uncached: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    cache_write_1h: Option<u64>,
    audio: Option<u64>,
}

impl Input {
    /// What is known after this. Who tells all of it tells it anew; Anthropic repeats a part of it, and what it
    /// leaves out is as it was.
    fn then(self, later: Self) -> Self {
        if later.all.is_some() {
            return later;
        }
        let written = later.cache_write.or(self.cache_write);
        // How long more of it stays is told at the beginning only: as long as the longest.
        let more = written.unwrap_or(0).saturating_sub(self.cache_write.unwrap_or(0));
        let for_long = self.cache_write_1h.map(|long| if long > 0 { long + more } else { 0 });
        Self {
            all: self.all,
            uncached: later.uncached.or(self.uncached),
            cached: later.cached.or(self.cached),
            cache_write: written,
            cache_write_1h: later.cache_write_1h.or(for_long),
            audio: later.audio.or(self.audio),
        }
    }

    fn counts(&self) -> Option<TokenCounts> {
        let (cached, written) = (self.cached.unwrap_or(0), self.cache_write.unwrap_or(0));
        let sum = |uncached: u64| uncached.saturating_add(cached).saturating_add(written);
        Some(TokenCounts {
            input: self.all.or(self.uncached.map(sum))?,
            cached_input: cached,
            cache_write: written,
            cache_write_1h: self.cache_write_1h,
            audio_input: self.audio.unwrap_or(0),
            ..TokenCounts::default()
        })
    }
}

/// Output that is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shown {
    audio: u64,
    image: u64,
}

impl Told {
    /// What a JSON text says: an answer, one event of a stream, or a list of them.
    pub(super) fn read(api: Api, json: &[u8]) -> Option<Self> {
        match api {
            Api::OpenAiChat | Api::OpenAiCompletions | Api::OpenAiEmbeddings => {
                let answer: Chat = serde_json::from_slice(json).ok()?;
                let told = answer.usage?.told(api);
                let alone = answer.choices.is_some_and(|choices| choices.is_empty());
                Some(Self { alone, ..told }.without_output_if(api == Api::OpenAiEmbeddings))
            }
            Api::OpenAiResponses => {
                let answer: Response = serde_json::from_slice(json).ok()?;
                let inner = answer.response.and_then(|response| response.usage);
                answer.usage.or(inner).map(|usage| usage.told(api))
            }
            Api::AnthropicMessages => {
                let answer: Message = serde_json::from_slice(json).ok()?;
                let start = answer.message.and_then(|message| message.usage);
                // What a stream says of its output at its start is not the last word on it.
                let start = || start.map(|usage| Self { output: None, ..usage.told() });
                answer.usage.map(AnthropicUsage::told).or_else(start)
            }
            Api::GeminiGenerate | Api::GeminiStream | Api::GeminiEmbed => {
                let usage = match json.first() {
                    Some(b'[') => {
                        let parts: Vec<Gemini> = serde_json::from_slice(json).ok()?;
                        parts.into_iter().rev().find_map(|part| part.usage)
                    }
                    _ => serde_json::from_slice::<Gemini>(json).ok()?.usage,
                };
                usage.map(|usage| usage.told().without_output_if(api == Api::GeminiEmbed))
            }
        }
    }

    /// The same, where an API has no output that could be told.
    fn without_output_if(self, has_none: bool) -> Self {
        let output = if has_none { self.output.or(Some(0)) } else { self.output };
        Self { output, ..self }
    }

    /// What is known after this.
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            input: self.input.then(later.input),
            output: later.output.or(self.output),
            shown: if later.output.is_some() { later.shown } else { self.shown },
            alone: later.alone,
        }
    }

    /// This and that, of one answer.
    fn and(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.by_field(other, sum)
    }

    /// Of this and that, which tell of the same, what is more.
    fn or_more(self, other: Self) -> Self {
        self.by_field(other, Option::max)
    }

    fn by_field(self, other: Self, of: fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        let (one, two) = (self.input, other.input);
        let input = Input {
            all: of(one.all, two.all),
            uncached: of(one.uncached, two.uncached),
            cached: of(one.cached, two.cached),
            cache_write: of(one.cache_write, two.cache_write),
            cache_write_1h: of(one.cache_write_1h, two.cache_write_1h),
            audio: of(one.audio, two.audio),
        };
        Self { input, output: of(self.output, other.output), ..self }
    }

    /// The tokens, if input and output are both known.
    pub(super) fn counts(&self) -> Option<TokenCounts> {
        let Shown { audio, image } = self.shown;
        let output = self.output?;
        Some(TokenCounts { output, audio_output: audio, image_output: image, ..self.input()? })
    }

    /// The input, if it is known.
    pub(super) fn input(&self) -> Option<TokenCounts> {
        self.input.counts()
    }
}

#[derive(Deserialize)]
struct Chat {
    usage: Option<OpenAiUsage>,
    choices: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct Response {
    usage: Option<OpenAiUsage>,
    response: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    usage: Option<OpenAiUsage>,
}

/// Both of OpenAI's APIs, which name the same things differently. Some servers write both names.
#[derive(Deserialize)]
struct OpenAiUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    total_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Details {
    cached_tokens: Option<u64>,
    /// As OpenRouter tells it.
    cache_write_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// All output, with what was thought. OpenAI tells that within the output, xAI beside it, and Gemini, behind
/// OpenAI's API, in the total alone. A total that fits none of these decides nothing.
fn output_with_reasoning(output: u64, reasoning: Option<u64>, but_input: Option<u64>) -> u64 {
    let sum = output.saturating_add(reasoning.unwrap_or(0));
    match (reasoning, but_input) {
        (Some(reasoning), _) if reasoning > output => sum,
        (Some(_), Some(rest)) if rest == sum => sum,
        (None, Some(rest)) => rest.max(output),
        _ => output,
    }
}

impl OpenAiUsage {
    /// What the names of this API say, or the other's where those are not there. What is not there at all is
    /// not known: it is not none.
    fn told(self, api: Api) -> Told {
        let chat = (self.prompt_tokens, self.completion_tokens, self.prompt_tokens_details);
        let responses = (self.input_tokens, self.output_tokens, self.input_tokens_details);
        let is_responses = api == Api::OpenAiResponses;
        let (own, other) = if is_responses { (responses, chat) } else { (chat, responses) };
        let (input, output, details) = (own.0.or(other.0), own.1.or(other.1), own.2.or(other.2));
        let (chat, responses) = (self.completion_tokens_details, self.output_tokens_details);
        let shown = if is_responses { responses.or(chat) } else { chat.or(responses) };
        let (input, output) = match (input, output, self.total_tokens) {
            (Some(input), None, total) => {
                (Some(input), total.map(|total| total.saturating_sub(input)))
            }
            (None, output, Some(total)) => {
                let output = output.unwrap_or(0);
                (Some(total.saturating_sub(output)), Some(output))
            }
            (Some(input), Some(output), total) => {
                let reasoning = shown.as_ref().and_then(|shown| shown.reasoning_tokens);
                let rest = total.map(|total| total.saturating_sub(input));
                (Some(input), Some(output_with_reasoning(output, reasoning, rest)))
            }
            (None, output, None) => (None, output),
        };
        let details = details.unwrap_or_default();
        let input = Input {
            all: input,
            cached: details.cached_tokens,
            cache_write: details.cache_write_tokens,
            audio: details.audio_tokens,
            ..Input::default()
        };
        let shown = shown.unwrap_or_default();
        let (audio, image) = (shown.audio_tokens.unwrap_or(0), shown.image_tokens.unwrap_or(0));
        Told { input, output, shown: Shown { audio, image }, alone: false }
    }
}

#[derive(Deserialize)]
struct Message {
    usage: Option<AnthropicUsage>,
    message: Option<MessageStart>,
}

#[derive(Deserialize)]
struct MessageStart {
    usage: Option<AnthropicUsage>,
}

/// In a `message_delta`, only some of it may be there.
#[derive(Deserialize)]
struct AnthropicUsage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    /// The steps that it took, those that are not in the sums above too: a conversation summed up, advice asked of
    /// another model.
    iterations: Option<Vec<Self>>,
}

#[derive(Deserialize)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

impl AnthropicUsage {
    fn told(self) -> Told {
        let input = Input {
            uncached: self.input_tokens,
            cached: self.cache_read_input_tokens,
            cache_write: self.cache_creation_input_tokens,
            cache_write_1h: self.cache_creation.and_then(|all| all.ephemeral_1h_input_tokens),
            ..Input::default()
        };
        let told = Told { input, output: self.output_tokens, ..Told::default() };
        let steps = self.iterations.unwrap_or_default().into_iter().map(Self::told);
        steps.reduce(Told::and).map_or(told, |all| told.or_more(all))
    }
}

#[derive(Deserialize)]
struct Gemini {
    #[serde(rename = "usageMetadata", alias = "usage_metadata")]
    usage: Option<GeminiUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiUsage {
    prompt_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    total_token_count: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Vec<GeminiKind>,
    #[serde(default)]
    candidates_tokens_details: Vec<GeminiKind>,
}

/// The tokens of one kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiKind {
    modality: Option<String>,
    token_count: Option<u64>,
}

impl GeminiKind {
    fn count(all: &[Self], modality: &str) -> u64 {
        let of_kind = all.iter().filter(|kind| kind.modality.as_deref() == Some(modality));
        of_kind.filter_map(|kind| kind.token_count).fold(0, u64::saturating_add)
    }
}

impl GeminiUsage {
    /// Thoughts come on top of what the candidates say. What is not there is not known, unless the total
    /// tells.
    fn told(self) -> Told {
        let tools = self.tool_use_prompt_token_count.unwrap_or(0);
        let input = self.prompt_token_count.map(|prompt| prompt.saturating_add(tools));
        let rest = self.total_token_count.zip(input);
        let rest = rest.map(|(total, input)| total.saturating_sub(input));
        let candidates = self.candidates_token_count;
        let said =
            candidates.map(|said| said.saturating_add(self.thoughts_token_count.unwrap_or(0)));
        let cached = self.cached_content_token_count;
        let audio = Some(GeminiKind::count(&self.prompt_tokens_details, "AUDIO"));
        let input = Input { all: input, cached, audio, ..Input::default() };
        let kind = |modality| GeminiKind::count(&self.candidates_tokens_details, modality);
        let shown = Shown { audio: kind("AUDIO"), image: kind("IMAGE") };
        Told { input, output: rest.max(said), shown, alone: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(api: Api, json: &str) -> Option<(u64, u64, u64, u64)> {
        let counts = Told::read(api, json.as_bytes())?.counts()?;
        Some((counts.input, counts.cached_input, counts.cache_write, counts.output))
    }

    #[test]
    fn usage_is_read_where_each_api_has_it() {
        for (api, json, expected) in [
            (
                Api::OpenAiChat,
                r#"{"choices":[{}],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":3}}}"#,
                (9, 4, 0, 7),
            ),
            (Api::OpenAiChat, r#"{"usage":{"total_tokens":123}}"#, (123, 0, 0, 0)),
            (
                Api::OpenAiEmbeddings,
                r#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
                (8, 0, 0, 0),
            ),
            (
                Api::OpenAiResponses,
                r#"{"id":"r","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":16}}"#,
                (9, 4, 0, 7),
            ),
            (
                Api::OpenAiResponses,
                r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":7}}}"#,
                (9, 0, 0, 7),
            ),
            // Some servers write both spellings, and what is of the other API is as it happens to be.
            (
                Api::OpenAiChat,
                r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16,"input_tokens":0,"output_tokens":0,"input_tokens_details":null,"prompt_tokens_details":{"cached_tokens":4}}}"#,
                (9, 4, 0, 7),
            ),
            (
                Api::OpenAiResponses,
                r#"{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":16,"input_tokens":9,"output_tokens":7,"input_tokens_details":{"cached_tokens":4},"prompt_tokens_details":{"cached_tokens":0}}}"#,
                (9, 4, 0, 7),
            ),
            (Api::OpenAiChat, r#"{"usage":{"input_tokens":9,"output_tokens":7}}"#, (9, 0, 0, 7)),
            (
                Api::AnthropicMessages,
                r#"{"usage":{"input_tokens":9,"cache_creation_input_tokens":100,"cache_read_input_tokens":50,"output_tokens":7}}"#,
                (159, 50, 100, 7),
            ),
            (
                Api::GeminiGenerate,
                r#"{"candidates":[],"usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4,"candidatesTokenCount":7,"thoughtsTokenCount":30,"totalTokenCount":46}}"#,
                (9, 4, 0, 37),
            ),
            (
                Api::GeminiGenerate,
                r#"{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":7,"totalTokenCount":46}}"#,
                (9, 0, 0, 37),
            ),
            (
                Api::GeminiGenerate,
                r#"{"promptFeedback":{},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#,
                (9, 0, 0, 0),
            ),
            (Api::GeminiEmbed, r#"{"usageMetadata":{"promptTokenCount":9}}"#, (9, 0, 0, 0)),
            (
                Api::GeminiStream,
                r#"[{"usageMetadata":{"promptTokenCount":9}},{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":7}},{}]"#,
                (9, 0, 0, 7),
            ),
        ] {
            assert_eq!(counts(api, json), Some(expected), "{json}");
        }
        for (api, json) in [
            (Api::OpenAiChat, r#"{"usage":{}}"#),
            (Api::OpenAiChat, r#"{"usage":{"prompt_tokens":9}}"#),
            (Api::OpenAiResponses, r#"{"usage":{"output_tokens":7}}"#),
            (Api::GeminiGenerate, r#"{"usageMetadata":{}}"#),
            (Api::GeminiGenerate, r#"{"usageMetadata":{"totalTokenCount":46}}"#),
            (Api::GeminiGenerate, r#"{"usageMetadata":{"promptTokenCount":9}}"#),
            (Api::GeminiGenerate, r#"{"usageMetadata":{"candidatesTokenCount":7}}"#),
        ] {
            assert_eq!(counts(api, json), None, "what is hidden is not none: {json}");
        }
        for none in ["{}", r#"{"usage":null}"#, "[DONE]", "", r#"{"usage":5}"#] {
            assert_eq!(Told::read(Api::OpenAiChat, none.as_bytes()), None, "{none}");
            assert_eq!(Told::read(Api::OpenAiResponses, none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn what_has_a_price_of_its_own_is_told_apart() {
        let counts = |api, json: &str| Told::read(api, json.as_bytes()).unwrap().counts().unwrap();
        let chat = counts(
            Api::OpenAiChat,
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":{"audio_tokens":4},"completion_tokens_details":{"audio_tokens":5,"image_tokens":1}}}"#,
        );
        assert_eq!((chat.audio_input, chat.audio_output, chat.image_output), (4, 5, 1));
        assert_eq!(chat.uncached_input(), (4, 5));
        let message = counts(
            Api::AnthropicMessages,
            r#"{"usage":{"input_tokens":1,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":40,"ephemeral_1h_input_tokens":60},"output_tokens":7}}"#,
        );
        assert_eq!((message.cache_write, message.cache_write_1h), (100, Some(60)));
        let gemini = counts(
            Api::GeminiGenerate,
            r#"{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":2},{"modality":"AUDIO","tokenCount":7}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":6}]}}"#,
        );
        assert_eq!((gemini.audio_input, gemini.audio_output, gemini.image_output), (7, 0, 6));
    }

    #[test]
    fn reasoning_is_output_whether_it_is_told_within_it_or_beside_it() {
        for (usage, output) in [
            // Within, as OpenAI tells it.
            (
                r#""prompt_tokens":9,"completion_tokens":7,"total_tokens":16,"completion_tokens_details":{"reasoning_tokens":3}"#,
                7,
            ),
            // Beside, as xAI tells it.
            (
                r#""prompt_tokens":9,"completion_tokens":7,"total_tokens":316,"completion_tokens_details":{"reasoning_tokens":300}"#,
                307,
            ),
            (
                r#""prompt_tokens":9,"completion_tokens":7,"total_tokens":19,"completion_tokens_details":{"reasoning_tokens":3}"#,
                10,
            ),
            // More than all of the output is not within it, and nothing else says how much there is.
            (
                r#""prompt_tokens":9,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":300}"#,
                307,
            ),
            // In the total only, as Gemini tells it behind OpenAI's API.
            (r#""prompt_tokens":20,"completion_tokens":198,"total_tokens":623"#, 603),
            // A total that fits neither is another server's own business.
            (
                r#""prompt_tokens":9,"completion_tokens":7,"total_tokens":5000,"completion_tokens_details":{"reasoning_tokens":3}"#,
                7,
            ),
            (r#""prompt_tokens":9,"completion_tokens":7,"total_tokens":0"#, 7),
        ] {
            let chat = format!(r#"{{"usage":{{{usage}}}}}"#);
            let found = |api, json: &str| counts(api, json).unwrap().3;
            assert_eq!(found(Api::OpenAiChat, &chat), output, "{chat}");
            let response = chat
                .replace("prompt_tokens", "input_tokens")
                .replace("completion_tokens", "output_tokens");
            assert_eq!(found(Api::OpenAiResponses, &response), output, "{response}");
        }
    }

    #[test]
    fn what_each_step_of_an_answer_has_used_is_summed() {
        let read = |json: &str| Told::read(Api::AnthropicMessages, json.as_bytes()).unwrap();
        // At its top it has the steps that have answered, and not those that have summed up or advised.
        let usage = r#""usage":{"input_tokens":23000,"cache_read_input_tokens":0,"output_tokens":1000,"iterations":[{"type":"compaction","input_tokens":180000,"cache_creation_input_tokens":70,"cache_creation":{"ephemeral_1h_input_tokens":70},"output_tokens":3500},{"type":"message","input_tokens":23000,"output_tokens":1000}]}"#;
        let whole = read(&format!("{{{usage}}}"));
        let start = read(
            r#"{"type":"message_start","message":{"usage":{"input_tokens":180000,"output_tokens":1}}}"#,
        );
        let end = read(&format!(r#"{{"type":"message_delta",{usage}}}"#));
        for told in [whole, start.then(end)] {
            let counts = told.counts().unwrap();
            assert_eq!((counts.input, counts.output), (203_070, 4_500));
            assert_eq!((counts.cache_write, counts.cache_write_1h), (70, Some(70)));
        }
        let none = r#"{"usage":{"input_tokens":9,"output_tokens":7,"iterations":null}}"#;
        assert_eq!(read(none).counts().unwrap().total(), 16);
        let less =
            r#"{"usage":{"input_tokens":9,"output_tokens":7,"iterations":[{"output_tokens":7}]}}"#;
        assert_eq!(read(less).counts().unwrap().total(), 16, "never less than it says at the top");
    }

    #[test]
    fn the_last_chunk_of_a_stream_is_told_from_others() {
        let alone = |json: &str| Told::read(Api::OpenAiChat, json.as_bytes()).unwrap().alone;
        assert!(alone(r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#));
        assert!(alone(
            r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"input_tokens":0,"output_tokens":0}}"#
        ));
        assert!(!alone(r#"{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#));
        assert!(!alone(r#"{"usage":{"prompt_tokens":5,"completion_tokens":7}}"#));
    }

    #[test]
    fn what_a_stream_says_later_replaces_what_it_said() {
        let read = |json: &str| Told::read(Api::AnthropicMessages, json.as_bytes()).unwrap();
        let start = read(
            r#"{"type":"message_start","message":{"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}"#,
        );
        assert_eq!((start.counts(), start.input().unwrap().input), (None, 30));
        let told = start.then(read(r#"{"type":"message_delta","usage":{"output_tokens":15}}"#));
        let counts = told.counts().unwrap();
        assert_eq!((counts.input, counts.cached_input, counts.output), (30, 5, 15), "not 16");
        let told = told.then(read(
            r#"{"type":"message_delta","usage":{"input_tokens":40,"output_tokens":20}}"#,
        ));
        let counts = told.counts().unwrap();
        assert_eq!((counts.input, counts.cached_input, counts.output), (45, 5, 20));
    }

    #[test]
    fn what_a_stream_repeats_of_its_input_takes_nothing_away_from_the_rest() {
        let read = |json: &str| Told::read(Api::AnthropicMessages, json.as_bytes()).unwrap();
        let start = read(
            r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":40,"ephemeral_1h_input_tokens":60},"cache_read_input_tokens":5,"output_tokens":1}}}"#,
        );
        // As the API does: without how long it stays.
        let repeated = |written: u64| {
            read(&format!(
                r#"{{"type":"message_delta","usage":{{"input_tokens":9,"cache_creation_input_tokens":{written},"cache_read_input_tokens":5,"output_tokens":15}}}}"#
            ))
        };
        for (written, for_long) in [(100, 60), (130, 90)] {
            let counts = start.then(repeated(written)).counts().unwrap();
            let found = (counts.input, counts.cached_input, counts.cache_write, counts.output);
            assert_eq!(found, (14 + written, 5, written, 15));
            assert_eq!(counts.cache_write_1h, Some(for_long), "what is more may stay as long");
        }
        let usual = read(
            r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":0},"output_tokens":1}}}"#,
        );
        assert_eq!(usual.then(repeated(130)).counts().unwrap().cache_write_1h, Some(0));
        let untold = repeated(100).counts().unwrap();
        assert_eq!((untold.input, untold.cache_write_1h), (114, None));
    }
}
