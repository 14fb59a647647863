//! A provider to put behind a gateway: it speaks each API with usage shaped as the real one's, keeps account of
//! what it would bill, and fails as it is told to.
//!
//! What a call wants is in its header `x-script`; see [`Script`]. So calls at a time do not disturb each other.

mod anthropic;
mod gemini;
pub mod ledger;
mod openai_chat;
mod openai_embeddings;
mod openai_responses;
mod reply;
mod script;

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

pub use ledger::Ledger;
use reply::{Answer, Error, reply};
use script::Script;

/// A provider that listens on loopback.
#[derive(Clone)]
pub struct Provider {
    pub address: SocketAddr,
    pub ledger: Ledger,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self { address: listener.local_addr().unwrap(), ledger: Ledger::default() };
        let router = Router::new().fallback(serve).with_state(provider.ledger.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }
}

/// How one API answers.
struct Api {
    name: &'static str,
    answer: fn(&Asked, &Script) -> Result<Answer, Error>,
    error: fn(StatusCode, &str) -> Value,
    /// The event of a stream that fails.
    failed: fn(StatusCode, &str) -> Value,
}

/// What a call asks.
struct Asked {
    path: String,
    query: String,
    body: Value,
    bytes: usize,
}

impl Asked {
    fn number(&self, name: &str) -> Option<u64> {
        self.body[name].as_u64()
    }

    /// The model in the body.
    fn model(&self) -> String {
        self.body["model"].as_str().unwrap_or("none").to_owned()
    }

    /// What the input is billed as: about four bytes to a token, and no less than what comes from a cache.
    fn input(&self, script: &Script) -> u64 {
        let bytes = (self.bytes as u64).div_ceil(4);
        bytes.max(script.cached + script.cache_write)
    }
}

fn api_of(path: &str) -> Option<Api> {
    let api = |name, answer, error: fn(StatusCode, &str) -> Value| {
        Some(Api { name, answer, error, failed: error })
    };
    match path {
        "/v1/chat/completions" => api("chat", openai_chat::chat, openai_chat::error),
        "/v1/completions" => api("completions", openai_chat::completions, openai_chat::error),
        "/v1/embeddings" => api("embeddings", openai_embeddings::answer, openai_chat::error),
        "/v1/responses" => {
            let api = api("responses", openai_responses::answer, openai_chat::error);
            api.map(|api| Api { failed: openai_responses::failed, ..api })
        }
        "/v1/messages" => api("messages", anthropic::answer, anthropic::error),
        _ if path.ends_with(":generateContent") => api("generate", gemini::whole, gemini::error),
        _ if path.ends_with(":streamGenerateContent") => {
            api("generate-stream", gemini::stream, gemini::error)
        }
        _ => None,
    }
}

async fn serve(State(ledger): State<Ledger>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if path == "/ledger" {
        return axum::Json(ledger.as_json()).into_response();
    }
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let bytes = body.to_bytes();
    let Some(api) = api_of(&path).filter(|_| parts.method == Method::POST) else {
        return axum::Json(json!({ "object": "list", "data": [] })).into_response();
    };
    let header = parts.headers.get("x-script").map_or("", |value| value.to_str().unwrap());
    let script = ledger.faults_once(Script::parse(header));
    let bill = ledger.open(api.name, &parts.headers, bytes.clone());
    let refuse = |status: StatusCode, message: &str| {
        let mut response = axum::Json((api.error)(status, message)).into_response();
        *response.status_mut() = status;
        if let Some(seconds) = script.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    };
    if let Some(status) = script.status {
        return refuse(
            StatusCode::from_u16(status).unwrap(),
            "The provider fails, as it was told.",
        );
    }
    let Some(asked) = asked(&parts, &bytes) else {
        return refuse(StatusCode::BAD_REQUEST, "The body is no JSON object.");
    };
    match (api.answer)(&asked, &script) {
        Ok(answer) => reply(answer, script, bill, api.failed).await,
        Err(Error(message)) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

fn asked(parts: &http::request::Parts, bytes: &Bytes) -> Option<Asked> {
    let body: Value = serde_json::from_slice(bytes).ok()?;
    body.is_object().then(|| Asked {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body,
        bytes: bytes.len(),
    })
}
