//! The way of a request: who calls, what it costs, may it pass, pass it on, settle.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tidegate::TrustedProxies;
use tidegate::policy::{Call, Held, Policy, Refusal, Verdict};
use tidegate::{Reservation, policy::PathPattern};
use tidegate_tower::{Fields, HeadersOf, PeerAddr, Rendered, client_ip};

use crate::answer::{self, Dialect};
use crate::config::Config;
use crate::identity::Users;
use crate::llm::{ChatRequest, Meter};
use crate::upstream::{Upstream, UpstreamError};

/// Everything that a request meets.
pub(crate) struct Gateway {
    policy: Policy,
    proxies: TrustedProxies,
    users: Users,
    auth_required: Vec<PathPattern>,
    chat: PathPattern,
    upstream: Upstream,
}

/// The largest body of an LLM call, which must be read whole to know its cost.
const MAX_LLM_BODY: usize = 4 << 20;

/// How long an LLM call's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who calls, as far as it is known.
struct Caller {
    ip: Option<IpAddr>,
    user: Option<String>,
    /// Whether it must be known who it is.
    must_be_known: bool,
}

/// A call that may pass.
struct Allowed {
    fields: Rendered,
    reservation: Option<Reservation<Held>>,
}

/// The response to a call that may not.
type Denied = Box<Response<Body>>;

impl Gateway {
    pub(crate) fn new(config: Config) -> Self {
        let Ok(chat) = "/v1/chat/completions".parse() else { unreachable!("a path") };
        Self {
            policy: config.policy,
            proxies: TrustedProxies::new(config.trusted_proxies),
            users: config.users,
            auth_required: config.auth_required,
            chat,
            upstream: Upstream::new(config.upstream),
        }
    }

    /// Answers a request that came from this address.
    pub(crate) async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (mut parts, body) = request.map(Body::new).into_parts();
        parts.extensions.insert(PeerAddr(peer));
        let path = parts.uri.path();
        let caller = Caller {
            ip: client_ip(&parts, &self.proxies),
            user: self.users.identify(&parts.headers).map(str::to_owned),
            must_be_known: self.auth_required.iter().any(|pattern| pattern.applies_to(path)),
        };
        let is_chat = parts.method == http::Method::POST && self.chat.applies_to(path);
        let dialect =
            if path.starts_with("/v1/") || is_chat { Dialect::OpenAi } else { Dialect::Plain };
        if caller.must_be_known && caller.user.is_none() {
            // The layers below identity still count it, or guessing keys would be free.
            return match self.decide(&parts, &caller, 0, dialect) {
                Err(denied) => *denied,
                Ok(allowed) => with_fields(allowed.fields, answer::unauthorized(dialect)),
            };
        }
        if is_chat {
            self.handle_chat(parts, body, &caller).await
        } else {
            self.handle_plain(parts, body, &caller, dialect).await
        }
    }

    /// A call that uses no LLM tokens.
    async fn handle_plain(
        &self,
        parts: Parts,
        body: Body,
        caller: &Caller,
        dialect: Dialect,
    ) -> Response<Body> {
        let allowed = match self.decide(&parts, caller, 0, dialect) {
            Err(denied) => return *denied,
            Ok(allowed) => allowed,
        };
        let answer = self.upstream.send(Request::from_parts(parts, body), caller.ip).await;
        let response = answer.unwrap_or_else(|error| answer::upstream_failed(error, dialect));
        with_fields(allowed.fields, response)
    }

    /// An LLM call: its body says what to reserve, its answer what to settle.
    async fn handle_chat(&self, mut parts: Parts, body: Body, caller: &Caller) -> Response<Body> {
        let dialect = Dialect::OpenAi;
        // A body is read only for a caller who could be allowed.
        if let Verdict::Deny(refusal) =
            self.policy.peek(&call(&parts, &HeadersOf(&parts.headers), caller, 0))
        {
            return self.deny(&refusal, &parts, caller, dialect);
        }
        let chat = match read_chat(body).await {
            Ok(chat) => chat,
            // It is counted as a request, though it is passed on to nobody.
            Err(problem) => {
                return match self.decide(&parts, caller, 0, dialect) {
                    Err(denied) => *denied,
                    Ok(allowed) => with_fields(allowed.fields, *problem),
                };
            }
        };
        let Allowed { fields, reservation } =
            match self.decide(&parts, caller, chat.estimate(), dialect) {
                Err(denied) => return *denied,
                Ok(allowed) => allowed,
            };
        let body = chat.body();
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        // The usage must be readable as it passes.
        parts.headers.remove(ACCEPT_ENCODING);
        let request = Request::from_parts(parts, Body::from(body));
        let response = match self.upstream.send(request, caller.ip).await {
            Ok(response) => Meter::attach(response, reservation, chat.hides_usage()),
            Err(error) => {
                if let (UpstreamError::NotSent, Some(reservation)) = (error, reservation) {
                    reservation.cancel();
                }
                answer::upstream_failed(error, dialect)
            }
        };
        with_fields(fields, response)
    }

    /// Keeps what is reserved for calls that are under way here, and gives back what gateways that have
    /// died had reserved; tells how many of the latter there were.
    pub(crate) fn renew_and_return_expired(&self) -> usize {
        self.policy.renew_reservations();
        self.policy.return_expired()
    }

    /// Asks the policy, and charges.
    fn decide(
        &self,
        parts: &Parts,
        caller: &Caller,
        llm_tokens: u64,
        dialect: Dialect,
    ) -> Result<Allowed, Denied> {
        match self.policy.decide(&call(parts, &HeadersOf(&parts.headers), caller, llm_tokens)) {
            Verdict::Allow(grant) => {
                let fields = Fields::Ietf.render(grant.standings());
                Ok(Allowed { fields, reservation: grant.into_reservation() })
            }
            Verdict::Deny(refusal) => Err(Box::new(self.deny(&refusal, parts, caller, dialect))),
        }
    }

    fn deny(
        &self,
        refusal: &Refusal<'_>,
        parts: &Parts,
        caller: &Caller,
        dialect: Dialect,
    ) -> Response<Body> {
        tracing::info!(
            rule = refusal.rule().name(),
            user = caller.user.as_deref(),
            ip = caller.ip.map(tracing::field::display),
            "denied {} {}",
            parts.method,
            parts.uri.path(),
        );
        answer::denied(refusal, dialect, &parts.headers)
    }
}

/// The call that a request is, at this cost.
fn call<'a>(
    parts: &'a Parts,
    headers: &'a HeadersOf<'a>,
    caller: &'a Caller,
    llm_tokens: u64,
) -> Call<'a> {
    let call = Call::new(parts.method.as_str(), parts.uri.path());
    let call = call.with_headers(headers).with_llm_tokens(llm_tokens);
    let call = caller.ip.map_or(call, |ip| call.from_ip(ip));
    caller.user.as_deref().map_or(call, |user| call.by_user(user))
}

/// Reads an LLM call's body. `Err` is the response to one that is none.
async fn read_chat(body: Body) -> Result<ChatRequest, Denied> {
    let refuse = |status, message: &str| Err(Box::new(answer::bad_request(status, message)));
    let limited = Limited::new(body, MAX_LLM_BODY).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive."),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("The body is too large; send at most {MAX_LLM_BODY} bytes.");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, &message);
        }
        Ok(Err(_)) => return refuse(StatusCode::BAD_REQUEST, "The body broke off."),
        Ok(Ok(body)) => body.to_bytes(),
    };
    ChatRequest::parse(&body).or_else(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn with_fields(mut fields: Rendered, mut response: Response<Body>) -> Response<Body> {
    fields.append_to(response.headers_mut());
    response
}
