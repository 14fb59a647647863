//! The listener: connections in, graceful stop.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::banner::Banner;
use crate::cli::Origin;
use crate::client::{ClientIo, OpenCalls, Taking};
use crate::config::Config;
use crate::lanes::Lanes;
use crate::live::Live;
use crate::tasks::Tasks;
use crate::{admin, reload};

/// The most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The most streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(config: Config, origin: Origin) -> Result<(), ServerError> {
    let (operation, patience) = (config.operation.clone(), config.patience);
    let address = config.listen;
    allow_many_connections();
    let failed = |reason| ServerError::Listen { address, reason };
    let mut stop = Stop::new().map_err(ServerError::Signals)?;
    let listener = listen(address, config.reuse_port).map_err(failed)?;
    let lanes = Lanes::start().map_err(ServerError::Threads)?;
    let address = listener.local_addr().map_err(failed)?;
    let upstream = config.providers.main.as_ref().map(ToString::to_string);
    let state = config.state.clone();
    let live = Arc::new(Live::new(config, origin).map_err(ServerError::Blocks)?);
    let served = admin::serve(&operation, &live).await?;
    tokio::spawn(reload::watch(live.clone()));
    let gateway = live.gateway();
    let banner = Banner {
        address,
        upstream,
        policy: gateway.policy(),
        redis: gateway.redis().map(|redis| redis.namespace().name()),
        state: state.as_deref(),
        served,
        token: operation.admin.as_ref().and_then(|admin| admin.made_token()),
    };
    // Nobody may be reading; that is no reason to stop.
    let _ = io::stdout().write_all(banner.to_string().as_bytes());

    tokio::spawn(keep_reservations(live.clone()));
    let tasks = live.tasks();
    let mut server = Builder::new(tasks.clone());
    let mut http1 = server.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(MAX_HEAD);
    let mut http2 = server.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    // Who is no longer there is found by pings; who is there, and takes nothing of an answer, by `Taking`.
    http2.keep_alive_interval(patience.take).keep_alive_timeout(patience.head);
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Without it, small writes of a stream would wait for each other.
                    let _ = stream.set_nodelay(true);
                    let (Some((lane, place)), Ok(stream)) = (lanes.fewest(), stream.into_std()) else {
                        continue;
                    };
                    let (server, connections) = (server.clone(), connections.watcher());
                    let live = live.clone();
                    tasks.spawn_on(lane, async move {
                        // It belongs to the runtime that first sees it.
                        let Ok(stream) = TcpStream::from_std(stream) else { return };
                        let stream = ClientIo::new(stream, patience);
                        serve(&server, connections, &live, (stream, peer), patience.take).await;
                        drop(place);
                    });
                }
                Err(error) => pause_after(&error).await,
            },
            () = stop.told() => break,
        }
    }
    drop(listener);
    live.drain();
    let (open, drain) = (connections.count(), live.gateway().operation().drain);
    tracing::info!("stopping; {open} connections have {} s to end their requests", drain.as_secs());
    tokio::select! {
        () = connections.shutdown() => {}
        () = tokio::time::sleep(drain) => tracing::warn!("some requests did not end in time"),
        () = stop.told() => tracing::warn!("told again, so requests are cut off"),
    }
    live.finish().await;
    Ok(())
}

fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As usual, so that a restart need not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Raises the number of open files to the most that the system grants: each call has two connections, and
/// what services begin with is room for some five hundred calls.
fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }) {
        tracing::warn!("the number of open files stays as it is: {error}");
    }
}

/// What a connection does, until it ends.
fn serve(
    server: &Builder<Tasks>,
    connections: Watcher,
    live: &Arc<Live>,
    (stream, peer): (ClientIo<TcpStream>, SocketAddr),
    patience: Duration,
) -> impl Future<Output = ()> + Send + use<> {
    let (live, calls) = (live.clone(), Arc::new(OpenCalls::default()));
    let calls_begun = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let gateway = live.gateway();
        // Over HTTP/1.1, `ClientIo` finds who takes nothing.
        let call = (request.version() == Version::HTTP_2).then(|| calls_begun.begin());
        async move {
            let response = gateway.handle(request, peer).await;
            Ok::<_, std::convert::Infallible>(match call {
                None => response,
                Some(call) => response.map(|body| Body::new(Taking::new(body, patience, call))),
            })
        }
    });
    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = connections.watch(connection);
    async move {
        tokio::select! {
            biased;
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%peer, "connection ended: {error}");
            },
            () = calls.useless() => tracing::debug!(%peer, "closed: nothing of it was taken"),
        }
    }
}

/// Renews, each second, what is reserved here, and gives back what was by gateways that have died; and takes
/// over whom other gateways block.
async fn keep_reservations(live: Arc<Live>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        live.blocks().refresh();
        let returned = live.renew_and_return_expired();
        if returned > 0 {
            tracing::info!("{returned} reservations expired and were given back");
        }
    }
}

/// Out of file descriptors, say: trying again at once would only burn the processor.
async fn pause_after(error: &io::Error) {
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Ctrl-C and SIGTERM, from when this is made: before the first is heard of, they would end the process at once.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Why the gateway cannot run.
#[derive(Debug)]
pub(crate) enum ServerError {
    Listen {
        address: SocketAddr,
        reason: io::Error,
    },
    /// Whom operators block cannot be read.
    Blocks(String),
    /// The system does not tell of signals.
    Signals(io::Error),
    /// The system has no threads for calls.
    Threads(io::Error),
    /// The address of operators, or of metrics.
    Operation {
        field: &'static str,
        address: SocketAddr,
        reason: io::Error,
    },
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, reason } => write!(
                f,
                "cannot listen on {address}: {reason}; choose another address with --listen, such as 127.0.0.1:8081"
            ),
            Self::Blocks(reason) => f.write_str(reason),
            Self::Threads(reason) => write!(f, "cannot start the threads for calls: {reason}"),
            Self::Signals(reason) => write!(f, "cannot listen for SIGTERM: {reason}"),
            Self::Operation { field, address, reason } => write!(
                f,
                "cannot listen on {address}: {reason}; choose another address with --{field}, or `{field}.listen` in the configuration"
            ),
        }
    }
}

impl std::error::Error for ServerError {}
