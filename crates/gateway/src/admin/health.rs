//! Whether the gateway lives and takes calls, and what it counts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::live::Live;
use crate::metrics;

/// `/live` and `/ready`, for those who restart it and those who send it calls.
pub(super) fn router(live: &Arc<Live>) -> Router {
    Router::new()
        .route("/live", get(|| async { plain(StatusCode::OK, "live\n") }))
        .route("/ready", get(ready))
        .with_state(live.clone())
}

/// `/metrics`, for Prometheus.
pub(super) fn metrics(live: &Arc<Live>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(live.clone())
}

async fn ready(State(live): State<Arc<Live>>) -> Response {
    if live.is_draining() {
        plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping: open requests end, new ones are not taken\n",
        )
    } else {
        plain(StatusCode::OK, "ready\n")
    }
}

async fn scrape(State(live): State<Arc<Live>>) -> Response {
    // It looks at every slot of every table.
    let text = tokio::task::spawn_blocking(move || metrics::scrape(&live.gateway())).await;
    match text {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be read\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}
