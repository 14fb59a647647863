//! [`Unseen`]: output that is billed, and does not pass.

use super::Api;
use super::members::{Members, Twice};

/// What of an answer's output is billed, and may not be seen to pass, so that what has passed says too little of
/// an answer that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unseen {
    Nothing,
    /// What the model thinks, which is not told, or in other words.
    Thoughts,
    /// All that is produced after the connection has ended: it can be asked for later.
    Rest,
}

impl Unseen {
    pub(super) fn of(api: Api, model: Option<&str>, members: &Members<'_>) -> Result<Self, Twice> {
        let thinks = match api {
            Api::OpenAiResponses if members.find("background") == Some("true") => {
                return Ok(Self::Rest);
            }
            Api::OpenAiChat | Api::OpenAiResponses => model.is_some_and(thinks_unseen),
            Api::AnthropicMessages => match members.find("thinking") {
                Some(thinking) if thinking.starts_with('{') => {
                    Members::read(thinking)?.find("type") != Some("\"disabled\"")
                }
                _ => false,
            },
            // Gemini tells with each part what it has thought.
            _ => false,
        };
        Ok(if thinks { Self::Thoughts } else { Self::Nothing })
    }
}

/// Whether a model of OpenAI's may think before it speaks: all but those that came before. Others that think say
/// what.
fn thinks_unseen(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let is = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let is_series_o = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(char::is_numeric));
    is_series_o || is(&["gpt-", "codex"]) && !is(&["gpt-3.5", "gpt-4", "gpt-oss"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unseen(api: Api, model: &str, body: &str) -> Unseen {
        Unseen::of(api, Some(model), &Members::read(body).unwrap()).unwrap()
    }

    #[test]
    fn models_that_think_unseen_are_told_from_those_that_do_not() {
        for model in
            ["gpt-5", "gpt-5-mini", "openai/gpt-5.1", "gpt-6", "o1", "o3-mini", "codex-mini"]
        {
            assert_eq!(unseen(Api::OpenAiChat, model, "{}"), Unseen::Thoughts, "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "gpt-oss-120b", "llama-4", "olmo"]
        {
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
            (Api::OpenAiResponses, r#"{"background":true}"#, Unseen::Rest),
            (Api::OpenAiResponses, r#"{"background":false}"#, Unseen::Nothing),
        ] {
            assert_eq!(unseen(api, "gpt-4o", body), expected, "{body}");
        }
    }
}
