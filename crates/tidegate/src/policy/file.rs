//! Policy files: TOML, read strictly, with errors that say where and what would be right.
//!
//! ```toml
//! [[rule]]
//! name = "budget"                       # in answers, headers and metrics
//! limit = "10_000 per day"              # units per period
//! algorithm = "fixed-window"            # or token-bucket, sliding-window-counter (default), -log
//! key = "user"                          # or ip, header:<name>, global, or a list of them
//! cost = "llm-tokens"                   # or a number; default 1
//! match = { path = "/v1/*", method = "POST", authenticated = true, header = { x-plan = "free" } }
//! time_zone = "Europe/Berlin"           # fixed-window by day, week or month; default UTC
//! # burst = 10                          # token-bucket; default as many as the limit
//! # epochs = 30                         # sliding-window-counter
//! # keys = 10_000                       # live keys there is room for
//! # when_full = "deny"                  # or take-over
//! # missing_key = "deny"                # or share, skip
//! # ipv6_prefix = 64                    # for the key ip
//! # reservation_expires_s = 3600        # llm-tokens, state in a file: when what a dead process had
//! #                                     # reserved comes back
//! # dry_run = false                     # true: counted and reported, never enforced
//! ```

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use tidegate_core::WhenFull;
pub use toml::Spanned;

use super::{CostRule, KeyPart, Match, MissingKey, PathPattern, Policy, Rule};
use crate::clock::Clock;
use crate::limit::{AlgorithmName, Limit};
use crate::rate::Rate;
use crate::shared::SharedFile;

/// A text, and what to call it in errors: a file's name.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// A text called `name`.
    #[must_use]
    pub const fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// Reads a value, strictly.
    ///
    /// # Errors
    /// When the text is not TOML, or not such a value.
    pub fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, FileError> {
        toml::from_str(self.text).map_err(|error| {
            let message = error.message().trim().replace('\n', ", ");
            self.error(error.span().unwrap_or(0..0), "", &message)
        })
    }

    /// An error about the field at `span`.
    pub fn error(&self, span: Range<usize>, field: &str, message: &impl fmt::Display) -> FileError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        FileError {
            name: self.name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field.to_owned(),
            message: message.to_string(),
        }
    }
}

/// What is wrong in a file, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    name: String,
    line: usize,
    column: usize,
    field: String,
    message: String,
}

impl FileError {
    /// The line, counted from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The field, if it is known.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.name, self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for FileError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    rule: Vec<Spanned<RuleSpec>>,
}

pub(super) fn parse(
    source: &Source<'_>,
    clock: impl Clock + Send + Sync + 'static,
) -> Result<Policy, FileError> {
    let file: PolicyFile = source.parse()?;
    RuleSpec::policy(&file.rule, source, clock)
}

pub(super) fn parse_shared(source: &Source<'_>, shared: &SharedFile) -> Result<Policy, FileError> {
    let file: PolicyFile = source.parse()?;
    RuleSpec::shared_policy(&file.rule, source, shared)
}

/// A `[[rule]]` as it stands in a file, for adapters whose files hold rules among other things.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    name: Spanned<String>,
    limit: Spanned<String>,
    algorithm: Option<Spanned<String>>,
    burst: Option<Spanned<u64>>,
    epochs: Option<Spanned<usize>>,
    time_zone: Option<Spanned<String>>,
    key: OneOrMany,
    #[serde(rename = "match", default)]
    matching: MatchSpec,
    cost: Option<Spanned<CostSpec>>,
    keys: Option<Spanned<usize>>,
    when_full: Option<Spanned<String>>,
    missing_key: Option<Spanned<String>>,
    ipv6_prefix: Option<Spanned<u8>>,
    reservation_expires_s: Option<Spanned<u64>>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchSpec {
    path: Option<OneOrMany>,
    method: Option<OneOrMany>,
    authenticated: Option<bool>,
    #[serde(default)]
    header: HeaderSpec,
}

impl RuleSpec {
    /// The policy of these rules.
    ///
    /// # Errors
    /// When one of them is none, or when they make no policy.
    pub fn policy(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<Policy, FileError> {
        Self::build_policy(rules, source, None, clock)
    }

    /// The policy of these rules, with their state in a file; see
    /// [`Policy::shared`](super::Policy::shared).
    ///
    /// # Errors
    /// As [`policy`](Self::policy), and when the file has no room.
    pub fn shared_policy(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        shared: &SharedFile,
    ) -> Result<Policy, FileError> {
        Self::build_policy(rules, source, Some(shared), shared.clock())
    }

    fn build_policy(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        shared: Option<&SharedFile>,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<Policy, FileError> {
        let built: Result<Vec<_>, _> =
            rules.iter().map(|rule| rule.get_ref().build(source, shared)).collect();
        let last = rules.last().map_or(0..0, |rule| rule.get_ref().name.span());
        Policy::with_clock(built?, clock).map_err(|error| source.error(last, "rule", &error))
    }

    fn build(&self, source: &Source<'_>, shared: Option<&SharedFile>) -> Result<Rule, FileError> {
        let limit = self.build_limit(source)?;
        let parse_key = |part: &Spanned<String>| {
            part.get_ref().parse().map_err(|error| self.error(source, part, "key", &error))
        };
        let key: Vec<KeyPart> = self.key.0.iter().map(parse_key).collect::<Result<_, _>>()?;
        let keys = self.keys.as_ref().map_or(Rule::DEFAULT_KEYS, |keys| *keys.get_ref());
        let name = self.name.get_ref();
        let rule = match shared {
            None => Rule::with_keys(name, limit, key, keys),
            Some(file) => Rule::shared(name, limit, key, keys, file),
        };
        let rule = rule.map_err(|error| {
            let span = self.keys.as_ref().map_or(self.name.span(), Spanned::span);
            self.error_at(source, span, error.field(), &error)
        })?;
        let rule = match &self.ipv6_prefix {
            None => rule,
            Some(prefix) => rule
                .with_ipv6_prefix(*prefix.get_ref())
                .map_err(|error| self.error(source, prefix, "ipv6_prefix", &error))?,
        };
        let when_full = [("deny", WhenFull::Deny), ("take-over", WhenFull::TakeOver)];
        let rule = rule
            .matching(self.build_match(source)?)
            .costing(self.cost.as_ref().map_or(CostRule::Fixed(1), |cost| cost.get_ref().0))
            .with_when_full(self.choice(source, &self.when_full, "when_full", when_full)?)
            .on_missing_key(self.choice(
                source,
                &self.missing_key,
                "missing_key",
                MissingKey::NAMES,
            )?);
        let rule = self.expire_reservations(rule, source, shared)?;
        Ok(if self.dry_run { rule.dry_run() } else { rule })
    }

    fn expire_reservations(
        &self,
        rule: Rule,
        source: &Source<'_>,
        shared: Option<&SharedFile>,
    ) -> Result<Rule, FileError> {
        const FIELD: &str = "reservation_expires_s";
        let seconds = match &self.reservation_expires_s {
            Some(seconds) if rule.cost() != CostRule::LlmTokens => {
                let message = "is for rules with `cost = \"llm-tokens\"`, which reserve";
                return Err(self.error(source, seconds, FIELD, &message));
            }
            Some(seconds) if *seconds.get_ref() == 0 => {
                let message = "would give back at once; give the seconds that a call may take";
                return Err(self.error(source, seconds, FIELD, &message));
            }
            seconds => seconds.as_ref().map_or(3_600, |seconds| *seconds.get_ref()),
        };
        match shared {
            Some(file) if rule.cost() == CostRule::LlmTokens => rule
                .with_expiring_reservations(file, Duration::from_secs(seconds))
                .map_err(|error| self.error(source, &self.name, error.field(), &error)),
            _ => Ok(rule),
        }
    }

    fn build_limit(&self, source: &Source<'_>) -> Result<Limit, FileError> {
        let rate: Rate = self
            .limit
            .get_ref()
            .parse()
            .map_err(|error| self.error(source, &self.limit, "limit", &error))?;
        let algorithm = match &self.algorithm {
            None => AlgorithmName::SlidingWindowCounter,
            Some(name) => name
                .get_ref()
                .parse()
                .map_err(|error| self.error(source, name, "algorithm", &error))?,
        };
        let only = |belongs: AlgorithmName, field: &str, span: Option<Range<usize>>| match span {
            Some(span) if belongs != algorithm => {
                let message =
                    format!("is for the algorithm `{belongs}`, and this one is `{algorithm}`");
                Err(self.error_at(source, span, field, &message))
            }
            _ => Ok(()),
        };
        only(AlgorithmName::TokenBucket, "burst", self.burst.as_ref().map(Spanned::span))?;
        only(
            AlgorithmName::SlidingWindowCounter,
            "epochs",
            self.epochs.as_ref().map(Spanned::span),
        )?;
        only(AlgorithmName::FixedWindow, "time_zone", self.time_zone.as_ref().map(Spanned::span))?;
        let limit = match algorithm {
            AlgorithmName::TokenBucket => {
                Limit::token_bucket(rate, self.burst.as_ref().map(|burst| *burst.get_ref()))
            }
            AlgorithmName::FixedWindow => {
                let zone = self.time_zone.as_ref().map(|zone| zone.get_ref().as_str());
                Limit::fixed_window(rate, zone)
            }
            AlgorithmName::SlidingWindowCounter => {
                let epochs = self.epochs.as_ref().map_or(Limit::DEFAULT_EPOCHS, |n| *n.get_ref());
                Limit::sliding_window_counter(rate, epochs)
            }
            AlgorithmName::SlidingWindowLog => Limit::sliding_window_log(rate),
        };
        limit.map_err(|error| self.error(source, &self.limit, "limit", &error))
    }

    fn build_match(&self, source: &Source<'_>) -> Result<Match, FileError> {
        let spec = &self.matching;
        let mut matching = Match::everyone();
        for path in spec.path.iter().flat_map(|paths| &paths.0) {
            let pattern: Result<PathPattern, _> = path.get_ref().parse();
            let error = |error| self.error(source, path, "match.path", &error);
            matching = matching.on_path(pattern.map_err(error)?);
        }
        for method in spec.method.iter().flat_map(|methods| &methods.0) {
            if method.get_ref().is_empty()
                || !method.get_ref().bytes().all(|b| b.is_ascii_alphabetic())
            {
                let message =
                    format!("`{}` is not a method; write it as in `POST`", method.get_ref());
                return Err(self.error(source, method, "match.method", &message));
            }
            matching = matching.by_method(method.get_ref());
        }
        for (name, value) in &spec.header.0 {
            matching = matching.with_header(name, value);
        }
        Ok(match spec.authenticated {
            Some(authenticated) => matching.authenticated(authenticated),
            None => matching,
        })
    }

    /// The value of a field with few choices; without the field, the default.
    fn choice<T: Default, const N: usize>(
        &self,
        source: &Source<'_>,
        field: &Option<Spanned<String>>,
        name: &str,
        choices: [(&str, T); N],
    ) -> Result<T, FileError> {
        let Some(text) = field else { return Ok(T::default()) };
        let names = choices.each_ref().map(|(name, _)| *name).join("`, `");
        let chosen = choices.into_iter().find(|(name, _)| name == text.get_ref());
        chosen.map(|(_, choice)| choice).ok_or_else(|| {
            let message = format!("`{}` is not known; use one of `{names}`", text.get_ref());
            self.error(source, text, name, &message)
        })
    }

    fn error<T>(
        &self,
        source: &Source<'_>,
        at: &Spanned<T>,
        field: &str,
        message: &impl fmt::Display,
    ) -> FileError {
        self.error_at(source, at.span(), field, message)
    }

    fn error_at(
        &self,
        source: &Source<'_>,
        span: Range<usize>,
        field: &str,
        message: &impl fmt::Display,
    ) -> FileError {
        source.error(span, &format!("rule `{}`: {field}", self.name.get_ref()), message)
    }
}

/// A text, or a list of them.
#[derive(Debug)]
struct OneOrMany(Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Texts>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(match spanned.into_inner() {
            Texts::One(text) => Self(vec![spanned_text(span, text)]),
            Texts::Many(texts) => Self(texts),
        })
    }
}

fn spanned_text(span: Range<usize>, text: String) -> Spanned<String> {
    Spanned::new(span, text)
}

enum Texts {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;

        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Texts::Many(texts))
            }
        }

        deserializer.deserialize_any(TextsVisitor)
    }
}

/// `"llm-tokens"`, or a number of units.
#[derive(Debug)]
struct CostSpec(CostRule);

impl<'de> Deserialize<'de> for CostSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CostVisitor;

        impl Visitor<'_> for CostVisitor {
            type Value = CostSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"llm-tokens\"` or a number of units from 1")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CostSpec, E> {
                match text {
                    "llm-tokens" => Ok(CostSpec(CostRule::LlmTokens)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, units: i64) -> Result<CostSpec, E> {
                match u64::try_from(units) {
                    Ok(units) if units > 0 => Ok(CostSpec(CostRule::Fixed(units))),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Signed(units), &self)),
                }
            }
        }

        deserializer.deserialize_any(CostVisitor)
    }
}

/// A table of header names and values.
#[derive(Debug, Default)]
struct HeaderSpec(Vec<(String, String)>);

impl<'de> Deserialize<'de> for HeaderSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = HeaderSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of header names and their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut headers: A) -> Result<HeaderSpec, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = headers.next_entry()? {
                    pairs.push(pair);
                }
                Ok(HeaderSpec(pairs))
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}
