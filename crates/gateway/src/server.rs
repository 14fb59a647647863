//! The listener: connections in, graceful stop.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::banner::Banner;
use crate::cli::Origin;
use crate::config::Config;
use crate::connection::Connections;
use crate::lanes::Lanes;
use crate::live::Live;
use crate::{admin, reload};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

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
    let (is_running, running) = watch::channel(());
    let connections = Arc::new(Connections::new(&live, patience, running));
    let open = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Without it, small writes of a stream would wait for each other.
                    let _ = stream.set_nodelay(true);
                    let Some((lane, place)) = lanes.fewest() else { continue };
                    match adopted(stream, lane) {
                        Ok(stream) => {
                            let serving = connections.clone().serve((stream, peer), open.watcher());
                            tasks.spawn_on(lane, async move {
                                serving.await;
                                drop(place);
                            });
                        }
                        Err(error) => tracing::warn!(%peer, "cannot take a connection: {error}"),
                    }
                }
                Err(error) => pause_after(&error).await,
            },
            () = stop.told() => break,
        }
    }
    drop(listener);
    live.drain();
    drop(is_running);
    let (count, drain) = (open.count(), live.gateway().operation().drain);
    tracing::info!(
        "stopping; {count} connections have {} s to end their requests",
        drain.as_secs()
    );
    tokio::select! {
        () = open.shutdown() => {}
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

/// A connection on the runtime that serves it from now on.
fn adopted(stream: TcpStream, lane: &Handle) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    let _within = lane.enter();
    TcpStream::from_std(stream)
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
