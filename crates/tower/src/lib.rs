//! A tower layer that limits calls by a [`Policy`](tidegate::policy::Policy): for axum and any tower
//! stack.
//!
//! ```text
//! request -> RateLimit: Call (address, user, LLM tokens) -> Policy -> inner service -> fields
//!                                                              |
//!                                                              v
//!                                                   429, Retry-After, problem body
//! ```
//!
//! ```
//! use axum::{Router, routing::get};
//! use tidegate::policy::Policy;
//! use tidegate_tower::RateLimitLayer;
//!
//! let policy = Policy::from_toml(r#"
//!     [[rule]]
//!     name = "ip"
//!     limit = "100 per minute"
//!     key = "ip"
//! "#)?;
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "hello" }))
//!     .layer(RateLimitLayer::new(policy));
//! // With the feature `axum`, serve it with
//! // app.into_make_service_with_connect_info::<SocketAddr>(), so that peers have addresses.
//! # Ok::<(), tidegate::policy::FileError>(())
//! ```
//!
//! # Guarantees
//! - A call is decided once, before the inner service sees it, and never waits; but for a policy whose rules
//!   are on a server that machines share (see the crate `tidegate-redis`), which is asked without blocking.
//! - The client's address is the peer's, or what trusted proxies say: no header that a stranger
//!   writes is believed.
//! - A denial is a response, not an error: `429` with `Retry-After` rounded up, `Cache-Control:
//!   no-store`, the fields of the IETF's RateLimit draft and an RFC 9457 body that names the rule.
//!   `503` says that the server that counts does not answer.

#![forbid(unsafe_code)]

mod layer;

mod place;
mod request;
mod reservation;
mod service;

mod body;
mod denial;
mod fields;
#[cfg(feature = "grpc")]
mod grpc;
mod list;

pub use body::ResponseBody;
pub use denial::{Problem, respond, retry_after_s};
pub use fields::{Fields, Rendered};
pub use layer::RateLimitLayer;
pub use place::ConcurrentPlace;
pub use request::{HeadersOf, PeerAddr, client_ip};
pub use reservation::LlmReservation;
pub use service::{RateLimit, ResponseFuture};
