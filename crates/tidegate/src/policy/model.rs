//! [`ModelPattern`]: which models a rule or a price is for.

use std::fmt;
use std::str::FromStr;

/// Which models a rule or a price is for: `gpt-5`, `claude-*`, `*`.
///
/// A `*` at the end stands for any rest. Case is of no matter, nor is what stands before the last slash
/// of a model, as in `models/gemini-2.5-pro`.
///
/// ```
/// use tidegate::policy::ModelPattern;
///
/// let pattern: ModelPattern = "gpt-5*".parse()?;
/// assert!(pattern.applies_to("gpt-5-mini"));
/// assert!(!pattern.applies_to("gpt-4o"));
/// # Ok::<(), tidegate::policy::ModelPatternError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPattern {
    /// In lower case.
    start: String,
    open: bool,
}

impl ModelPattern {
    /// Whether the pattern applies to a model.
    #[must_use]
    pub fn applies_to(&self, model: &str) -> bool {
        let last = model.rsplit('/').next().unwrap_or(model);
        self.is_of(model) || self.is_of(last)
    }

    fn is_of(&self, model: &str) -> bool {
        match model.as_bytes().split_at_checked(self.start.len()) {
            Some((start, rest)) => {
                start.eq_ignore_ascii_case(self.start.as_bytes()) && (self.open || rest.is_empty())
            }
            None => false,
        }
    }
}

impl FromStr for ModelPattern {
    type Err = ModelPatternError;

    fn from_str(text: &str) -> Result<Self, ModelPatternError> {
        let (start, open) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        if start.contains('*') || text.is_empty() || text.contains(char::is_whitespace) {
            return Err(ModelPatternError { pattern: text.to_owned() });
        }
        Ok(Self { start: start.to_ascii_lowercase(), open })
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.start, if self.open { "*" } else { "" })
    }
}

/// A text is no pattern of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPatternError {
    pattern: String,
}

impl fmt::Display for ModelPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` names no models; give a name, with `*` only at its end, as in `gpt-5*`",
            self.pattern
        )
    }
}

impl std::error::Error for ModelPatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_or_how_names_begin() {
        for (pattern, model, applies) in [
            ("gpt-5", "gpt-5", true),
            ("gpt-5", "GPT-5", true),
            ("gpt-5", "gpt-5-mini", false),
            ("gpt-5*", "gpt-5", true),
            ("gpt-5*", "gpt-50", true),
            ("gpt-5*", "gpt", false),
            ("*", "", true),
            ("*", "anything", true),
            ("gemini-2.5*", "models/gemini-2.5-pro", true),
            ("openai/gpt*", "openai/gpt-5", true),
            ("openai/gpt*", "gpt-5", false),
            ("gpt-5", "gpt-\u{e9}", false),
        ] {
            let parsed: ModelPattern = pattern.parse().unwrap();
            assert_eq!(parsed.applies_to(model), applies, "{pattern} {model}");
        }
        for wrong in ["", "*-mini", "a*b*", "gpt 5"] {
            let error = wrong.parse::<ModelPattern>().unwrap_err();
            assert!(error.to_string().contains("`gpt-5*`"), "{error}");
        }
    }
}
