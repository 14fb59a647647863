//! [`Link`]: the way to the server, or to the node of a cluster that a call is for.

mod cluster;
mod line;
mod sentinel;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Cmd, RedisResult, TlsCertificates, Value};
use tokio::sync::Mutex;

use self::cluster::Cluster;
use self::line::{Line, Source};
use self::sentinel::{watched, watched_and_signed};
use crate::Topology;

/// The way to the server, or servers.
///
/// Nothing is sent twice that may have been carried out: when a connection breaks, what was under way on it
/// fails. So a call is charged once at most, whatever happens to its answer.
pub(crate) struct Link {
    way: Way,
    timeout: Duration,
}

enum Way {
    One(Line),
    Cluster(Arc<Cluster>),
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
        let way = match topology {
            Topology::Single { url } => {
                let client = match certificates {
                    None => Client::open(url.as_str())?,
                    Some(certificates) => Client::build_with_tls(url.as_str(), certificates)?,
                };
                Way::One(Line::new(Source::Server(Box::new(client)), timeout))
            }
            Topology::Cluster { urls } => {
                Way::Cluster(Arc::new(Cluster::new(urls, certificates, timeout)?))
            }
            Topology::Sentinel { sentinels, master, url } => {
                let client = match certificates {
                    None => watched(sentinels, master, url)?,
                    Some(certificates) => watched_and_signed(sentinels, master, url, certificates)?,
                };
                Way::One(Line::new(Source::Sentinels(Box::new(Mutex::new(client))), timeout))
            }
        };
        Ok(Self { way, timeout })
    }

    /// Sends a script with its keys, and waits for the answer.
    pub(crate) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match &self.way {
            Way::One(line) => line.send(command).await,
            Way::Cluster(cluster) => Box::pin(cluster.send(command)).await,
        }
    }

    /// Makes the next call connect anew.
    pub(crate) fn reset(&self) {
        match &self.way {
            Way::One(line) => line.reset(),
            Way::Cluster(cluster) => cluster.reset(),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the source: it has the password.
        f.debug_struct("Link").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
