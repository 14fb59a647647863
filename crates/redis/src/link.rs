//! [`Link`]: the connection to the server, made anew when it is lost.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{
    SentinelClient, SentinelClientBuilder, SentinelNodeConnectionInfo, SentinelServerType,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::Topology;

/// One multiplexed connection: all calls of the process go over it, one behind the other, without
/// waiting for each other's answers.
pub(crate) struct Link {
    source: Source,
    current: ArcSwapOption<Connection>,
    /// Held by who connects, so that one does.
    connecting: Mutex<()>,
    timeout: Duration,
}

enum Source {
    Single(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    Plain(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Checks the addresses; connects to nothing yet.
    ///
    /// With `ca`, servers are those whose certificates this authority has signed.
    pub(crate) fn new(
        topology: &Topology,
        timeout: Duration,
        ca: Option<&[u8]>,
    ) -> RedisResult<Self> {
        let certificates =
            ca.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_owned()) });
        let source = match topology {
            Topology::Single { url } => Source::Single(Box::new(match certificates {
                None => Client::open(url.as_str())?,
                Some(certificates) => Client::build_with_tls(url.as_str(), certificates)?,
            })),
            Topology::Cluster { urls } => {
                let builder = ClusterClient::builder(urls.iter().map(String::as_str))
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .retries(3);
                let builder = match certificates {
                    None => builder,
                    Some(certificates) => builder.certs(certificates),
                };
                Source::Cluster(Box::new(builder.build()?))
            }
            Topology::Sentinel { sentinels, master, url } => {
                let client = match certificates {
                    None => watched(sentinels, master, url)?,
                    Some(certificates) => watched_and_signed(sentinels, master, url, certificates)?,
                };
                Source::Sentinel(Box::new(Mutex::new(client)))
            }
        };
        let (current, connecting) = (ArcSwapOption::empty(), Mutex::new(()));
        Ok(Self { source, current, connecting, timeout })
    }

    /// Sends a command, and waits for the answer. What is rare is boxed, so that little is moved for a call.
    pub(crate) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let connection = match self.current.load_full() {
            Some(connection) => connection,
            None => Box::pin(self.connection()).await?,
        };
        let answer = match &*connection {
            Connection::Plain(plain) => plain.clone().req_packed_command(command).await,
            Connection::Cluster(cluster) => {
                let mut cluster = Box::new(cluster.clone());
                cluster.req_packed_command(command).await
            }
        };
        let answer = answer.and_then(Value::extract_error);
        if let Err(error) = &answer
            && is_lost(error)
        {
            self.forget(&connection);
        }
        answer
    }

    /// Makes the next call connect anew.
    pub(crate) fn reset(&self) {
        self.current.store(None);
    }

    fn forget(&self, lost: &Arc<Connection>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, lost)) {
            self.current.compare_and_swap(&*current, None);
        }
    }

    /// Connects, unless somebody else just has.
    async fn connection(&self) -> RedisResult<Arc<Connection>> {
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = self.current.load_full() {
            return Ok(connection);
        }
        let connection = Arc::new(self.connect().await?);
        self.current.store(Some(connection.clone()));
        Ok(connection)
    }

    async fn connect(&self) -> RedisResult<Connection> {
        // The caller's time-out is for all of a call; these are for what it leaves behind.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None);
        Ok(match &self.source {
            Source::Single(client) => Connection::Plain(
                client.get_multiplexed_async_connection_with_config(&config).await?,
            ),
            Source::Sentinel(client) => {
                let mut client = client.lock().await;
                Connection::Plain(client.get_async_connection_with_config(&config).await?)
            }
            Source::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

/// A client of the servers that sentinels watch.
fn watched(sentinels: &[String], master: &str, url: &str) -> RedisResult<SentinelClient> {
    let server = url.into_connection_info()?;
    let is_tls = matches!(server.addr(), ConnectionAddr::TcpTls { .. });
    let server = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(server.redis_settings().clone());
    let server = if is_tls { server.set_tls_mode(TlsMode::Secure) } else { server };
    let sentinels = sentinels.iter().map(String::as_str).collect();
    SentinelClient::build(sentinels, master, Some(server), SentinelServerType::Master)
}

/// The same, where an authority of one's own has signed all that speak TLS. The client library knows only
/// one user for all sentinels then, and only sentinels that all speak TLS, or all not.
fn watched_and_signed(
    sentinels: &[String],
    master: &str,
    url: &str,
    certificates: TlsCertificates,
) -> RedisResult<SentinelClient> {
    let is_tls = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let server = url.into_connection_info()?;
    let sentinels = sentinels.iter().map(|url| url.as_str().into_connection_info());
    let sentinels = sentinels.collect::<RedisResult<Vec<_>>>()?;
    let Some(first) = sentinels.first() else {
        return Err((ErrorKind::EmptySentinelList, "there are no sentinels").into());
    };
    let user = |info: &ConnectionInfo| {
        let settings = info.redis_settings();
        (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
    };
    let differs =
        |other: &ConnectionInfo| is_tls(other) != is_tls(first) || user(other) != user(first);
    if sentinels.iter().any(differs) {
        let message = "with an authority of one's own, sentinels must all have one user, and all speak TLS or none";
        return Err((ErrorKind::InvalidClientConfig, message).into());
    }
    let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if is_tls(first) {
        builder = builder
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates.clone());
    }
    let (name, password) = user(first);
    builder = name
        .into_iter()
        .fold(builder, |builder, name| builder.set_client_to_sentinel_username(name));
    builder = password
        .into_iter()
        .fold(builder, |builder, word| builder.set_client_to_sentinel_password(word));
    if is_tls(&server) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates);
    }
    let settings = server.redis_settings();
    builder = builder
        .set_client_to_redis_db(settings.db())
        .set_client_to_redis_protocol(settings.protocol());
    let (name, password) = user(&server);
    builder =
        name.into_iter().fold(builder, |builder, name| builder.set_client_to_redis_username(name));
    builder = password
        .into_iter()
        .fold(builder, |builder, word| builder.set_client_to_redis_password(word));
    builder.build()
}

/// Whether the connection is of no use any more: it is gone, or leads to a server that was replaced.
fn is_lost(error: &redis::RedisError) -> bool {
    error.is_connection_dropped()
        || error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the source: it has the password.
        f.debug_struct("Link").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
