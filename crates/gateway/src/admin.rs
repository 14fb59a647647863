//! For operators: a page and an API to see who used what, top up, reset and block; metrics and health. On
//! listeners of their own, which are off unless they are asked for.
//!
//! ```text
//! admin listener: /, /live, /ready; with the token: /metrics, /api/v1/...
//! metrics listener, without a token: /live, /ready, /metrics
//! ```

mod api;
mod blocks;
mod health;
mod names;
mod overview;
mod spec;
mod subject;
mod token;

pub(crate) use blocks::{Block, Blocks};
pub(crate) use names::Names;
pub(crate) use spec::{Admin, AdminSpec, MetricsSpec};
pub(crate) use token::TokenError;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use crate::config::Operation;
use crate::live::Live;
use crate::server::ServerError;

/// Where operators are served.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
}

/// Listens where operators are to be served, and serves them in the background.
pub(crate) async fn serve(operation: &Operation, live: &Arc<Live>) -> Result<Served, ServerError> {
    let mut served = Served::default();
    if let Some(admin) = &operation.admin {
        let router = health::router(live).merge(api::router(live));
        served.admin = Some(listen("admin", admin.listen, router).await?);
    }
    if let Some(address) = operation.metrics {
        let router = health::router(live).merge(health::metrics(live));
        served.metrics = Some(listen("metrics", address, router).await?);
    }
    Ok(served)
}

async fn listen(
    field: &'static str,
    address: SocketAddr,
    router: Router,
) -> Result<SocketAddr, ServerError> {
    let failed = |reason: io::Error| ServerError::Operation { field, address, reason };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, service).await {
            tracing::error!("{field} ended: {error}");
        }
    });
    Ok(address)
}
