//! The API for operators, and the page that uses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::policy::{KeyPart, Policy};

use super::blocks::{Block, Whom};
use super::health;
use super::overview::{STARTED, Usage, overview, unix_s};
use super::spec::Admin;
use super::subject::{NoAccount, Subject};
use crate::live::Live;

const PAGE: &str = include_str!("page.html");

/// All that operators can do, behind their token; and the page, which has no secrets itself.
pub(super) fn router(live: &Arc<Live>) -> Router {
    let _ = *STARTED;
    let guarded = Router::new()
        .route("/api/v1/overview", get(look))
        .route("/api/v1/usage", get(usage))
        .route("/api/v1/top-up", post(top_up))
        .route("/api/v1/reset", post(reset))
        .route("/api/v1/blocks", get(blocks))
        .route("/api/v1/block", post(block))
        .route("/api/v1/unblock", post(unblock))
        .route("/api/v1/reload", post(reload))
        .with_state(live.clone())
        .merge(health::metrics(live))
        .layer(middleware::from_fn_with_state(live.clone(), let_in));
    let unknown =
        || async { fail(StatusCode::NOT_FOUND, "there is nothing here; GET / is the page") };
    let wrong_method =
        || async { fail(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method") };
    Router::new()
        .route("/", get(page))
        .merge(guarded)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
}

/// Only who shows the token; and who shows wrong ones may do so only so often.
async fn let_in(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let gateway = live.gateway();
    // The one that is configured now: one that has leaked is of no use after a reload.
    let token = gateway.operation().admin.as_ref().map(Admin::token);
    if token.is_some_and(|token| token.is_shown_by(request.headers())) {
        let mut response = next.run(request).await;
        response.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        return response;
    }
    if !gateway.failed_logins().count(Some(peer.ip())).is_allow() {
        return fail(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens; wait a minute");
    }
    tracing::warn!(%peer, "an operator's request without the token: {} {}", request.method(), request.uri().path());
    let message = "this needs the token of the operators: send `Authorization: Bearer <token>`";
    let mut response = fail(StatusCode::UNAUTHORIZED, message);
    response.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    response
}

async fn page() -> Response {
    let headers: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
             connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

async fn look(State(live): State<Arc<Live>>) -> Response {
    let seen = tokio::task::spawn_blocking(move || serde_json::to_vec(&overview(&live))).await;
    match seen {
        Ok(Ok(json)) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        _ => fail(StatusCode::INTERNAL_SERVER_ERROR, "the tables cannot be read"),
    }
}

async fn usage(State(live): State<Arc<Live>>, Query(subject): Query<Subject>) -> Response {
    let gateway = live.gateway();
    let (usage, unavailable) = Usage::of(gateway.policy(), &subject).await;
    let mut told = json!({ "usage": usage });
    if !unavailable.is_empty() {
        told["unavailable"] = json!(unavailable);
    }
    Json(told).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopUp {
    rule: String,
    units: u64,
    of: Subject,
}

async fn top_up(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Answer {
    let asked: TopUp =
        read(&body, r#"{"rule": "budget", "units": 1000, "of": {"user": "alice"}}"#)?;
    let gateway = live.gateway();
    let account = asked.of.account(gateway.policy(), &asked.rule)?;
    if asked.units == 0 {
        return Err(cannot("`units` must be 1 or more"));
    }
    let before = account.standing().remaining();
    let left = account.top_up(asked.units).remaining();
    tracing::info!(%peer, rule = asked.rule, units = asked.units, before, left, "topped up {}", asked.of.in_words());
    Ok(Json(json!({ "rule": asked.rule, "left_before": before, "left": left })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    /// All rules that have such a key, when there is none.
    rule: Option<String>,
    of: Subject,
}

async fn reset(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Answer {
    let asked: Reset = read(&body, r#"{"rule": "budget", "of": {"user": "alice"}}"#)?;
    let gateway = live.gateway();
    let policy = gateway.policy();
    let every: Vec<String> = policy.rules().iter().map(|rule| rule.name().to_owned()).collect();
    let wanted = asked.rule.clone().map_or(every, |rule| vec![rule]);
    let (mut done, mut on_server) = (Vec::new(), Vec::new());
    for rule in wanted {
        match asked.of.account(policy, &rule) {
            // A rule for everybody is not meant when somebody is.
            Ok(_) if asked.rule.is_none() && is_for_everybody(policy, &rule) => {}
            Ok(account) => {
                let before = account.standing().remaining();
                let left = account.reset().remaining();
                tracing::info!(%peer, rule, before, left, "reset {}", asked.of.in_words());
                done.push(json!({ "rule": rule, "left_before": before, "left": left }));
            }
            Err(error) if asked.rule.is_some() => return Err(error.into()),
            Err(error) if error.is_on_server() && !is_for_everybody(policy, &rule) => {
                on_server.push(rule);
            }
            Err(_) => {}
        }
    }
    if done.is_empty() && !on_server.is_empty() {
        let rules = on_server.join("`, `");
        let message = format!("the state of `{rules}` is on a server; {ON_SERVER}");
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, message));
    }
    if done.is_empty() {
        return Err(cannot("no rule has such a key; say `user`, `ip` or another part"));
    }
    let mut told = json!({ "reset": done });
    if !on_server.is_empty() {
        // Nobody is to believe that these were reset.
        told["not_reset"] = json!(on_server);
    }
    Ok(Json(told))
}

fn is_for_everybody(policy: &Policy, rule: &str) -> bool {
    let mut rules = policy.rules().iter();
    rules.any(|known| known.name() == rule && known.key() == [KeyPart::Global])
}

async fn blocks(State(live): State<Arc<Live>>) -> Response {
    Json(json!({ "blocks": live.blocks().all() })).into_response()
}

#[derive(Deserialize)]
struct BlockAsked {
    #[serde(flatten)]
    whom: Whom,
    #[serde(default)]
    reason: String,
}

const BLOCK_EXAMPLE: &str =
    r#"{"user": "alice", "reason": "key leaked"}, or `team`, `key` or `ip`"#;

async fn block(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Answer {
    let asked: BlockAsked = read(&body, BLOCK_EXAMPLE)?;
    let since_s = unix_s(SystemTime::now());
    let block = Block { whom: asked.whom, reason: asked.reason, since_s };
    tracing::info!(%peer, reason = block.reason, "blocked {}", block.whom);
    changed(live.blocks().add(block), &live)
}

async fn unblock(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Answer {
    let asked: BlockAsked = read(&body, BLOCK_EXAMPLE)?;
    tracing::info!(%peer, "unblocked {}", asked.whom);
    changed(live.blocks().remove(&asked.whom), &live)
}

fn changed(result: Result<(), String>, live: &Live) -> Answer {
    result.map_err(cannot)?;
    Ok(Json(json!({ "blocks": live.blocks().all() })))
}

async fn reload(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Answer {
    tracing::info!(%peer, "asked to read the configuration again");
    let reloaded =
        tokio::task::spawn_blocking(move || live.reload().map_err(|error| error.to_string()));
    match reloaded.await {
        Ok(Ok(())) => Ok(Json(json!({ "reloaded": true }))),
        Ok(Err(message)) => Err(cannot(message)),
        Err(_) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "the reload broke off".into())),
    }
}

/// What was done, or why nothing was.
type Answer = Result<Json<Value>, Refused>;

/// Why something was not done.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        fail(self.0, &self.1)
    }
}

/// What would be right for a rule whose state machines share.
const ON_SERVER: &str = "this API changes only what this process keeps: to reset such a rule for everybody, delete \
                         its keys on the server, `{tidegate:<namespace>}:<rule>:*`; to give more, raise its limit";

impl From<NoAccount> for Refused {
    fn from(error: NoAccount) -> Self {
        if error.is_on_server() {
            return Self(StatusCode::NOT_IMPLEMENTED, format!("{error}; {ON_SERVER}"));
        }
        cannot(error.to_string())
    }
}

/// That what is asked for is understood, and cannot be done.
fn cannot(message: impl Into<String>) -> Refused {
    Refused(StatusCode::UNPROCESSABLE_ENTITY, message.into())
}

/// What a body asks for; or what would be right.
fn read<T: for<'de> Deserialize<'de>>(body: &[u8], example: &str) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the body is not what this takes: {error}; send {example}");
        Refused(StatusCode::BAD_REQUEST, message)
    })
}

fn fail(status: StatusCode, message: &str) -> Response {
    let body: Value = json!({ "error": message });
    (status, Json(body)).into_response()
}
