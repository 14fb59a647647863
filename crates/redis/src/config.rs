//! [`ServerConfig`]: where the server is, and how long to wait for it.

use std::time::Duration;

use crate::BreakerRules;

/// Where the server is, and how long to wait for it.
///
/// ```
/// use std::time::Duration;
/// use tidegate_redis::ServerConfig;
///
/// let config = ServerConfig::single("redis://127.0.0.1:6379/?protocol=resp3")
///     .with_timeout(Duration::from_millis(20));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub(crate) topology: Topology,
    pub(crate) timeout: Duration,
    pub(crate) breaker: BreakerRules,
    pub(crate) hold: Duration,
    pub(crate) ca: Option<Vec<u8>>,
}

/// How the servers stand to each other. Addresses are URLs, such as `redis://user:password@host:6379/0`;
/// `rediss://` for TLS.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server.
    Single {
        /// Its address.
        url: String,
    },
    /// A master and its replicas, watched by sentinels.
    Sentinel {
        /// The sentinels' addresses.
        sentinels: Vec<String>,
        /// What the sentinels call the master.
        master: String,
        /// User, password, database, protocol and TLS for the servers: a URL whose host does not count.
        url: String,
    },
    /// A cluster.
    Cluster {
        /// Addresses of some of its nodes.
        urls: Vec<String>,
    },
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { topology, timeout, breaker, hold, ca } = self;
        f.debug_struct("ServerConfig")
            .field("topology", topology)
            .field("timeout", timeout)
            .field("breaker", breaker)
            .field("hold", hold)
            .field("has_ca", &ca.is_some())
            .finish()
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the addresses: they hold passwords.
        f.write_str(match self {
            Self::Single { .. } => "Single",
            Self::Sentinel { .. } => "Sentinel",
            Self::Cluster { .. } => "Cluster",
        })
    }
}

impl ServerConfig {
    /// How long a call waits for the server, unless said otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);

    /// How long a reservation may take until it cannot be settled any more, unless said otherwise.
    pub const DEFAULT_HOLD: Duration = Duration::from_secs(3_600);

    /// One server.
    #[must_use]
    pub fn single(url: &str) -> Self {
        Self::new(Topology::Single { url: url.to_owned() })
    }

    /// A cluster, by the addresses of some of its nodes.
    ///
    /// They have one user, password and protocol, and all speak TLS or none. Calls find their node while slots
    /// move, and when a replica takes over. A call is sent again only where a node has said that it has not
    /// carried it out, so it is charged once at most: as on one server, when a connection breaks, what was
    /// under way on it fails.
    #[must_use]
    pub fn cluster(urls: &[&str]) -> Self {
        Self::new(Topology::Cluster { urls: urls.iter().map(|url| (*url).to_owned()).collect() })
    }

    /// Servers that stand to each other like this.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            timeout: Self::DEFAULT_TIMEOUT,
            breaker: BreakerRules::default(),
            hold: Self::DEFAULT_HOLD,
            ca: None,
        }
    }

    /// Another time that a call waits for the server.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// For servers with TLS: the authority, in PEM, that has signed their certificates, in place of those
    /// that the system trusts.
    #[must_use]
    pub fn with_ca(self, pem: &[u8]) -> Self {
        Self { ca: Some(pem.to_owned()), ..self }
    }

    /// Another circuit breaker.
    #[must_use]
    pub fn with_breaker(self, breaker: BreakerRules) -> Self {
        Self { breaker, ..self }
    }

    /// Another time that a reservation may take until it cannot be settled any more.
    #[must_use]
    pub fn with_hold(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }
}
