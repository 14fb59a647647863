//! [`Parts`]: how much output a request may have, and how to lower that.

use serde_json::value::RawValue;

use super::RequestError;
use super::error::MAX_CHOICES;
use super::fields::{number, one_of, positive, whole};
use crate::llm::edits::Edits;
use crate::llm::members::Members;
use crate::llm::{Api, Settings};

/// The fewest output tokens that a ceiling is lowered to; some APIs take no fewer.
pub(super) const LEAST_OUTPUT: u64 = 16;

/// Where Gemini has the ceiling, in its two spellings.
const GENERATION_CONFIG: [&str; 2] = ["generationConfig", "generation_config"];

/// A request's members, and what is to be changed of it.
pub(super) struct Parts<'a> {
    pub(super) text: &'a str,
    pub(super) members: &'a Members<'a>,
    pub(super) edits: Edits,
}

impl<'a> Parts<'a> {
    /// How many answers are asked for.
    pub(super) fn choices(&self, api: Api) -> Result<u64, RequestError> {
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
    pub(super) fn ceiling(
        &mut self,
        api: Api,
        settings: &Settings,
    ) -> Result<Option<u64>, RequestError> {
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

    pub(super) fn generation_config(&self) -> Result<Option<(&'a str, Members<'a>)>, RequestError> {
        let Some((place, _)) = one_of(self.members, GENERATION_CONFIG)? else { return Ok(None) };
        if place == "null" {
            return Ok(None);
        }
        if !place.starts_with('{') {
            return Err(RequestError::GenerationConfig);
        }
        Ok(Some((place, Members::read(place)?)))
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
pub(super) fn least_output(api: Api, members: &Members<'_>) -> Result<u64, RequestError> {
    let thinking = members.find("thinking").filter(|_| api == Api::AnthropicMessages);
    let Some(thinking) = thinking.filter(|thinking| thinking.starts_with('{')) else {
        return Ok(LEAST_OUTPUT);
    };
    let budget = number(&Members::read(thinking)?, "budget_tokens")?.unwrap_or(0);
    Ok(budget.saturating_add(LEAST_OUTPUT))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::LlmRequest;
    use super::super::tests::{chat, read};
    use super::*;

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
