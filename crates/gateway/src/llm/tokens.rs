//! Tokenizers of the models that have one here: OpenAI's.

use bpe_openai::{cl100k_base, o200k_base};

/// The LLM tokens of a text for a model; `None` where its tokenizer is not known, or there are more than `most`:
/// what comes after those is not looked at.
///
/// Linear in the text, also in the worst case. A tokenizer takes a tenth of a second when it is first used, and
/// memory from then on: 35 MiB of its own for `o200k`, 17 for `cl100k`, and as much again of the program's file,
/// which the system takes back when it needs it.
pub(super) fn count(model: &str, text: &str, most: u64) -> Option<u64> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let is = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let tokenizer = if is(&["gpt-3.5", "gpt-4-", "text-embedding-"]) || name == "gpt-4" {
        cl100k_base()
    } else if is(&["gpt-", "chatgpt-", "o1", "o3", "o4", "codex-"]) {
        o200k_base()
    } else {
        return None;
    };
    if most >= text.len() as u64 {
        // No text has more tokens than bytes.
        return Some(tokenizer.count(text) as u64);
    }
    let limit = usize::try_from(most).ok()?.saturating_add(1);
    let counted = tokenizer.count_till_limit(&tokenizer.normalize(text), limit)? as u64;
    Some(counted).filter(|counted| *counted <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_their_tokenizers() {
        let text = "The tide comes in and the tide goes out.";
        assert_eq!(count("gpt-5-mini", text, u64::MAX), Some(10));
        assert_eq!(count("openai/gpt-4o", text, u64::MAX), Some(10));
        assert_eq!(count("gpt-4", text, u64::MAX), Some(10));
        for unknown in ["claude-sonnet-4-5", "gemini-2.5-pro", "llama-3", ""] {
            assert_eq!(count(unknown, text, u64::MAX), None, "{unknown}");
        }
    }
    #[test]
    fn a_text_is_counted_up_to_a_limit_and_no_further() {
        let text = "The tide comes in and the tide goes out.".repeat(100);
        for model in ["gpt-5-mini", "gpt-4"] {
            let all = count(model, &text, u64::MAX).unwrap();
            assert!(all < text.len() as u64);
            assert_eq!(count(model, &text, all), Some(all), "{model}");
            for most in [0, 1, 10, all - 1] {
                assert_eq!(count(model, &text, most), None, "{model}: more than {most}");
            }
        }
        assert_eq!(count("gpt-4", "", 0), Some(0));
    }
}
