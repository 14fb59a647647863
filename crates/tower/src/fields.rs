//! [`Fields`]: what responses tell clients about their limits.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tidegate::policy::{CostRule, Policy, Rule, Standing};

use crate::list::List;

/// Which fields responses carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Fields {
    /// `RateLimit-Policy` and `RateLimit`, of all rules: draft-ietf-httpapi-ratelimit-headers-10.
    #[default]
    Ietf,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (in seconds from now), of the rule with the
    /// smallest share left.
    XRateLimit,
    /// None. Denials still carry `Retry-After`.
    None,
}

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Fields ready to be sent.
#[derive(Debug, Default)]
pub struct Rendered([Option<(HeaderName, HeaderValue)>; 3]);

impl Rendered {
    /// Adds the fields, once. Those that a service behind has set stay: all of them are true.
    pub fn append_to(&mut self, headers: &mut HeaderMap) {
        for (name, value) in self.0.iter_mut().filter_map(Option::take) {
            headers.append(name, value);
        }
    }
}

impl Fields {
    /// The fields for how rules stand.
    #[must_use]
    pub fn render(self, standings: &[Standing<'_>]) -> Rendered {
        self.render_knowing(standings, None)
    }

    /// The same, for standings with a policy that is known beforehand.
    pub(crate) fn render_knowing(
        self,
        standings: &[Standing<'_>],
        whole: Option<&WholePolicy>,
    ) -> Rendered {
        let enforced = || standings.iter().filter(|standing| !standing.rule().is_dry_run());
        match self {
            Self::None => Rendered::default(),
            Self::Ietf => ietf(enforced(), whole),
            Self::XRateLimit => enforced()
                .min_by(|one, other| share(one, other))
                .map_or_else(Rendered::default, x_rate_limit),
        }
    }
}

/// Orders by the share that is left, without a division.
fn share(one: &Standing<'_>, other: &Standing<'_>) -> std::cmp::Ordering {
    let (one_of, other_of) = (one.rule().limit().capacity(), other.rule().limit().capacity());
    let cross = |remaining: u64, of: u64| u128::from(remaining) * u128::from(of);
    cross(one.remaining(), other_of).cmp(&cross(other.remaining(), one_of))
}

fn ietf<'a>(
    standings: impl Iterator<Item = &'a Standing<'a>> + Clone,
    whole: Option<&WholePolicy>,
) -> Rendered {
    // Of no rules, there is no field.
    let whole = whole.filter(|whole| whole.rules > 0 && whole.rules == standings.clone().count());
    let policies = match whole {
        Some(whole) => Some(whole.value.clone()),
        None => policies(standings.clone().map(Standing::rule)).value(),
    };
    let mut limits = List::new();
    for standing in standings {
        let remaining = standing.remaining();
        let limit = limits.item(standing.rule().name()).number(";r=", remaining);
        if let Some(more_after) = standing.more_after_having(remaining) {
            limit.number(";t=", whole_s(more_after));
        }
    }
    Rendered([
        policies.map(|value| (RATE_LIMIT_POLICY, value)),
        limits.value().map(|value| (RATE_LIMIT, value)),
        None,
    ])
}

fn policies<'a>(rules: impl Iterator<Item = &'a Rule>) -> List {
    let mut policies = List::new();
    for rule in rules {
        let policy = policies.item(rule.name()).number(";q=", rule.limit().capacity());
        if rule.limit().is_concurrency() {
            policy.text(";qu=\"concurrent-requests\"");
            continue;
        }
        let policy = policy.number(";w=", whole_s(rule.limit().window()).max(1));
        // The draft has no unit for these.
        match rule.cost() {
            CostRule::Fixed(_) => {}
            CostRule::LlmTokens => policy.text(";tidegate-unit=\"llm-tokens\""),
            CostRule::Money(currency) => {
                policy.text(";tidegate-unit=\"nano-");
                policy.text(currency.code());
                policy.text("\"");
            }
        }
    }
    policies
}

/// The `RateLimit-Policy` of calls that all rules of a policy apply to, which are most: always the
/// same, so it is written once.
///
/// Its text is never freed, which makes clones free: those of other values are counted, and all cores would
/// count on one word. That is some hundred bytes for a layer, of which a program makes few.
#[derive(Debug, Clone)]
pub(crate) struct WholePolicy {
    rules: usize,
    value: HeaderValue,
}

impl WholePolicy {
    pub(crate) fn of(policy: &Policy) -> Self {
        let enforced = policy.rules().iter().filter(|rule| !rule.is_dry_run());
        let text = String::from_utf8_lossy(policies(enforced.clone()).written()).into_owned();
        Self { rules: enforced.count(), value: HeaderValue::from_static(text.leak()) }
    }
}

fn x_rate_limit(standing: &Standing<'_>) -> Rendered {
    Rendered([
        Some((X_LIMIT, standing.rule().limit().capacity().into())),
        Some((X_REMAINING, standing.remaining().into())),
        Some((X_RESET, whole_s(standing.reset_after()).into())),
    ])
}

/// Whole seconds, rounded up.
pub(crate) fn whole_s(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
