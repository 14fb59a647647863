//! [`RequestError`]: why a body is no request to an LLM.

use std::fmt;

use crate::llm::members::Twice;

/// The most choices a request may ask for.
pub(super) const MAX_CHOICES: u64 = 128;

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
    /// A field that must be a text.
    Text(&'static str),
    /// `models` is no list of names.
    Models,
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
            Self::Text(field) => write!(f, "`{field}` must be a string."),
            Self::Models => f.write_str("`models` must be a list of strings."),
            Self::StreamOptions => f.write_str("`stream_options` must be an object."),
            Self::GenerationConfig => f.write_str("`generationConfig` must be an object."),
            Self::Twice(name) => write!(f, "{name:?} is there twice; which one counts?"),
        }
    }
}
