//! [`Settings`]: how LLM calls are reserved for and ended.

use std::time::Duration;

use super::Allowances;

/// How LLM calls are reserved for and ended: the section `[llm]`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The output tokens of a call that sets no ceiling.
    pub(crate) default_max_output: u64,
    /// The name of the ceiling that is set in a chat completion.
    pub(crate) max_output_field: &'static str,
    pub(crate) allowances: Allowances,
    pub(crate) tokenizer: UseTokenizer,
    /// The largest body of an LLM call, which must be read whole to know its cost.
    pub(crate) max_body: usize,
    /// The most bytes of such bodies in all that are kept at a time.
    pub(crate) max_bodies: usize,
    /// How long an answer whose client has gone is still read, to know what it cost.
    pub(crate) drain: Duration,
}

/// When input is counted with the model's tokenizer, rather than bounded by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UseTokenizer {
    /// Where the bound does not fit what is left.
    WhenNeeded,
    Always,
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_max_output: 4_096,
            max_output_field: "max_completion_tokens",
            allowances: Allowances {
                image_tokens: 2_000,
                file_tokens: 20_000,
                stored_tokens: 8_000,
                tool_tokens: 8_000,
            },
            tokenizer: UseTokenizer::WhenNeeded,
            max_body: 4 << 20,
            max_bodies: 256 << 20,
            drain: Duration::from_secs(5),
        }
    }
}
