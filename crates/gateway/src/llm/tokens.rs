//! Tokenizers of the models that have one here: OpenAI's.

use bpe_openai::{cl100k_base, o200k_base};

/// The LLM tokens of a text for a model; `None` where its tokenizer is not known.
///
/// Linear in the text, also in the worst case. A tokenizer takes a tenth of a second when it is first used, and
/// memory from then on: 35 MiB of its own for `o200k`, 17 for `cl100k`, and as much again of the program's file,
/// which the system takes back when it needs it.
pub(super) fn count(model: &str, text: &str) -> Option<u64> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let is = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let tokenizer = if is(&["gpt-3.5", "gpt-4-", "text-embedding-"]) || name == "gpt-4" {
        cl100k_base()
    } else if is(&["gpt-", "chatgpt-", "o1", "o3", "o4", "codex-"]) {
        o200k_base()
    } else {
        return None;
    };
    Some(tokenizer.count(text) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_their_tokenizers() {
        let text = "The tide comes in and the tide goes out.";
        assert_eq!(count("gpt-5-mini", text), Some(10));
        assert_eq!(count("openai/gpt-4o", text), Some(10));
        assert_eq!(count("gpt-4", text), Some(10));
        for unknown in ["claude-sonnet-4-5", "gemini-2.5-pro", "llama-3", ""] {
            assert_eq!(count(unknown, text), None, "{unknown}");
        }
    }
}
