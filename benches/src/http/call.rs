//! Calls of a service without sockets.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use tower_service::Service;

/// Answers "hello" at once.
#[derive(Debug, Clone, Copy)]
pub struct Hello;

impl Service<Request> for Hello {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(Response::new(Body::from("hello"))))
    }
}

/// A request as a server that knows its peer makes it.
#[must_use]
pub fn request() -> Request {
    let mut request = Request::new(Body::empty());
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
    request.extensions_mut().insert(ConnectInfo(peer));
    request
}

/// The response of a service that does not wait.
///
/// # Panics
/// When it does, or fails.
pub fn answered<S: Service<Request>>(service: &mut S) -> S::Response {
    let future = pin!(service.call(request()));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("a service that answers at once"),
    }
}
