//! The demo API: enough of OpenAI's chat API to try all limits with curl or the official clients.

mod chat;
mod words;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// The demo's users, whose keys are in the built-in configuration.
pub(crate) const USERS: [&str; 2] = ["alice", "bob"];

const MODEL: &str = "demo";

/// The routes.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(|| async { HELP }))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/login", post(login))
        .route(
            "/v1/models",
            get(|| async { Json(json!({ "object": "list", "data": [model(MODEL)] })) }),
        )
        .route("/v1/models/{id}", get(|Path(id): Path<String>| async move { Json(model(&id)) }))
        .route("/v1/chat/completions", post(chat::complete))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "The demo has no such path; see GET /") })
}

const HELP: &str = "\
Tidegate's demo API, behind three layers of limits:

  ip      100 requests in any minute for each client address, on every path
  user    20 requests in any minute for each user, on authenticated paths
  budget  10,000 LLM tokens for each user and UTC day

GET  /health
POST /login                  {\"user\": \"alice\"}   gives a key, for alice or bob
POST /v1/chat/completions    with Authorization: Bearer demo-alice (or demo-bob)
GET  /v1/models

Type:

  curl -i localhost:8080/v1/chat/completions \\
    -H 'Authorization: Bearer demo-alice' -H 'Content-Type: application/json' \\
    -d '{\"model\": \"demo\", \"max_tokens\": 50, \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'

and look at RateLimit and RateLimit-Policy in the answer. The 21st call within a minute is denied by
`user`; with \"max_tokens\": 9000 or so, `budget` denies the second.
";

#[derive(Deserialize)]
struct Login {
    user: String,
}

/// Needs no key, so only the layer of the address limits it.
async fn login(
    login: Result<Json<Login>, axum::extract::rejection::JsonRejection>,
) -> axum::response::Response {
    match login {
        Ok(Json(Login { user })) if USERS.contains(&user.as_str()) => {
            Json(json!({ "user": user, "key": format!("demo-{user}") })).into_response()
        }
        Ok(_) => error(StatusCode::UNAUTHORIZED, "The demo's users are alice and bob."),
        Err(_) => error(StatusCode::BAD_REQUEST, "Send JSON such as {\"user\": \"alice\"}."),
    }
}

fn model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "tidegate" })
}

/// An error as OpenAI's API has them.
fn error(status: StatusCode, message: &str) -> axum::response::Response {
    let body = json!({
        "error": { "message": message, "type": "invalid_request_error", "param": null, "code": null },
    });
    (status, Json(body)).into_response()
}
