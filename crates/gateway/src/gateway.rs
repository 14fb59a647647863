//! The way of a request: who calls, what it costs, may it pass, pass it on, settle.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prometheus_client::metrics::counter::Counter;
use tidegate::TrustedProxies;
use tidegate::policy::{Call, Held, Policy, Refusal, Verdict};
use tidegate::{Reservation, policy::PathPattern};
use tidegate_tower::{Fields, HeadersOf, PeerAddr, Rendered, client_ip};

use crate::admin::{Blocks, Names};
use crate::answer::{self, Dialect};
use crate::config::{Config, Fixed};
use crate::identity::{FailedLogins, Identified, Identity, Who};
use crate::llm::{ChatRequest, Meter};
use crate::log;
use crate::metrics::{METRICS, Outcome, measured, outside};
use crate::upstream::{Upstream, UpstreamError, UpstreamUrl};

/// Everything that a request meets.
pub(crate) struct Gateway {
    policy: Policy,
    proxies: TrustedProxies,
    identity: Identity,
    failed_logins: FailedLogins,
    auth_required: Vec<PathPattern>,
    chat: PathPattern,
    upstream: Arc<Upstream>,
    upstream_url: Option<UpstreamUrl>,
    /// Where denials are counted, by rule.
    denials: Vec<(Box<str>, Counter)>,
    fixed: Fixed,
    blocks: Option<Arc<Blocks>>,
    names: Option<Arc<Names>>,
}

/// The largest body of an LLM call, which must be read whole to know its cost.
const MAX_LLM_BODY: usize = 4 << 20;

/// How long an LLM call's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who calls, as far as it is known.
struct Caller {
    ip: Option<IpAddr>,
    who: Option<Arc<Who>>,
}

impl Caller {
    fn user(&self) -> Option<&str> {
        self.who.as_ref().map(|who| &*who.user)
    }
}

/// A call that may pass.
struct Allowed {
    fields: Rendered,
    reservation: Option<Reservation<Held>>,
}

/// The response to a call that may not.
type Denied = Box<Response<Body>>;

impl Gateway {
    /// The gateway of a configuration, after a former one, if there is one.
    pub(crate) fn new(config: Config, former: Option<&Self>) -> Self {
        let Ok(chat) = "/v1/chat/completions".parse() else { unreachable!("a path") };
        let fixed = config.fixed();
        // With its open connections.
        let same = former.filter(|former| former.upstream_url == config.upstream);
        let upstream = same.map(|former| former.upstream.clone());
        let policies = [&config.policy, config.failed_logins.policy()];
        let rules = policies.iter().flat_map(|policy| policy.rules());
        let denials = rules.map(|rule| (rule.name().into(), METRICS.denials_of(rule.name())));
        Self {
            denials: denials.collect(),
            blocks: None,
            names: None,
            fixed,
            policy: config.policy,
            proxies: TrustedProxies::new(config.trusted_proxies),
            identity: config.identity,
            failed_logins: config.failed_logins,
            auth_required: config.auth_required,
            chat,
            upstream: upstream.unwrap_or_else(|| Arc::new(Upstream::new(config.upstream.clone()))),
            upstream_url: config.upstream,
        }
    }

    /// The same gateway, which keeps out whom operators block, and notes for them who calls.
    pub(crate) fn operated(self, blocks: Arc<Blocks>, names: Arc<Names>) -> Self {
        Self { blocks: Some(blocks), names: Some(names), ..self }
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) const fn failed_logins(&self) -> &FailedLogins {
        &self.failed_logins
    }

    /// What takes a restart to change.
    pub(crate) const fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// Answers a request that came from this address, and counts it.
    pub(crate) async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (response, added) = measured(self.answer(request, peer)).await;
        let outcome = response.extensions().get().copied().unwrap_or(Outcome::Passed);
        METRICS.call(outcome, added);
        response
    }

    /// Answers a request that came from this address.
    async fn answer<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (mut parts, body) = request.map(Body::new).into_parts();
        parts.extensions.insert(PeerAddr(peer));
        let identified = self.identity.identify(&parts.headers, peer.ip());
        self.identity.strip(&mut parts.headers, peer.ip());
        let path = parts.uri.path();
        let must_be_known = self.auth_required.iter().any(|pattern| pattern.applies_to(path));
        let (who, refused) = match identified {
            Identified::Known(who) => (Some(who), None),
            Identified::Stranger => (None, None),
            Identified::Refused(reason) => (None, Some(reason)),
        };
        let caller = Caller { ip: client_ip(&parts, &self.proxies), who };
        let is_chat = parts.method == http::Method::POST && self.chat.applies_to(path);
        let dialect =
            if path.starts_with("/v1/") || is_chat { Dialect::OpenAi } else { Dialect::Plain };
        let block = self.blocks.as_ref().and_then(|all| all.find(caller.ip, caller.who.as_deref()));
        if let Some(block) = block {
            return answer::blocked(&block, dialect);
        }
        if must_be_known && caller.who.is_none() {
            return self.refuse(&parts, &caller, refused.as_deref(), dialect);
        }
        if is_chat {
            self.handle_chat(parts, body, &caller).await
        } else {
            self.handle_plain(parts, body, &caller, dialect).await
        }
    }

    /// Answers a caller who must be known, and is not. The layers below identity still count it, and
    /// those who try wrong keys may do so only so often.
    fn refuse(
        &self,
        parts: &Parts,
        caller: &Caller,
        reason: Option<&str>,
        dialect: Dialect,
    ) -> Response<Body> {
        let allowed = match self.decide(parts, caller, 0, dialect) {
            Err(denied) => return *denied,
            Ok(allowed) => allowed,
        };
        if reason.is_some()
            && let Verdict::Deny(refusal) = self.failed_logins.count(caller.ip)
        {
            return self.deny(&refusal, parts, caller, dialect);
        }
        with_fields(allowed.fields, answer::unauthorized(reason, dialect))
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
        let is_login = self.failed_logins.are_on(&parts.method, parts.uri.path());
        // Counted before it is known whether it fails, so that no storm gets past the limit.
        if is_login && let Verdict::Deny(refusal) = self.failed_logins.count(caller.ip) {
            return self.deny(&refusal, &parts, caller, dialect);
        }
        let answer = outside(self.upstream.send(Request::from_parts(parts, body), caller.ip)).await;
        let response = answer.unwrap_or_else(|error| answer::upstream_failed(error, dialect));
        let failed = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status());
        if is_login && !failed {
            self.failed_logins.forgive(caller.ip);
        }
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
        let response = match outside(self.upstream.send(request, caller.ip)).await {
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

    /// Asks the policy, and charges.
    fn decide(
        &self,
        parts: &Parts,
        caller: &Caller,
        llm_tokens: u64,
        dialect: Dialect,
    ) -> Result<Allowed, Denied> {
        let headers = HeadersOf(&parts.headers);
        let call = call(parts, &headers, caller, llm_tokens);
        let verdict = self.policy.decide(&call);
        if let Some(names) = &self.names {
            names.note(verdict.standings(), &call);
        }
        match verdict {
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
        let rule = refusal.rule().name();
        if let Some((_, count)) = self.denials.iter().find(|(name, _)| **name == *rule) {
            count.inc();
        }
        let Some(left_out) = log::denial_line() else {
            return answer::denied(refusal, dialect, &parts.headers);
        };
        tracing::info!(
            rule,
            user = caller.user(),
            ip = caller.ip.map(tracing::field::display),
            left_out = (left_out > 0).then_some(left_out),
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
    let Some(who) = &caller.who else { return call };
    let call = call.by_user(&who.user);
    let call = who.team.as_deref().map_or(call, |team| call.of_team(team));
    who.key.as_deref().map_or(call, |key| call.by_api_key(key))
}

/// Reads an LLM call's body. `Err` is the response to one that is none.
async fn read_chat(body: Body) -> Result<ChatRequest, Denied> {
    let refuse = |status, message: &str| Err(Box::new(answer::bad_request(status, message)));
    let limited = Limited::new(body, MAX_LLM_BODY).collect();
    let body = match outside(tokio::time::timeout(BODY_TIMEOUT, limited)).await {
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
