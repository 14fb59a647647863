//! The way of a request: who calls, what it costs, may it pass, pass it on, settle.

mod body_room;
mod held_body;
mod metered;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use prometheus_client::metrics::counter::Counter;
use tidegate::policy::{
    Call, Held, KeyPart, Policy, Refusal, Rule, Verdict, canonical_path, has_dot_segments,
};
use tidegate::{Money, TrustedProxies};
use tidegate::{Reservation, policy::PathPattern};
use tidegate_redis::RedisBackend;
use tidegate_tower::{HeadersOf, PeerAddr, client_ip};

use crate::admin::{Blocks, Names};
use crate::answer::{self, Dialect, LimitFields};
use crate::client::{Arriving, Patience, odd_framing};
use crate::config::{Config, Fixed, Operation};
use crate::identity::{FailedLogins, Identified, Identity, Who};
use crate::llm::{self, Route};
use crate::log;
use crate::metrics::{METRICS, Outcome, measured, outside};
use crate::prices::{Prices, Unpriced};
use crate::providers::{ProviderUrls, Providers};
use crate::tasks::Tasks;
use crate::traces::CallSpan;
pub(crate) use body_room::SHARE;
use body_room::{BodyRoom, Client};
use held_body::{HeldBody, Place};

/// Everything that a request meets.
pub(crate) struct Gateway {
    policy: Policy,
    redis: Option<RedisBackend>,
    proxies: TrustedProxies,
    identity: Identity,
    failed_logins: FailedLogins,
    auth_required: Vec<PathPattern>,
    auth_open: Vec<PathPattern>,
    patience: Patience,
    llm: llm::Settings,
    prices: Prices,
    /// Whether a rule looks at the model of a call.
    looks_at_model: bool,
    providers: Arc<Providers>,
    provider_urls: ProviderUrls,
    /// Where denials are counted, by rule.
    denials: Vec<(Box<str>, Counter)>,
    fixed: Fixed,
    operation: Operation,
    blocks: Option<Arc<Blocks>>,
    names: Option<Arc<Names>>,
    /// What outlives a call's connection.
    tasks: Tasks,
    /// What bodies take, under former configurations too.
    bodies: BodyRoom,
}

/// Who calls, as far as it is known, and what.
struct Caller {
    ip: Option<IpAddr>,
    who: Option<Arc<Who>>,
    route: Route,
    span: CallSpan,
}

impl Caller {
    fn user(&self) -> Option<&str> {
        self.who.as_ref().map(|who| &*who.user)
    }

    /// Who it is, when memory is parted among clients.
    fn client(&self) -> Client<'_> {
        self.user().map_or(Client::Ip(self.ip), Client::User)
    }

    /// The call that a request is, as far as its head says.
    fn call<'a>(&'a self, parts: &'a Parts, headers: &'a HeadersOf<'a>) -> Call<'a> {
        let call = Call::new(parts.method.as_str(), parts.uri.path());
        let call = call.with_headers(headers).on_route(self.route.name());
        let call = match &self.route {
            Route::Metered(_, Some(model)) => call.on_model(model),
            _ => call,
        };
        let call = self.ip.map_or(call, |ip| call.from_ip(ip));
        let Some(who) = &self.who else { return call };
        let call = call.by_user(&who.user);
        let call = who.team.as_deref().map_or(call, |team| call.of_team(team));
        who.key.as_deref().map_or(call, |key| call.by_api_key(key))
    }
}

/// What is known of a call beside its head.
#[derive(Clone, Copy, Default)]
struct Known<'a> {
    llm_tokens: Option<u64>,
    money: Option<Money>,
    model: Option<&'a str>,
}

impl<'a> Known<'a> {
    fn add_to(self, call: Call<'a>) -> Call<'a> {
        let call = self.llm_tokens.map_or(call, |tokens| call.with_llm_tokens(tokens));
        let call = self.money.map_or(call, |money| call.with_money(money));
        self.model.map_or(call, |model| call.on_model(model))
    }
}

/// A call that may pass.
struct Allowed {
    fields: LimitFields,
    reservation: Option<Reservation<Held>>,
}

/// The response to a call that may not.
type Denied = Box<Response<Body>>;

impl Gateway {
    /// The gateway of a configuration, after a former one, if there is one.
    pub(crate) fn new(config: Config, former: Option<&Self>) -> Self {
        let fixed = config.fixed();
        // With its open connections.
        let same = former.filter(|former| former.provider_urls == config.providers);
        let providers = same.map(|former| former.providers.clone());
        let policies = [&config.policy, config.failed_logins.policy()];
        let rules = policies.iter().flat_map(|policy| policy.rules());
        let denials = rules.map(|rule| (rule.name().into(), METRICS.denials_of(rule.name())));
        let looks_at_model =
            |rule: &Rule| rule.key().contains(&KeyPart::Model) || rule.matches().looks_at_model();
        Self {
            looks_at_model: config.policy.rules().iter().any(looks_at_model),
            denials: denials.collect(),
            blocks: None,
            names: None,
            tasks: Tasks::default(),
            bodies: former.map(|former| former.bodies.clone()).unwrap_or_default(),
            fixed,
            operation: config.operation,
            policy: config.policy,
            redis: config.redis,
            proxies: TrustedProxies::new(config.trusted_proxies),
            identity: config.identity,
            failed_logins: config.failed_logins,
            auth_required: config.auth_required,
            auth_open: config.auth_open,
            patience: config.patience,
            llm: config.llm,
            prices: config.prices,
            providers: providers
                .unwrap_or_else(|| Arc::new(Providers::new(config.providers.clone()))),
            provider_urls: config.providers,
        }
    }

    /// The same gateway, which keeps out whom operators block, and notes for them who calls.
    pub(crate) fn operated(self, blocks: Arc<Blocks>, names: Arc<Names>) -> Self {
        Self { blocks: Some(blocks), names: Some(names), ..self }
    }

    /// The same gateway, whose tasks are among these.
    pub(crate) fn among(self, tasks: Tasks) -> Self {
        Self { tasks, ..self }
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The server that rules are on which several gateways share.
    pub(crate) const fn redis(&self) -> Option<&RedisBackend> {
        self.redis.as_ref()
    }

    pub(crate) const fn failed_logins(&self) -> &FailedLogins {
        &self.failed_logins
    }

    /// What takes a restart to change.
    pub(crate) const fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// How it is operated.
    pub(crate) const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Answers a request that came from this address, and counts it.
    pub(crate) async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let span = CallSpan::begin(request.method(), request.uri().path(), request.headers());
        // It is moved several times before it runs, and large.
        let answering = self.answer(request, peer, span.clone());
        let (response, added) = measured(Box::pin(answering)).await;
        let outcome = response.extensions().get().copied().unwrap_or(Outcome::Passed);
        METRICS.call(outcome, added);
        if !span.is_kept() {
            return response;
        }
        span.answered(response.status(), outcome);
        response.map(|body| Body::new(HeldBody::new(body, span)))
    }

    /// Answers a request that came from this address.
    async fn answer<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
        span: CallSpan,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (mut parts, body) = request.map(Body::new).into_parts();
        parts.extensions.insert(PeerAddr(peer));
        span.propagate(&mut parts.headers);
        let identified = self.identity.identify(&parts.headers, peer.ip());
        self.identity.strip(&mut parts.headers, peer.ip());
        let path = parts.uri.path();
        let must_be_known = self.must_be_known(path);
        let (who, refused) = match identified {
            Identified::Known(who) => (Some(who), None),
            Identified::Stranger => (None, None),
            Identified::Refused(reason) => (None, Some(reason)),
        };
        let route = Route::of(&parts.method, path, &parts.headers);
        let caller = Caller { ip: client_ip(&parts, &self.proxies), who, route, span };
        caller.span.caller(caller.ip, caller.user(), caller.route.name());
        let dialect = caller.route.maker().dialect();
        let block = self.blocks.as_ref().and_then(|all| all.find(caller.ip, caller.who.as_deref()));
        if let Some(block) = block {
            return answer::blocked(&block, dialect);
        }
        if must_be_known && caller.who.is_none() {
            return self.refuse(&parts, &caller, refused.as_deref(), dialect).await;
        }
        if let Some((status, message)) = odd_framing(&parts.headers) {
            let mut refused = answer::bad_request(status, message, dialect);
            // Where the next request begins is a matter of opinion, too.
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return self.count_and_answer(&parts, &caller, refused, dialect).await;
        }
        if has_dot_segments(parts.uri.path()) {
            let message = "The path has a segment `.` or `..`; send the path that it leads to.";
            let refused = answer::bad_request(StatusCode::BAD_REQUEST, message, dialect);
            return self.count_and_answer(&parts, &caller, refused, dialect).await;
        }
        match &caller.route {
            Route::Metered(api, model) => {
                let route = (*api, model.clone());
                self.handle_llm(parts, body, &caller, route).await
            }
            Route::Free(_) | Route::Unknown(_) => {
                self.handle_plain(parts, body, &caller, dialect).await
            }
        }
    }

    /// Whether only known callers may call a path. Of a path that all may call, only the plain spelling is open:
    /// others are read differently by some servers.
    fn must_be_known(&self, path: &str) -> bool {
        let applies = |patterns: &[PathPattern]| patterns.iter().any(|one| one.applies_to(path));
        let is_open = || canonical_path(path) == path && applies(&self.auth_open);
        applies(&self.auth_required) && !is_open()
    }

    /// Answers a caller who must be known, and is not. The layers below identity still count it, and
    /// those who try wrong keys may do so only so often.
    async fn refuse(
        &self,
        parts: &Parts,
        caller: &Caller,
        reason: Option<&str>,
        dialect: Dialect,
    ) -> Response<Body> {
        let allowed = match self.decide_free(parts, caller, dialect).await {
            Err(denied) => return *denied,
            Ok(allowed) => allowed,
        };
        allowed.reservation.into_iter().for_each(Reservation::cancel);
        if reason.is_some()
            && let Verdict::Deny(refusal) = self.failed_logins.count(caller.ip)
        {
            return self.deny(&refusal, parts, caller, None, dialect);
        }
        with_fields(allowed.fields, answer::unauthorized(reason, dialect))
    }

    /// A call that uses no LLM tokens, or none that can be counted, which rules on them deny.
    async fn handle_plain(
        &self,
        parts: Parts,
        body: Body,
        caller: &Caller,
        dialect: Dialect,
    ) -> Response<Body> {
        let decided = match caller.route {
            Route::Free(_) => self.decide_free(&parts, caller, dialect).await,
            _ => self.decide(Known::default(), &parts, caller, dialect).await,
        };
        let allowed = match decided {
            Err(denied) => return *denied,
            Ok(allowed) => allowed,
        };
        let is_login = self.failed_logins.are_on(&parts.method, parts.uri.path());
        // Counted before it is known whether it fails, so that no storm gets past the limit.
        if is_login && let Verdict::Deny(refusal) = self.failed_logins.count(caller.ip) {
            return self.deny(&refusal, &parts, caller, None, dialect);
        }
        let maker = caller.route.maker();
        let body = Body::new(Arriving::new(body, self.patience.body));
        let request = Request::from_parts(parts, body);
        let answer = outside(self.providers.send(request, caller.ip, maker)).await;
        let response = answer.unwrap_or_else(|error| answer::upstream_failed(error, dialect));
        if is_login && !tells_of_a_wrong_password(response.status()) {
            self.failed_logins.forgive(caller.ip);
        }
        let response = match allowed.reservation {
            None => response,
            Some(reservation) => {
                response.map(|body| Body::new(HeldBody::new(body, Place::new(reservation))))
            }
        };
        with_fields(allowed.fields, response)
    }

    /// Asks the policy for a call that costs nothing but itself, and charges.
    async fn decide_free(
        &self,
        parts: &Parts,
        caller: &Caller,
        dialect: Dialect,
    ) -> Result<Allowed, Denied> {
        self.decide(self.free(), parts, caller, dialect).await
    }

    /// Asks the policy, and charges.
    async fn decide(
        &self,
        known: Known<'_>,
        parts: &Parts,
        caller: &Caller,
        dialect: Dialect,
    ) -> Result<Allowed, Denied> {
        match self.ask(known, parts, caller).await {
            Verdict::Allow(grant) => {
                let fields = LimitFields::of(grant.standings(), dialect);
                Ok(Allowed { fields, reservation: grant.into_reservation() })
            }
            Verdict::Deny(refusal) => {
                Err(Box::new(self.deny(&refusal, parts, caller, None, dialect)))
            }
        }
    }

    /// Asks the policy, charges, and notes who calls. Waits only for rules that are on a server.
    async fn ask(&self, known: Known<'_>, parts: &Parts, caller: &Caller) -> Verdict<'_> {
        let headers = HeadersOf(&parts.headers);
        let call = || known.add_to(caller.call(parts, &headers));
        // A call may hold what must stay on this thread, so none is held while a server is asked.
        let deciding = match self.policy.engine() {
            None => Ok(self.policy.decide(&call())),
            Some(_) => Err(self.policy.decide_async(&call())),
        };
        let verdict = match deciding {
            Ok(verdict) => verdict,
            Err(deciding) => {
                let verdict = outside(deciding).await;
                METRICS.decided(verdict.standings());
                verdict
            }
        };
        if let Some(names) = &self.names {
            names.note(verdict.standings(), &call());
        }
        verdict
    }

    /// A call that uses no LLM tokens and no money.
    fn free(&self) -> Known<'static> {
        Known { llm_tokens: Some(0), money: Some(self.prices.money(0)), model: None }
    }

    fn deny(
        &self,
        refusal: &Refusal<'_>,
        parts: &Parts,
        caller: &Caller,
        unpriced: Option<&Unpriced>,
        dialect: Dialect,
    ) -> Response<Body> {
        let rule = refusal.rule().name();
        caller.span.denied_by(rule);
        if let Some((_, count)) = self.denials.iter().find(|(name, _)| **name == *rule) {
            count.inc();
        }
        let Some(left_out) = log::denial_line() else {
            return answer::denied(refusal, unpriced, dialect, &parts.headers);
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
        answer::denied(refusal, unpriced, dialect, &parts.headers)
    }
}

/// Whether the answer to a log-in may be that the password is wrong: 401, and by RFC 6749, 5.2, 400 as well. All
/// else that is a client's error is taken for one, but what says that nobody logs in there.
fn tells_of_a_wrong_password(status: StatusCode) -> bool {
    status.is_client_error()
        && ![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status)
}

fn with_fields(fields: LimitFields, mut response: Response<Body>) -> Response<Body> {
    fields.put_into(response.headers_mut());
    response
}
