//! Policy files whose rules machines share.

use serde::Deserialize;
use tidegate::policy::{FileError, Policy, RuleSpec, Source, Spanned};

use crate::{RedisBackend, RedisSpec};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    redis: RedisSpec,
    #[serde(default)]
    rule: Vec<Spanned<RuleSpec>>,
}

/// A policy from the text of a policy file with a `[redis]` section: its rules are on that server, but for
/// those that say `backend = "local"`.
///
/// Ask it by [`Policy::decide_async`], on a Tokio runtime; and before the process ends, let it
/// [finish](Policy::finish).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tidegate::policy::Call;
///
/// let policy = tidegate_redis::policy_from_toml(r#"
///     [redis]
///     url = "redis://127.0.0.1:6379"
///     namespace = "shop"
///
///     [[rule]]
///     name = "ip"
///     limit = "1000 per minute"
///     key = "ip"
///     lease = true                  # hot addresses are decided here, in nanoseconds
///     when_down = "share of 4"      # each of 4 processes allows 250 by itself
///
///     [[rule]]
///     name = "budget"
///     limit = "10_000 per day"
///     algorithm = "fixed-window"
///     key = "user"
///     cost = "llm-tokens"
/// "#)?;
/// let ip = "192.0.2.7".parse()?;
/// let call = Call::new("GET", "/chat").from_ip(ip).by_user("alice").with_llm_tokens(500);
/// let verdict = policy.decide_async(&call).await;
/// println!("{}", verdict.is_allow());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the text is no policy, or has rules that a server cannot keep; the error says where and what would
/// be right.
pub fn policy_from_toml(text: &str) -> Result<Policy, FileError> {
    policy_from_source(&Source::new("policy", text)).map_err(|mut errors| errors.remove(0))
}

/// The same, from a text that says where it comes from; and all that is wrong with it.
///
/// # Errors
/// All that is wrong, at least one thing, in the order of the text.
pub fn policy_from_source(source: &Source<'_>) -> Result<Policy, Vec<FileError>> {
    let (file, errors) = source.parse_all::<PolicyFile>();
    let Some(file) = file else { return Err(errors) };
    if !errors.is_empty() {
        return Err(errors);
    }
    let backend = file.redis.backend(source, None).map_err(|error| vec![error])?;
    RuleSpec::reload_on(&file.rule, source, None, None, Some(&backend))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    rule: Vec<Spanned<RuleSpec>>,
}

/// As [`policy_from_source`], of a text that has only rules, on a server that is known otherwise.
///
/// # Errors
/// All that is wrong, at least one thing, in the order of the text.
pub fn policy_on(source: &Source<'_>, backend: &RedisBackend) -> Result<Policy, Vec<FileError>> {
    let (file, errors) = source.parse_all::<Rules>();
    match file {
        Some(file) if errors.is_empty() => {
            RuleSpec::reload_on(&file.rule, source, None, None, Some(backend))
        }
        _ => Err(errors),
    }
}
