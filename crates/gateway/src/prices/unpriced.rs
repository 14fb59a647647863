//! [`Unpriced`]: what a request asks for that has no price here.

use std::fmt;

/// What a request asks for that has no price here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unpriced {
    Model(String),
    Tier {
        tier: String,
        model: String,
    },
    Tool {
        tool: String,
        model: String,
    },
    /// A tool that may be used without end.
    Unbounded {
        tool: String,
    },
    Kind {
        kind: &'static str,
        model: String,
    },
    Member(&'static str),
    /// A member that lets the provider use tokens without end.
    Unlimited(&'static str),
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) if model.is_empty() => {
                f.write_str("a call without a model has no price here")
            }
            Self::Model(model) => write!(f, "the model {model:?} has no price here"),
            Self::Tier { tier, model } => {
                write!(f, "the service tier {tier:?} of the model {model:?} has no price here")
            }
            Self::Tool { tool, model } => {
                write!(f, "the tool {tool:?} of the model {model:?} has no price here")
            }
            Self::Unbounded { tool } => write!(
                f,
                "the tool {tool:?} may be used without end: set `max_uses`, or `max_tool_calls` in a response"
            ),
            Self::Kind { kind, model } => {
                write!(f, "`{kind}` of the model {model:?} has no price here")
            }
            Self::Unlimited(name) => {
                write!(f, "what `{name}` lets the provider use has no bound here")
            }
            Self::Member(name) => write!(f, "what `{name}` asks for has no price here"),
        }
    }
}
