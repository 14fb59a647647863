//! The usage that an answer tells.

use serde::Deserialize;

/// What matters of an answer, or of a chunk of a stream.
#[derive(Deserialize)]
struct Answer {
    usage: Option<Usage>,
    #[serde(default)]
    choices: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// The usage that a JSON text tells, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) tokens: u64,
    /// Whether the usage is all that there is in it.
    pub(super) alone: bool,
}

pub(super) fn told(json: &[u8]) -> Option<Told> {
    let answer: Answer = serde_json::from_slice(json).ok()?;
    let usage = answer.usage?;
    let sum = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    let alone = answer.choices.is_some_and(|choices| choices.is_empty());
    Some(Told { tokens: usage.total_tokens.unwrap_or(sum), alone })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_where_there_is_one() {
        let whole = br#"{"choices":[{"x":1}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#;
        assert_eq!(told(whole), Some(Told { tokens: 12, alone: false }));
        let last = br#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#;
        assert_eq!(told(last), Some(Told { tokens: 12, alone: true }));
        for none in [&b"{}"[..], br#"{"usage":null}"#, b"[DONE]", b"", br#"{"usage":5}"#] {
            assert_eq!(told(none), None);
        }
    }
}
