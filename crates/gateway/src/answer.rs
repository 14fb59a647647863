//! The gateway's own answers, in the words that the route's clients understand.

use axum::body::Body;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tidegate::policy::{CostRule, Refusal};
use tidegate_tower::{Fields, Problem, respond, retry_after_s};

use crate::admin::Block;
use crate::metrics::Outcome;
use crate::upstream::UpstreamError;

/// How errors read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// RFC 9457.
    Plain,
    /// As OpenAI's API has them, which its clients turn into exceptions.
    OpenAi,
}

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The longest wait that official clients sit out by themselves. Beyond it, retries would only burn
/// requests.
const LONGEST_RETRY_S: u64 = 60;

/// The answer to a denied call.
pub(crate) fn denied(
    refusal: &Refusal<'_>,
    dialect: Dialect,
    request: &HeaderMap,
) -> Response<Body> {
    let response = respond::<Body>(refusal, Fields::Ietf, request).map(Body::new);
    let response = marked(response, Outcome::Denied);
    if dialect == Dialect::Plain {
        return response;
    }
    let soon = retry_after_s(refusal).is_some_and(|secs| secs <= LONGEST_RETRY_S);
    let (kind, code) = match (refusal.rule().cost(), soon) {
        (CostRule::LlmTokens | CostRule::Money(_), false) => {
            ("insufficient_quota", "insufficient_quota")
        }
        (CostRule::LlmTokens | CostRule::Money(_), true) => ("tokens", "rate_limit_exceeded"),
        (CostRule::Fixed(_), _) => ("requests", "rate_limit_exceeded"),
    };
    let (mut parts, _) = response.into_parts();
    let body = openai_error(Problem::of(refusal).detail(), kind, code);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(CONTENT_LENGTH);
    if !soon {
        parts.headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    Response::from_parts(parts, Body::from(body.to_string()))
}

/// The answer to a caller who must be known, and is not; with the reason, where a key was sent.
pub(crate) fn unauthorized(reason: Option<&str>, dialect: Dialect) -> Response<Body> {
    let message = reason
        .unwrap_or("This path needs a key that is known here: send `Authorization: Bearer <key>`.");
    let mut response = error(
        StatusCode::UNAUTHORIZED,
        "invalid_request_error",
        "invalid_api_key",
        message,
        dialect,
    );
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    marked(response, Outcome::Unauthorized)
}

/// The answer to a caller whom an operator keeps out.
pub(crate) fn blocked(block: &Block, dialect: Dialect) -> Response<Body> {
    let message = format!("The {} is blocked by the operator of this gateway.", block.whom);
    let mut response =
        error(StatusCode::FORBIDDEN, "permission_error", "blocked", &message, dialect);
    response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    marked(response, Outcome::Blocked)
}

/// The answer to a body that is no LLM call.
pub(crate) fn bad_request(status: StatusCode, message: &str) -> Response<Body> {
    let response =
        error(status, "invalid_request_error", "invalid_request", message, Dialect::OpenAi);
    marked(response, Outcome::Rejected)
}

/// The answer where the upstream gave none.
pub(crate) fn upstream_failed(failure: UpstreamError, dialect: Dialect) -> Response<Body> {
    let (status, message) = match failure {
        UpstreamError::NotSent => (StatusCode::BAD_GATEWAY, "The upstream cannot be reached."),
        UpstreamError::Broken => (StatusCode::BAD_GATEWAY, "The upstream broke off."),
        UpstreamError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "The upstream took too long."),
    };
    let response = error(status, "api_error", "upstream_failed", message, dialect);
    marked(response, Outcome::UpstreamFailed)
}

/// A response that says, to those who count, what became of the call.
fn marked(mut response: Response<Body>, outcome: Outcome) -> Response<Body> {
    response.extensions_mut().insert(outcome);
    response
}

fn error(
    status: StatusCode,
    kind: &str,
    code: &str,
    message: &str,
    dialect: Dialect,
) -> Response<Body> {
    let (content_type, body) = match dialect {
        Dialect::OpenAi => ("application/json", openai_error(message, kind, code)),
        Dialect::Plain => {
            let title = status.canonical_reason().unwrap_or("Error");
            let problem = json!({
                "type": "about:blank", "title": title, "status": status.as_u16(), "detail": message,
            });
            ("application/problem+json", problem)
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn openai_error(message: &str, kind: &str, code: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}
