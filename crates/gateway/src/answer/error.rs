//! [`Told`]: what went wrong, as each provider's API has it.

use axum::body::Body;
use http::header::HeaderValue;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Dialect, set_json};

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Too many requests, for now.
    Requests,
    /// Too many tokens or too much money, for a short time.
    Tokens,
    /// A budget that is spent.
    Quota,
    Forbidden,
    /// An operator keeps the caller out.
    Blocked,
    Unauthorized,
    BadRequest,
    Upstream,
    /// The server that counts a limit does not answer.
    Unavailable,
    /// There is no memory for it now.
    Overloaded,
}

/// What went wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) kind: Kind,
    pub(super) message: &'a str,
    /// The rule that denied.
    pub(super) limit: Option<&'a str>,
    pub(super) wait_s: Option<u64>,
}

impl Told<'_> {
    /// Makes it the body of a response.
    pub(super) fn write(&self, response: &mut Response<Body>, dialect: Dialect) {
        let status = response.status();
        let mut body = self.body(status, dialect);
        let content_type = match dialect {
            Dialect::Plain => "application/problem+json",
            _ => "application/json",
        };
        if dialect == Dialect::Anthropic {
            let id = request_id();
            if let Ok(value) = HeaderValue::try_from(&id) {
                response.headers_mut().insert("request-id", value);
            }
            body["request_id"] = id.into();
        }
        set_json(response, content_type, body.to_string());
    }

    pub(super) fn body(&self, status: StatusCode, dialect: Dialect) -> Value {
        match dialect {
            Dialect::Plain => self.plain(status),
            Dialect::OpenAi => self.openai(),
            Dialect::Anthropic => self.anthropic(status),
            Dialect::Gemini => self.gemini(status),
        }
    }

    fn plain(&self, status: StatusCode) -> Value {
        let title = status.canonical_reason().unwrap_or("Error");
        json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "detail": self.message,
        })
    }

    fn openai(&self) -> Value {
        let (kind, code) = match self.kind {
            Kind::Requests => ("requests", "rate_limit_exceeded"),
            Kind::Tokens => ("tokens", "rate_limit_exceeded"),
            Kind::Quota => ("insufficient_quota", "insufficient_quota"),
            Kind::Forbidden => ("invalid_request_error", "not_allowed"),
            Kind::Blocked => ("permission_error", "blocked"),
            Kind::Unauthorized => ("invalid_request_error", "invalid_api_key"),
            Kind::BadRequest => ("invalid_request_error", "invalid_request"),
            Kind::Upstream => ("api_error", "upstream_failed"),
            Kind::Unavailable => ("api_error", "limits_unavailable"),
            Kind::Overloaded => ("api_error", "overloaded"),
        };
        json!({ "error": { "message": self.message, "type": kind, "param": null, "code": code } })
    }

    fn anthropic(&self, status: StatusCode) -> Value {
        let kind = match self.kind {
            Kind::Requests | Kind::Tokens | Kind::Quota => "rate_limit_error",
            Kind::Forbidden | Kind::Blocked => "permission_error",
            Kind::Unauthorized => "authentication_error",
            Kind::BadRequest if status == StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            Kind::BadRequest => "invalid_request_error",
            Kind::Upstream | Kind::Unavailable => "api_error",
            Kind::Overloaded => "overloaded_error",
        };
        json!({ "type": "error", "error": { "type": kind, "message": self.message } })
    }

    fn gemini(&self, status: StatusCode) -> Value {
        let name = match self.kind {
            Kind::Requests | Kind::Tokens | Kind::Quota => "RESOURCE_EXHAUSTED",
            Kind::Forbidden | Kind::Blocked => "PERMISSION_DENIED",
            Kind::Unauthorized => "UNAUTHENTICATED",
            Kind::BadRequest => "INVALID_ARGUMENT",
            Kind::Upstream if status == StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
            Kind::Upstream | Kind::Unavailable | Kind::Overloaded => "UNAVAILABLE",
        };
        let mut details = Vec::new();
        if let Some(limit) = self.limit {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{ "subject": limit, "description": self.message, "quotaId": limit }],
            }));
        }
        if let Some(secs) = self.wait_s {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{secs}s"),
            }));
        }
        let mut error = json!({ "code": status.as_u16(), "message": self.message, "status": name });
        if !details.is_empty() {
            error["details"] = details.into();
        }
        json!({ "error": error })
    }
}

/// An id for people to find this answer by, in the form of Anthropic's.
fn request_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    // Keys of a `RandomState` differ from one to the next, so this needs no other randomness.
    let random = |seed: u8| RandomState::new().hash_one(seed);
    format!("req_{:016x}{:08x}", random(0), random(1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_reads_as_each_api_has_it() {
        let told = Told { kind: Kind::Quota, message: "m", limit: Some("day"), wait_s: Some(9) };
        let body = |dialect| told.body(StatusCode::TOO_MANY_REQUESTS, dialect);
        assert_eq!(
            body(Dialect::OpenAi),
            json!({"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}})
        );
        assert_eq!(
            body(Dialect::Anthropic),
            json!({"type":"error","error":{"type":"rate_limit_error","message":"m"}})
        );
        let gemini = body(Dialect::Gemini);
        assert_eq!(gemini["error"]["status"], "RESOURCE_EXHAUSTED");
        assert_eq!(gemini["error"]["code"], 429);
        assert_eq!(gemini["error"]["details"][0]["violations"][0]["quotaId"], "day");
        assert_eq!(gemini["error"]["details"][1]["retryDelay"], "9s");
        assert_eq!(body(Dialect::Plain)["detail"], "m");
    }
}
