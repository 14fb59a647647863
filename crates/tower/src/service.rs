//! [`RateLimit`]: the service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tidegate::policy::{Call, Verdict};
use tower_service::Service;

use crate::fields::Rendered;
use crate::layer::Shared;
use crate::request::{HeadersOf, client_ip};
use crate::{LlmReservation, ResponseBody, denial};

/// A service whose calls are limited by a policy. Made by [`RateLimitLayer`](crate::RateLimitLayer).
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> RateLimit<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, R> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let shared = &*self.shared;
        let user = shared.user.as_ref().and_then(|identify| identify(&parts));
        let llm_tokens = shared.llm_tokens.as_ref().and_then(|count| count(&parts));
        let client = client_ip(&parts, &shared.proxies);
        let (fields, reservation) = {
            let headers = HeadersOf(&parts.headers);
            let call = Call::new(parts.method.as_str(), parts.uri.path()).with_headers(&headers);
            let call = client.map_or(call, |ip| call.from_ip(ip));
            let call = user.as_deref().map_or(call, |user| call.by_user(user));
            let call = llm_tokens.map_or(call, |tokens| call.with_llm_tokens(tokens));
            let verdict = shared.policy.decide(&call);
            let fields = shared.fields.render_knowing(verdict.standings(), Some(&shared.whole));
            if let Verdict::Deny(refusal) = &verdict {
                let response = denial::respond_with(refusal, fields, &parts.headers);
                return ResponseFuture { state: State::Denied { response: Some(response) } };
            }
            let Verdict::Allow(grant) = verdict else { unreachable!("denied above") };
            (fields, grant.into_reservation())
        };
        if let Some(reservation) = reservation {
            parts.extensions.insert(LlmReservation::new(reservation));
        }
        let future = self.inner.call(Request::from_parts(parts, body));
        ResponseFuture { state: State::Allowed { future, fields } }
    }
}

pin_project! {
    /// The response of a [`RateLimit`] service.
    pub struct ResponseFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> {
        Denied { response: Option<Response<ResponseBody<R>>> },
        Allowed { #[pin] future: F, fields: Rendered },
    }
}

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Denied { response } => {
                Poll::Ready(Ok(response.take().expect("polled after it was ready")))
            }
            StateProjection::Allowed { future, fields } => {
                let mut response = ready!(future.poll(context))?;
                fields.append_to(response.headers_mut());
                Poll::Ready(Ok(response.map(ResponseBody::inner)))
            }
        }
    }
}
