//! [`ConcurrentPlace`]: a call's place among concurrent calls.

use std::sync::Arc;

use tidegate::Reservation;
use tidegate::policy::Held;

/// A call's place among concurrent calls, as an extension of the request, where a rule limits these.
///
/// The call leaves its place when its answer has ended, or was given up. A handler whose call lasts longer
/// keeps a clone for as long: a WebSocket's answer ends with the handshake.
///
/// ```
/// use axum::Extension;
/// use axum::http::StatusCode;
/// use tidegate_tower::ConcurrentPlace;
///
/// async fn upgrade(Extension(place): Extension<ConcurrentPlace>) -> StatusCode {
///     tokio::spawn(async move {
///         // Here it waits for the upgraded connection, and talks.
///         drop(place); // the next call may come in
///     });
///     StatusCode::SWITCHING_PROTOCOLS
/// }
/// ```
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "it is dropped, and that is all")]
pub struct ConcurrentPlace(Arc<Reservation<Held>>);

impl ConcurrentPlace {
    pub(crate) fn new(place: Reservation<Held>) -> Self {
        Self(Arc::new(place))
    }
}
