//! [`RateLimit`]: the service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tidegate::Reservation;
use tidegate::policy::{Call, Held, Policy, Verdict};
use tower_service::Service;

use crate::fields::Rendered;
use crate::layer::Shared;
use crate::request::{HeadersOf, client_ip};
use crate::{ConcurrentPlace, LlmReservation, ResponseBody, denial};

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
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        if self.shared.policy.engine().is_some() {
            // The one that is ready is for this call.
            let inner = self.inner.clone();
            let inner = std::mem::replace(&mut self.inner, inner);
            let deciding = Box::pin(self.shared.clone().wait_for_decision(parts));
            let waiting = Box::new(Waiting { deciding, inner, body: Some(body) });
            return ResponseFuture { state: State::Waiting { waiting } };
        }
        let verdict = self.shared.with_call(&parts, |policy, call| policy.decide(call));
        let decided = self.shared.decided(&parts, verdict);
        ResponseFuture { state: State::after(decided, &mut self.inner, (parts, body)) }
    }
}

/// What became of a call.
#[allow(clippy::large_enum_variant, reason = "taken apart at once, on the way of every call")]
enum Decided {
    Denied(Response<Bytes>),
    Allowed { fields: Rendered, reservation: Option<Reservation<Held>> },
}

impl Shared {
    /// Asks about the call that a request is.
    #[inline(always)]
    fn with_call<'p, T>(
        &'p self,
        parts: &Parts,
        ask: impl FnOnce(&'p Policy, &Call<'_>) -> T,
    ) -> T {
        let user = self.user.as_ref().and_then(|identify| identify(parts));
        let llm_tokens = self.llm_tokens.as_ref().and_then(|count| count(parts));
        let client = client_ip(parts, &self.proxies);
        let headers = HeadersOf(&parts.headers);
        let call = Call::new(parts.method.as_str(), parts.uri.path()).with_headers(&headers);
        let call = client.map_or(call, |ip| call.from_ip(ip));
        let call = user.as_deref().map_or(call, |user| call.by_user(user));
        let call = llm_tokens.map_or(call, |tokens| call.with_llm_tokens(tokens));
        ask(&self.policy, &call)
    }

    #[inline(always)]
    fn decided(&self, parts: &Parts, verdict: Verdict<'_>) -> Decided {
        let fields = self.fields.render_knowing(verdict.standings(), Some(&self.whole));
        match verdict {
            Verdict::Deny(refusal) => {
                Decided::Denied(denial::respond_with(&refusal, fields, &parts.headers))
            }
            Verdict::Allow(grant) => {
                Decided::Allowed { fields, reservation: grant.into_reservation() }
            }
        }
    }

    async fn wait_for_decision(self: Arc<Self>, parts: Parts) -> (Parts, Decided) {
        let verdict = self.with_call(&parts, |policy, call| policy.decide_async(call)).await;
        let decided = self.decided(&parts, verdict);
        (parts, decided)
    }
}

/// A call that a server is asked about. Boxed: answers at once move no room for it about.
struct Waiting<S, B> {
    deciding: Pin<Box<dyn Future<Output = (Parts, Decided)> + Send>>,
    inner: S,
    body: Option<B>,
}

pin_project! {
    /// The response of a [`RateLimit`] service.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        Waiting { waiting: Box<Waiting<S, B>> },
        Denied { response: Option<Response<ResponseBody<R>>> },
        Allowed { #[pin] future: S::Future, fields: Rendered, place: Option<ConcurrentPlace> },
    }
}

impl<S, B, R> State<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    /// In line, as are the two steps before: what they hand on is too large to be copied each time.
    #[inline(always)]
    fn after(decided: Decided, inner: &mut S, (mut parts, body): (Parts, B)) -> Self {
        match decided {
            Decided::Denied(response) => {
                Self::Denied { response: Some(response.map(ResponseBody::full)) }
            }
            Decided::Allowed { fields, reservation } => {
                let place = reservation.and_then(|reservation| hand_on(reservation, &mut parts));
                let future = inner.call(Request::from_parts(parts, body));
                Self::Allowed { future, fields, place }
            }
        }
    }
}

/// Hands the handler what it settles, and keeps the call's place: handlers may be done with the request long
/// before they answer.
#[inline(never)] // most calls reserve nothing
fn hand_on(reservation: Reservation<Held>, parts: &mut Parts) -> Option<ConcurrentPlace> {
    let (used, place) = reservation.split_places();
    if let Some(used) = used {
        parts.extensions.insert(LlmReservation::new(used));
    }
    let place = place.map(ConcurrentPlace::new);
    if let Some(place) = &place {
        parts.extensions.insert(place.clone());
    }
    place
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project().state.project() {
                StateProjection::Waiting { waiting } => {
                    let (parts, decided) = ready!(waiting.deciding.as_mut().poll(context));
                    let body = waiting.body.take().expect("polled after it was ready");
                    State::after(decided, &mut waiting.inner, (parts, body))
                }
                StateProjection::Denied { response } => {
                    return Poll::Ready(Ok(response.take().expect("polled after it was ready")));
                }
                StateProjection::Allowed { future, fields, place } => {
                    let mut response = ready!(future.poll(context))?;
                    fields.append_to(response.headers_mut());
                    let place = place.take();
                    return Poll::Ready(Ok(response.map(|body| ResponseBody::inner(body, place))));
                }
            };
            self.as_mut().project().state.set(next);
        }
    }
}
