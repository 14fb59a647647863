//! [`LimitFields`]: what an answer tells of the limits here.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tidegate::Decision;
use tidegate::policy::{CostRule, Standing};
use tidegate_tower::{Fields, Rendered};

use super::Dialect;

/// The IETF's fields, of all rules; and for clients of OpenAI's and Anthropic's APIs the fields that those
/// have, of the rule with the smallest share left among those that count requests, and among those that
/// count LLM tokens.
///
/// Where a rule applies, the provider's own fields of that kind give way: they tell of the account behind,
/// which all callers share, and no client has room for two values of one field.
#[derive(Debug, Default)]
pub(crate) struct LimitFields {
    ietf: Rendered,
    vendor: [Option<(HeaderName, HeaderValue)>; 6],
    /// What the names of the provider's fields begin with.
    replaces: Option<&'static str>,
}

/// The names of a provider's fields: limit, remaining, reset, for requests and then for LLM tokens.
type Names = [HeaderName; 6];

static OPENAI: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

static ANTHROPIC: Names = [
    HeaderName::from_static("anthropic-ratelimit-requests-limit"),
    HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
    HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
];

/// How a provider writes when a limit is whole again.
type Reset = fn(Duration) -> String;

impl LimitFields {
    /// The fields for how rules stand, in the words of this dialect.
    pub(crate) fn of(standings: &[Standing<'_>], dialect: Dialect) -> Self {
        let ietf = Fields::Ietf.render(standings);
        let vendor = Self::vendor(standings, dialect);
        Self { ietf, ..vendor }
    }

    /// Only the provider's.
    pub(super) fn vendor(standings: &[Standing<'_>], dialect: Dialect) -> Self {
        let (names, replaces, reset): (&Names, _, Reset) = match dialect {
            Dialect::OpenAi => (&OPENAI, "x-ratelimit-", span),
            Dialect::Anthropic => (&ANTHROPIC, "anthropic-ratelimit-", moment),
            Dialect::Gemini | Dialect::Plain => return Self::default(),
        };
        let requests = scarcest(standings, |cost| matches!(cost, CostRule::Fixed(_)));
        let tokens = scarcest(standings, |cost| cost == CostRule::LlmTokens);
        let mut vendor = [const { None }; 6];
        for (first, standing) in [(0, requests), (3, tokens)] {
            let Some((standing, now)) = standing else { continue };
            let reset = HeaderValue::try_from(reset(now.reset_after()));
            vendor[first] = Some((names[first].clone(), standing.rule().limit().capacity().into()));
            vendor[first + 1] = Some((names[first + 1].clone(), now.remaining().into()));
            vendor[first + 2] = reset.ok().map(|value| (names[first + 2].clone(), value));
        }
        let replaces = (!standings.is_empty()).then_some(replaces);
        Self { ietf: Rendered::default(), vendor, replaces }
    }

    /// Puts the fields into an answer.
    pub(crate) fn put_into(mut self, headers: &mut HeaderMap) {
        if let Some(start) = self.replaces {
            let is_theirs = |name: &&HeaderName| name.as_str().starts_with(start);
            let theirs: Vec<_> = headers.keys().filter(is_theirs).cloned().collect();
            theirs.iter().for_each(|name| drop(headers.remove(name)));
        }
        self.ietf.append_to(headers);
        for (name, value) in self.vendor.into_iter().flatten() {
            headers.insert(name, value);
        }
    }
}

/// Of the rules that count so, the one with the smallest share left, and how it stands.
fn scarcest<'s, 'p>(
    standings: &'s [Standing<'p>],
    counts: impl Fn(CostRule) -> bool,
) -> Option<(&'s Standing<'p>, Decision)> {
    let fits = |standing: &&Standing<'_>| {
        let rule = standing.rule();
        counts(rule.cost()) && !rule.is_dry_run() && !rule.limit().is_concurrency()
    };
    let known = standings.iter().filter(fits).map(|standing| (standing, standing.decision()));
    let of = |standing: &Standing<'_>| u128::from(standing.rule().limit().capacity());
    known.min_by(|(one, now), (other, others)| {
        let cross = |left: u64, of: u128| u128::from(left) * of;
        cross(now.remaining(), of(other)).cmp(&cross(others.remaining(), of(one)))
    })
}

/// As OpenAI has it: `12ms`, `6s`, `1m30s`, `2h0m5s`; rounded up.
fn span(span: Duration) -> String {
    let ms = span.as_nanos().div_ceil(1_000_000);
    let secs = ms.div_ceil(1_000);
    match (secs / 3_600, secs / 60 % 60, secs % 60) {
        _ if ms < 1_000 => format!("{ms}ms"),
        (0, 0, secs) => format!("{secs}s"),
        (0, minutes, secs) => format!("{minutes}m{secs}s"),
        (hours, minutes, secs) => format!("{hours}h{minutes}m{secs}s"),
    }
}

/// As Anthropic has it: the moment, in RFC 3339, rounded up to a second.
fn moment(span: Duration) -> String {
    let now = jiff::Timestamp::now();
    let at = jiff::SignedDuration::try_from(span).ok().and_then(|span| now.checked_add(span).ok());
    let ns = at.unwrap_or(jiff::Timestamp::MAX).as_nanosecond();
    let secs = ns.div_euclid(1_000_000_000) + i128::from(ns.rem_euclid(1_000_000_000) > 0);
    let whole = i64::try_from(secs).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
    whole.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_openai_has_them() {
        for (ns, text) in [
            (0, "0ms"),
            (1, "1ms"),
            (999_000_000, "999ms"),
            (999_000_001, "1s"),
            (59_000_000_001, "1m0s"),
            (90_000_000_000, "1m30s"),
            (7_205_000_000_000, "2h0m5s"),
        ] {
            assert_eq!(span(Duration::from_nanos(ns)), text);
        }
    }

    #[test]
    fn moments_are_whole_seconds_and_never_too_early() {
        let before = jiff::Timestamp::now();
        let text = moment(Duration::from_millis(1_500));
        let at: jiff::Timestamp = text.parse().unwrap();
        assert!(text.ends_with('Z') && !text.contains('.'), "{text}");
        assert!(at.duration_since(before) >= jiff::SignedDuration::from_millis(1_500), "{text}");
        assert!(moment(Duration::MAX).starts_with("9999-"));
    }
}
