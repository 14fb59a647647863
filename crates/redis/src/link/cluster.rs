//! [`Cluster`]: the nodes of a cluster, and which of them a call is for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    RedisResult, ServerErrorKind, TlsCertificates, Value,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::line::{Line, Source, is_lost};
use super::slots::{Slots, slot_of};

/// The nodes of a cluster.
///
/// The client library has one, too. That sends again what was under way on a connection that breaks, so that
/// a call may be charged several times; and it asks a node that has stopped for the slots as long as it waits
/// for any answer, which for late ones must be long. Here, a call is sent again only where a node has said
/// that it has not carried it out.
pub(super) struct Cluster {
    /// As they were given; all alike but for the address.
    seeds: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    timeout: Duration,
    /// As a node has told last.
    slots: ArcSwapOption<Slots>,
    /// All that are known. Locked to find nodes, never for a call whose slot is known.
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// When nodes were last asked for the slots. Held while they are, so that it happens once at a time.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// One node.
pub(super) struct Node {
    pub(super) address: Address,
    line: Line,
}

/// How often a call is sent, where nodes say that it is not theirs, or that they are not ready.
const MOST_TRIES: u32 = 5;

/// How long to wait at first where a node is not ready; doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// How long nodes are waited for that are asked for the slots, at least. Calls do not wait for it longer than
/// they wait for all.
const LEAST_ASKING: Duration = Duration::from_secs(1);

/// How long what nodes have told is believed, whatever calls meet.
const PAUSE: Duration = Duration::from_millis(100);

impl Cluster {
    pub(super) fn new(
        urls: &[String],
        certificates: Option<TlsCertificates>,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let seeds = urls.iter().map(|url| url.as_str().into_connection_info());
        let seeds = seeds.collect::<RedisResult<Vec<_>>>()?;
        let wrong = |message| Err((ErrorKind::InvalidClientConfig, message).into());
        let Some(first) = seeds.first() else { return wrong("a cluster has at least one address") };
        let settings = |seed: &ConnectionInfo| {
            let settings = seed.redis_settings();
            let name_and_word =
                (settings.username().map(str::to_owned), settings.password().map(str::to_owned));
            let is_tls = matches!(seed.addr(), ConnectionAddr::TcpTls { .. });
            (is_tls, name_and_word, settings.protocol(), settings.db())
        };
        if seeds.iter().any(|seed| Address::of(seed.addr()).is_none()) {
            return wrong("a cluster's nodes have a host and a port, and no socket's path");
        }
        if seeds.iter().any(|seed| settings(seed) != settings(first)) {
            return wrong(
                "a cluster's nodes have one user, password, protocol and database, and all speak TLS or none",
            );
        }
        let cluster = Self {
            seeds,
            certificates,
            timeout,
            slots: ArcSwapOption::empty(),
            nodes: Mutex::default(),
            asked: tokio::sync::Mutex::new(None),
        };
        // Whether certificates make sense is known now.
        cluster.seeds().try_for_each(|address| cluster.node(address).map(drop))?;
        Ok(cluster)
    }

    /// Sends a script to the node that has its keys.
    pub(super) async fn send(self: &Arc<Self>, script: &Cmd) -> RedisResult<Value> {
        let slot = slot_of(script);
        let mut slots = match self.slots.load_full() {
            Some(slots) => slots,
            None => self.ask(None).await?,
        };
        let (mut redirected, mut wait) = (None, FIRST_WAIT);
        for tries_left in (0..MOST_TRIES).rev() {
            let (node, is_asking) = match redirected.take() {
                Some(redirected) => redirected,
                None => match slots.node(slot) {
                    Some(node) => (node.clone(), false),
                    None => {
                        slots = self.ask(Some(&slots)).await?;
                        let node = slots.node(slot).ok_or_else(no_node)?;
                        (node.clone(), false)
                    }
                },
            };
            let connection = match node.line.connection().await {
                Ok(connection) => connection,
                // Nothing was sent. Another node may have taken over.
                Err(error) => {
                    slots = self.ask(Some(&slots)).await?;
                    if slots.node(slot).is_none_or(|now| Arc::ptr_eq(now, &node)) {
                        return Err(error);
                    }
                    continue;
                }
            };
            let answer = match is_asking {
                false => node.line.send_over(&connection, script).await,
                true => node.line.send_asking(&connection, script).await,
            };
            let error = match answer {
                Err(error) if tries_left > 0 => error,
                answered => return answered,
            };
            use ServerErrorKind::{
                Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain,
            };
            match error.kind() {
                ErrorKind::Server(kind @ (Moved | Ask)) => {
                    let Some(other) = self.node_of(&error, &node.address) else {
                        return Err(error);
                    };
                    redirected = Some((other?, kind == Ask));
                    if kind == Moved {
                        self.ask_in_the_background(&slots);
                    }
                }
                ErrorKind::Server(TryAgain) => {
                    sleep(wait).await;
                    wait *= 2;
                }
                ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly) => {
                    sleep(wait).await;
                    wait *= 2;
                    slots = self.ask(Some(&slots)).await?;
                }
                _ => {
                    // It may have been carried out.
                    if is_lost(&error) {
                        self.ask_in_the_background(&slots);
                    }
                    return Err(error);
                }
            }
        }
        Err(no_node())
    }

    /// Makes the next calls ask for the slots, and connect, anew.
    pub(super) fn reset(&self) {
        self.slots.store(None);
        self.known().values().for_each(|node| node.line.reset());
    }

    /// Which node has which slot now, other than as `known`, which has proved wrong. Goes on when its caller
    /// has gone away: who asks has less time than nodes may need.
    async fn ask(self: &Arc<Self>, known: Option<&Arc<Slots>>) -> RedisResult<Arc<Slots>> {
        let (cluster, known, begun) = (self.clone(), known.cloned(), Instant::now());
        let asking = tokio::spawn(async move {
            let mut asked = cluster.asked.lock().await;
            let current = cluster.slots.load_full();
            let is_other = |current: &Arc<Slots>| {
                known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, current))
            };
            let is_fresh = match (&current, *asked) {
                (Some(current), _) if is_other(current) => true,
                (Some(_), Some(asked)) => asked.elapsed() < PAUSE,
                // Somebody has asked while we waited, and in vain.
                (None, Some(asked)) if asked > begun => return Err(no_node()),
                _ => false,
            };
            if let Some(current) = current.filter(|_| is_fresh) {
                return Ok(current);
            }
            let told = cluster.ask_nodes().await;
            *asked = Some(Instant::now());
            cluster.slots.store(Some(told?));
            cluster.slots.load_full().ok_or_else(no_node)
        });
        asking.await.unwrap_or_else(|_| Err(no_node()))
    }

    fn ask_in_the_background(self: &Arc<Self>, known: &Arc<Slots>) {
        let (cluster, known) = (self.clone(), known.clone());
        tokio::spawn(async move { cluster.ask(Some(&known)).await.map(drop) });
    }

    /// Asks all nodes that are known, and believes the first that answers.
    async fn ask_nodes(self: &Arc<Self>) -> RedisResult<Arc<Slots>> {
        let mut asking = JoinSet::new();
        for address in self.seeds() {
            self.node(address)?;
        }
        let nodes: Vec<_> = self.known().values().cloned().collect();
        for node in nodes {
            let limit = self.timeout.max(LEAST_ASKING);
            asking.spawn(async move {
                let mut command = redis::cmd("CLUSTER");
                command.arg("SLOTS");
                let told = timeout(limit, node.line.send(&command)).await;
                (node, told.unwrap_or_else(|_| Err((ErrorKind::Io, "no answer in time").into())))
            });
        }
        let mut last = no_node();
        while let Some(answer) = asking.join_next().await {
            let Ok((asked, told)) = answer else { continue };
            let read = |value: Value| {
                Slots::read(&value, &asked.address.host, |address| self.node(address).ok())
            };
            match told.map(read) {
                Ok(Some(slots)) => {
                    self.keep(&slots);
                    return Ok(Arc::new(slots));
                }
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Forgets all other nodes.
    fn keep(&self, slots: &Slots) {
        let mut nodes: HashMap<_, _> =
            slots.nodes().map(|node| (node.address.clone(), node.clone())).collect();
        let mut known = self.known();
        for seed in self.seeds() {
            if let Some(node) = known.remove(&seed) {
                nodes.insert(seed, node);
            }
        }
        *known = nodes;
    }

    fn seeds(&self) -> impl Iterator<Item = Address> {
        self.seeds.iter().filter_map(|seed| Address::of(seed.addr()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node that an error sends a call to, if it says so.
    fn node_of(&self, error: &RedisError, by: &Address) -> Option<RedisResult<Arc<Node>>> {
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() { &by.host } else { host };
        Some(self.node(Address { host: host.to_owned(), port: port.parse().ok()? }))
    }

    /// The node that is there.
    fn node(&self, address: Address) -> RedisResult<Arc<Node>> {
        let mut known = self.known();
        if let Some(node) = known.get(&address) {
            return Ok(node.clone());
        }
        let seed = &self.seeds[0];
        let info = seed.clone().set_addr(address.like(seed.addr()));
        let client = match &self.certificates {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
        };
        let line = Line::new(Source::Server(Box::new(client)), self.timeout);
        let node = Arc::new(Node { address: address.clone(), line });
        known.insert(address, node.clone());
        Ok(node)
    }
}

impl Address {
    fn of(address: &ConnectionAddr) -> Option<Self> {
        match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }

    /// With TLS as another address has it.
    fn like(&self, other: &ConnectionAddr) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        match other {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
impl Node {
    /// One that nobody connects to.
    pub(super) fn nowhere(address: Address) -> Self {
        let client = Client::open("redis://localhost").expect("an address");
        let line = Line::new(Source::Server(Box::new(client)), Duration::ZERO);
        Self { address, line }
    }
}

fn no_node() -> RedisError {
    (ErrorKind::ClusterConnectionNotFound, "no node of the cluster says who has the keys").into()
}
