//! [`Connections`]: what a client's connection does, from its first byte to its last.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::client::{ClientIo, OpenCalls, Patience, Spoken, Taking};
use crate::live::Live;
use crate::tasks::Tasks;

/// The most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// The most streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// What all connections have in common.
pub(crate) struct Connections {
    http1: http1::Builder,
    http2: http2::Builder<Tasks>,
    live: Arc<Live>,
    patience: Patience,
    /// Ends when the gateway does.
    running: watch::Receiver<()>,
}

/// A connection that speaks one HTTP or the other.
type Serving = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Connections {
    pub(crate) fn new(live: &Arc<Live>, patience: Patience, running: watch::Receiver<()>) -> Self {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(MAX_HEAD);
        let mut http2 = http2::Builder::new(live.tasks().clone());
        http2.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
        // Who is no longer there is found by pings; who is there, and takes nothing of an answer, by `Taking`.
        http2.keep_alive_interval(patience.take).keep_alive_timeout(patience.head);
        Self { http1, http2, live: live.clone(), patience, running }
    }

    /// Serves a client until its connection ends, or the gateway does, which `watcher` tells it.
    pub(crate) async fn serve(
        self: Arc<Self>,
        (stream, peer): (TcpStream, SocketAddr),
        watcher: Watcher,
    ) {
        let mut stream = ClientIo::new(stream, self.patience);
        let mut running = self.running.clone();
        let spoken = tokio::select! {
            spoken = stream.hear() => spoken,
            // Nothing of a request has come.
            _ = running.changed() => return,
        };
        let calls = Arc::new(OpenCalls::default());
        let connection = match spoken {
            Ok(spoken) => self.speak(spoken, (stream, peer), watcher, &calls),
            Err(error) => return tracing::debug!(%peer, "connection ended: {error}"),
        };
        drop(self);
        tokio::select! {
            biased;
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%peer, "connection ended: {error}");
            },
            () = calls.useless() => tracing::debug!(%peer, "closed: nothing of it was taken"),
        }
    }

    /// Boxed: there may be many, and a task takes as much memory as the largest of what it ever does.
    fn speak(
        &self,
        spoken: Spoken,
        (stream, peer): (ClientIo<TcpStream>, SocketAddr),
        watcher: Watcher,
        calls: &Arc<OpenCalls>,
    ) -> Serving {
        let (live, calls, patience) = (self.live.clone(), calls.clone(), self.patience.take);
        let service = service_fn(move |request: Request<Incoming>| {
            let gateway = live.gateway();
            // Over HTTP/1.1, `ClientIo` finds who takes nothing.
            let call = (request.version() == Version::HTTP_2).then(|| calls.begin());
            async move {
                let response = gateway.handle(request, peer).await;
                Ok::<_, std::convert::Infallible>(match call {
                    None => response,
                    Some(call) => response.map(|body| Body::new(Taking::new(body, patience, call))),
                })
            }
        });
        let stream = TokioIo::new(stream);
        match spoken {
            Spoken::Http1 => Box::pin(watcher.watch(self.http1.serve_connection(stream, service))),
            Spoken::Http2 => Box::pin(watcher.watch(self.http2.serve_connection(stream, service))),
        }
    }
}
