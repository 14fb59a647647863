//! Denials for gRPC, whose clients take a bare 429 for UNAVAILABLE.

use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap};
use tidegate::Retry;
use tidegate::policy::Refusal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::Problem;

pub(crate) fn is_grpc(request: &HeaderMap) -> bool {
    let content_type = request.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// RESOURCE_EXHAUSTED, with the details that gRPC clients look for.
pub(crate) fn respond(refusal: &Refusal<'_>) -> Response<()> {
    let problem = Problem::of(refusal);
    let mut details = ErrorDetails::new();
    details.add_quota_failure_violation(refusal.rule().name(), problem.detail());
    if let Retry::After(wait) = refusal.retry() {
        details.set_retry_info(Some(wait));
    }
    let code = match problem.status() {
        429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        _ => Code::PermissionDenied,
    };
    Status::with_error_details(code, problem.detail(), details).into_http()
}
