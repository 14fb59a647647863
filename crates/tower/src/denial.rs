//! Denials as responses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;
use tidegate::policy::{CostRule, Reason, Refusal, Rule};
use tidegate::{Cause, Period, Rate, Retry};

use crate::fields::{Rendered, whole_s};
use crate::{Fields, ResponseBody};

/// A refusal in words: an RFC 9457 problem, of the types that the IETF's RateLimit draft registers.
///
/// ```
/// use tidegate::policy::{Call, Policy, Verdict};
/// use tidegate_tower::Problem;
///
/// let policy = Policy::from_toml("[[rule]]\nname = \"one\"\nlimit = \"1 per hour\"\nkey = \"global\"")?;
/// let call = Call::new("GET", "/");
/// assert!(policy.decide(&call).is_allow());
/// let Verdict::Deny(refusal) = policy.decide(&call) else { unreachable!() };
/// let problem = Problem::of(&refusal);
/// assert_eq!(problem.status(), 429);
/// assert!(problem.detail().starts_with("The limit `one` of 1 per hour is spent"));
/// # Ok::<(), tidegate::policy::FileError>(())
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(rename = "violated-policies")]
    violated: [&'a str; 1],
}

impl<'a> Problem<'a> {
    /// The problem that a refusal is.
    #[must_use]
    pub fn of(refusal: &Refusal<'a>) -> Self {
        let violated = [refusal.rule().name()];
        match refusal.reason() {
            Reason::Limit(_) => Self {
                kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
                title: "Quota exceeded",
                status: StatusCode::TOO_MANY_REQUESTS.as_u16(),
                detail: detail(refusal),
                violated,
            },
            // It is not known whether the limit is spent, so this is no 429 either.
            Reason::Unavailable { .. } => Self {
                kind: "about:blank",
                title: "Service Unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
                detail: detail(refusal),
                violated,
            },
            // No wait helps here, so this is no 429.
            _ => Self {
                kind: "about:blank",
                title: "Forbidden",
                status: StatusCode::FORBIDDEN.as_u16(),
                detail: detail(refusal),
                violated,
            },
        }
    }

    /// The status: 429; 403 when the call does not say what the rule needs to know; 503 when the server that
    /// counts does not answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// As JSON: the body of an answer of the type `application/problem+json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let Self { kind, title, status, detail, violated: [name] } = self;
        // Nearly always, no character has to be escaped. Looking for that once is quicker than a
        // serializer, which looks at each as it writes it: a flood of denials should cost little.
        let is_plain = |text: &str| {
            let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
            text.bytes().fold(true, |all, byte| all & is_plain(byte))
        };
        if !is_plain(detail) || !is_plain(name) {
            // Strings and a number: there is nothing that could fail to serialize.
            return serde_json::to_vec(self).unwrap_or_default();
        }
        let mut digits = itoa::Buffer::new();
        [
            "{\"type\":\"",
            kind,
            "\",\"title\":\"",
            title,
            "\",\"status\":",
            digits.format(*status),
            ",\"detail\":\"",
            detail,
            "\",\"violated-policies\":[\"",
            name,
            "\"]}",
        ]
        .concat()
        .into_bytes()
    }

    /// What happened, which rule, and what to do.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

fn detail(refusal: &Refusal<'_>) -> String {
    let (rule, name) = (refusal.rule(), refusal.rule().name());
    match refusal.reason() {
        Reason::MissingKey(part) => {
            format!(
                "The limit `{name}` tells callers apart by {part}, which this call does not have."
            )
        }
        Reason::MissingCost => {
            let unit = match refusal.rule().cost() {
                CostRule::Money(_) => "money",
                _ => "LLM tokens",
            };
            format!(
                "The limit `{name}` counts {unit}, and of this call it is not known how much it needs."
            )
        }
        Reason::Unavailable { .. } => {
            let secs = retry_after_s(refusal).unwrap_or(1);
            format!(
                "The server that counts the limit `{name}` does not answer. Try again in {secs} s."
            )
        }
        Reason::Limit(denial) => {
            let (mut detail, limit) = (Detail::new(), rule.limit());
            match denial.cause() {
                Cause::Oversized => {
                    detail.text("This call needs more than the limit `").text(name).text("` of ");
                    detail.rate(rule).text(" ever has: at most ");
                    detail.units(rule, limit.capacity()).text(" at once.")
                }
                Cause::Exhausted if limit.is_concurrency() => {
                    detail.text("The limit `").text(name).text("` of ");
                    detail.rate(rule).text(" calls is reached.")
                }
                Cause::TableFull => {
                    detail.text("The limit `").text(name);
                    detail.text("` has no room for another caller right now.")
                }
                _ => {
                    detail.text("The limit `").text(name).text("` of ");
                    detail.rate(rule).text(" is spent: ");
                    detail.units(rule, denial.remaining()).text(" left.")
                }
            };
            if let Some(secs) = retry_after_s(refusal) {
                detail.text(" Try again in ").number(secs).text(" s.");
            }
            detail.0
        }
    }
}

/// A text that is put together by hand: the formatter takes several times as long, and a flood of denials
/// should cost little.
struct Detail(String);

impl Detail {
    /// Room for all of it, so that it need not grow while it is written.
    fn new() -> Self {
        Self(String::with_capacity(192))
    }

    #[inline]
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    #[inline]
    fn number(&mut self, number: u64) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }

    /// A rule's rate, in numbers, but for money, which is told as such.
    fn rate(&mut self, rule: &Rule) -> &mut Self {
        match rule.cost() {
            CostRule::Money(_) => self.text(&rule.limit_text()),
            _ => self.plain_rate(rule.limit().rate()),
        }
    }

    /// As the rate's `Display`.
    fn plain_rate(&mut self, rate: Rate) -> &mut Self {
        let name = rate.period().name();
        self.number(rate.units());
        match rate.count() {
            _ if rate.period() == Period::Concurrent => self.text(" ").text(name),
            1 => self.text(" per ").text(name),
            count => self.text(" per ").number(count.into()).text(" ").text(name).text("s"),
        }
    }

    /// So many of a rule's units: a number, but for money, which is told as such.
    fn units(&mut self, rule: &Rule, units: u64) -> &mut Self {
        match rule.cost() {
            CostRule::Money(_) => self.text(&rule.units_text(units)),
            _ => self.number(units),
        }
    }
}

/// The whole seconds, rounded up and at least 1, after which a refused call can succeed; `None` when
/// no wait helps.
#[must_use]
pub fn retry_after_s(refusal: &Refusal<'_>) -> Option<u64> {
    match refusal.retry() {
        Retry::After(wait) => Some(whole_s(wait.max(Duration::from_nanos(1)))),
        Retry::Never => None,
    }
}

/// The response to a refused request that had the headers `request`.
///
/// For those who ask the policy themselves; the layer answers so too.
pub fn respond<R>(
    refusal: &Refusal<'_>,
    fields: Fields,
    request: &HeaderMap,
) -> Response<ResponseBody<R>> {
    respond_with(refusal, fields.render(refusal.standings()), request).map(ResponseBody::full)
}

pub(crate) fn respond_with(
    refusal: &Refusal<'_>,
    mut fields: Rendered,
    request: &HeaderMap,
) -> Response<Bytes> {
    let mut response = plain_response(refusal, request);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(secs) = retry_after_s(refusal) {
        headers.insert(RETRY_AFTER, secs.into());
    }
    fields.append_to(headers);
    response
}

fn plain_response(refusal: &Refusal<'_>, request: &HeaderMap) -> Response<Bytes> {
    #[cfg(feature = "grpc")]
    if crate::grpc::is_grpc(request) {
        return crate::grpc::respond(refusal).map(|()| Bytes::new());
    }
    #[cfg(not(feature = "grpc"))]
    let _ = request;
    let problem = Problem::of(refusal);
    let mut response = Response::new(Bytes::from(problem.to_json()));
    *response.status_mut() =
        StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_as_everywhere() {
        for text in ["1 per second", "20 per minute", "5 per 30 seconds", "7 per 2 weeks"] {
            let rate: Rate = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let mut detail = Detail::new();
            detail.plain_rate(rate);
            assert_eq!(detail.0, rate.to_string());
        }
        let mut detail = Detail::new();
        let concurrent = Rate::new(3, Period::Concurrent);
        detail.plain_rate(concurrent);
        assert_eq!(detail.0, concurrent.to_string());
    }

    #[test]
    fn a_problem_is_the_json_that_a_serializer_makes_of_it() {
        for detail in
            ["The limit `a` is spent.", "", "\u{fc} and \u{20ac}", "\"", "\\", "a\nb", "\u{1f}"]
        {
            for (kind, title, status) in [("about:blank", "Forbidden", 403), ("x", "y", 429)] {
                let (detail, violated) = (detail.to_owned(), ["a-Rule_1.x"]);
                let problem = Problem { kind, title, status, detail, violated };
                let serialized = serde_json::to_string(&problem).unwrap();
                assert_eq!(String::from_utf8(problem.to_json()).unwrap(), serialized);
            }
        }
    }
}
