//! [`Unseen`]: output that is billed, and does not pass.

use super::members::{Members, Twice};
use super::{Api, Terms};

/// What of an answer's output is billed, and may not be seen to pass, so that what has passed says too little of
/// an answer that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unseen {
    Nothing,
    /// What the model thinks, which is not told, or in other words; and what it does not say in words.
    Thoughts,
    /// All that is produced after the connection has ended: it can be asked for later.
    Rest,
}

impl Unseen {
    pub(super) fn of(api: Api, models: &[String], members: &Members<'_>) -> Result<Self, Twice> {
        let thinks = match api {
            Api::OpenAiResponses if members.find("background") == Some("true") => {
                return Ok(Self::Rest);
            }
            Api::OpenAiChat | Api::OpenAiCompletions | Api::OpenAiResponses => {
                hides_thoughts(members) || any_thinks_unseen(models)
            }
            Api::AnthropicMessages => match members.find("thinking") {
                Some(thinking) if thinking.starts_with('{') => {
                    Members::read(thinking)?.find("type") != Some("\"disabled\"")
                }
                _ => false,
            },
            // What it has thought it tells with each part that it says, but not before the first.
            Api::GeminiGenerate | Api::GeminiStream => any_thinks_unseen(models),
            Api::OpenAiEmbeddings | Api::GeminiEmbed => false,
        };
        Ok(if thinks { Self::Thoughts } else { Self::Nothing })
    }

    /// The same, where the answer may hold sounds and pictures.
    pub(super) fn or_of(self, terms: &Terms) -> Self {
        let is_shown = terms.audio_output || terms.image_output;
        if is_shown && self == Self::Nothing { Self::Thoughts } else { self }
    }
}

/// Whether a request has a say in how thoughts are shown, and so may have them left out.
fn hides_thoughts(members: &Members<'_>) -> bool {
    ["reasoning", "include_reasoning", "reasoning_format"]
        .iter()
        .any(|name| members.find(name).is_some_and(|value| value != "null"))
}

/// Models that think nothing, or show all that they think, as those do whose weights are open. By how their
/// names begin, without a vendor's before them.
const OPEN_MINDED: [&str; 44] = [
    "gpt-3.5",
    "gpt-4",
    "gpt-oss",
    "chatgpt-4o",
    "davinci",
    "babbage",
    "claude-instant",
    "claude-2",
    "claude-3-haiku",
    "claude-3-sonnet",
    "claude-3-opus",
    "claude-3-5",
    "claude-3.5",
    "gemini-1",
    "gemini-2.0",
    "gemma",
    "llama",
    "meta-llama",
    "codellama",
    "tinyllama",
    "mistral",
    "mixtral",
    "ministral",
    "codestral",
    "devstral",
    "magistral",
    "pixtral",
    "open-mi",
    "qwen",
    "qwq",
    "deepseek",
    "kimi",
    "glm",
    "phi",
    "olmo",
    "granite",
    "hermes",
    "nemotron",
    "smollm",
    "command",
    "falcon",
    "starcoder",
    "vicuna",
    "yi-",
];

/// Whether one of the models that may serve a call may do so, or none is named.
fn any_thinks_unseen(models: &[String]) -> bool {
    models.is_empty() || models.iter().any(|model| thinks_unseen(model))
}

/// Whether a model may think before it speaks without showing what: any may, but those that are known.
fn thinks_unseen(model: &str) -> bool {
    let name = match model.strip_prefix("ft:") {
        // A model that was tuned, and then for whom.
        Some(tuned) => tuned,
        None => model.rsplit('/').next().unwrap_or(model),
    };
    let is_open = OPEN_MINDED.iter().any(|start| name.starts_with(start));
    !is_open || name.contains("thinking") && name.starts_with("gemini")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unseen(api: Api, model: &str, body: &str) -> Unseen {
        Unseen::of(api, &[model.to_owned()], &Members::read(body).unwrap()).unwrap()
    }

    #[test]
    fn models_that_think_unseen_are_told_from_those_that_do_not() {
        for model in [
            "gpt-5",
            "gpt-5-mini",
            "openai/gpt-5.1",
            "gpt-6",
            "o1",
            "o3-mini",
            "codex-mini",
            "ft:o4-mini-2025-04-16:org::x",
            "x-ai/grok-4",
            "gemini-2.5-pro",
            "google/gemini-3-flash",
            "anthropic/claude-sonnet-4.5",
            "of-nobody-knows-whom",
        ] {
            assert_eq!(unseen(Api::OpenAiChat, model, "{}"), Unseen::Thoughts, "{model}");
        }
        for model in [
            "gpt-4o",
            "gpt-4.1-mini",
            "gpt-3.5-turbo",
            "gpt-oss-120b",
            "llama-4",
            "olmo",
            "ft:gpt-4o-2024-08-06:org::x",
            "chatgpt-4o-latest",
            "meta-llama/llama-3.1-8b-instruct",
            "deepseek/deepseek-r1",
            "qwen3:8b",
            "gemini-2.0-flash",
            "claude-3-5-haiku-latest",
        ] {
            assert_eq!(unseen(Api::OpenAiResponses, model, "{}"), Unseen::Nothing, "{model}");
        }
    }

    #[test]
    fn what_is_asked_for_says_whether_claude_thinks_and_whether_a_response_goes_on() {
        for (api, body, expected) in [
            (Api::AnthropicMessages, r#"{"thinking":{"type":"enabled"}}"#, Unseen::Thoughts),
            (Api::AnthropicMessages, r#"{"thinking":{"type":"adaptive"}}"#, Unseen::Thoughts),
            (Api::AnthropicMessages, r#"{"thinking":{"type":"disabled"}}"#, Unseen::Nothing),
            (Api::AnthropicMessages, "{}", Unseen::Nothing),
            (Api::OpenAiChat, r#"{"reasoning":{"exclude":true}}"#, Unseen::Thoughts),
            (Api::OpenAiChat, r#"{"include_reasoning":false}"#, Unseen::Thoughts),
            (Api::OpenAiChat, r#"{"reasoning":null}"#, Unseen::Nothing),
            (Api::OpenAiResponses, r#"{"background":true}"#, Unseen::Rest),
            (Api::OpenAiResponses, r#"{"background":false}"#, Unseen::Nothing),
        ] {
            assert_eq!(unseen(api, "gpt-4o", body), expected, "{body}");
        }
    }
}
