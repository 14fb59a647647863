//! The gateway's own answers, in the words that the route's clients understand.

mod error;
mod limit_fields;

use axum::body::Body;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use tidegate::policy::{CostRule, Reason, Refusal};
use tidegate_tower::{Fields, Problem, respond, retry_after_s};

use crate::admin::Block;
use crate::client::BodyError;
use crate::llm::{Api, Maker};
use crate::metrics::Outcome;
use crate::prices::Unpriced;
use crate::upstream::UpstreamError;
use error::{Kind, Told};
pub(crate) use limit_fields::LimitFields;

/// How errors read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// RFC 9457.
    Plain,
    /// As OpenAI's API has them, which its clients turn into exceptions.
    OpenAi,
    /// As Anthropic's API has them.
    Anthropic,
    /// As Gemini's API has them.
    Gemini,
}

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The longest wait that official clients sit out by themselves. Beyond it, retries would only burn
/// requests.
const LONGEST_RETRY_S: u64 = 60;

/// The answer to a denied call, with what of it has no price, where that is known.
pub(crate) fn denied(
    refusal: &Refusal<'_>,
    unpriced: Option<&Unpriced>,
    dialect: Dialect,
    request: &HeaderMap,
) -> Response<Body> {
    let response = respond::<Body>(refusal, Fields::Ietf, request).map(Body::new);
    let outcome = match refusal.reason() {
        Reason::Unavailable { .. } => Outcome::Unavailable,
        _ => Outcome::Denied,
    };
    let response = marked(response, outcome);
    if dialect == Dialect::Plain {
        return response;
    }
    let wait_s = retry_after_s(refusal);
    let soon = wait_s.is_some_and(|secs| secs <= LONGEST_RETRY_S);
    let rule = refusal.rule();
    let kind = match (refusal.reason(), rule.cost(), soon) {
        (Reason::MissingKey(_) | Reason::MissingCost, ..) => Kind::Forbidden,
        (Reason::Unavailable { .. }, ..) => Kind::Unavailable,
        (_, CostRule::Fixed(_), _) => Kind::Requests,
        (_, _, true) => Kind::Tokens,
        (_, _, false) => Kind::Quota,
    };
    let message = match (refusal.reason(), rule.cost(), unpriced) {
        (Reason::MissingCost, CostRule::Money(_), Some(unpriced)) => {
            format!("The limit `{}` counts money, and {unpriced}.", rule.name())
        }
        (Reason::MissingCost, CostRule::LlmTokens, Some(unlimited @ Unpriced::Unlimited(_))) => {
            format!("The limit `{}` counts LLM tokens, and {unlimited}.", rule.name())
        }
        (Reason::MissingCost, ..) => format!(
            "The limit `{}` counts what a call costs, and for this endpoint that is not known here.",
            rule.name()
        ),
        _ => Problem::of(refusal).detail().to_owned(),
    };
    let told = Told { kind, message: &message, limit: Some(rule.name()), wait_s };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    LimitFields::vendor(refusal.standings(), dialect).put_into(&mut parts.headers);
    if !soon {
        parts.headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    let mut response = Response::from_parts(parts, Body::empty());
    told.write(&mut response, dialect);
    response
}

/// The answer to a caller who must be known, and is not; with the reason, where a key was sent.
pub(crate) fn unauthorized(reason: Option<&str>, dialect: Dialect) -> Response<Body> {
    let message = reason
        .unwrap_or("This path needs a key that is known here: send `Authorization: Bearer <key>`.");
    let mut response = error(StatusCode::UNAUTHORIZED, Kind::Unauthorized, message, dialect);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    marked(response, Outcome::Unauthorized)
}

/// The answer to a caller whom an operator keeps out.
pub(crate) fn blocked(block: &Block, dialect: Dialect) -> Response<Body> {
    let message = format!("The {} is blocked by the operator of this gateway.", block.whom);
    let mut response = error(StatusCode::FORBIDDEN, Kind::Blocked, &message, dialect);
    response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    marked(response, Outcome::Blocked)
}

/// The answer to a request that cannot be passed on as it is.
pub(crate) fn bad_request(status: StatusCode, message: &str, dialect: Dialect) -> Response<Body> {
    marked(error(status, Kind::BadRequest, message, dialect), Outcome::Rejected)
}

/// How soon there may be room again.
const ROOM_SOON: HeaderValue = HeaderValue::from_static("1");

/// The answer to a call for whose body there is no memory now.
pub(crate) fn no_room(dialect: Dialect) -> Response<Body> {
    let message = "The gateway has no room for the body now: it has as many bodies of calls, or as many of \
                   this client, as it may keep. Try again soon.";
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, Kind::Overloaded, message, dialect);
    response.headers_mut().insert(RETRY_AFTER, ROOM_SOON);
    marked(response, Outcome::Unavailable)
}

/// The answer to a request whose body has not come.
pub(crate) fn bad_body(error: BodyError, dialect: Dialect) -> Response<Body> {
    let (status, message) = match error {
        BodyError::Broken => (StatusCode::BAD_REQUEST, "The body broke off."),
        BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive."),
    };
    bad_request(status, message, dialect)
}

/// The answer where the upstream gave none.
pub(crate) fn upstream_failed(failure: UpstreamError, dialect: Dialect) -> Response<Body> {
    let (status, message) = match failure {
        UpstreamError::NotSent => (StatusCode::BAD_GATEWAY, "The upstream cannot be reached."),
        UpstreamError::Broken => (StatusCode::BAD_GATEWAY, "The upstream broke off."),
        UpstreamError::Body(error) => return bad_body(error, dialect),
        UpstreamError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "The upstream took too long."),
    };
    marked(error(status, Kind::Upstream, message, dialect), Outcome::UpstreamFailed)
}

/// The answer to an LLM call where the upstream gave none. One that may have been done, and stays charged, is not
/// to be sent again by itself, at double the price.
pub(crate) fn call_failed(failure: UpstreamError, dialect: Dialect) -> Response<Body> {
    let mut response = upstream_failed(failure, dialect);
    if matches!(failure, UpstreamError::Broken | UpstreamError::TimedOut) {
        response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// A response that says, to those who count, what became of the call.
fn marked(mut response: Response<Body>, outcome: Outcome) -> Response<Body> {
    response.extensions_mut().insert(outcome);
    response
}

/// The last event of a stream that has used what was reserved for it.
pub(crate) fn overrun_event(api: Api) -> String {
    let message = "The answer was cut off: it has used the budget that was reserved for it.";
    let told = Told { kind: Kind::Quota, message, limit: None, wait_s: None };
    let status = StatusCode::TOO_MANY_REQUESTS;
    match api {
        Api::AnthropicMessages => {
            format!("event: error\ndata: {}\n\n", told.body(status, Dialect::Anthropic))
        }
        Api::OpenAiResponses => {
            let mut body = told.body(status, Dialect::OpenAi);
            body["type"] = "error".into();
            body["code"] = body["error"]["code"].clone();
            body["message"] = message.into();
            body["param"] = serde_json::Value::Null;
            format!("event: error\ndata: {body}\n\n")
        }
        _ if api.maker() == Maker::Gemini => {
            format!("data: {}\n\n", told.body(status, Dialect::Gemini))
        }
        _ => format!("data: {}\n\n", told.body(status, Dialect::OpenAi)),
    }
}

fn error(status: StatusCode, kind: Kind, message: &str, dialect: Dialect) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Told { kind, message, limit: None, wait_s: None }.write(&mut response, dialect);
    response
}

fn set_json(response: &mut Response<Body>, content_type: &'static str, body: String) {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.body_mut() = Body::from(body);
}
