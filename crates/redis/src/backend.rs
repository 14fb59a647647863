//! [`RedisBackend`]: what a `[redis]` section of a file says, and what it makes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidegate::policy::{Backend, Engine, FileError, Rule, Source, Spanned};

use crate::engine::limit_of;
use crate::limiter::Shares;
use crate::{Namespace, RedisEngine, Server, ServerConfig, Topology};

/// A `[redis]` section as it stands in a file, for adapters whose files hold one.
///
/// ```toml
/// [redis]
/// url = "redis://127.0.0.1:6379"        # or rediss:// for TLS, with user and password before an @
/// # url_env = "REDIS_URL"               # in place of url: the environment variable that holds it
/// # namespace = "default"               # all processes with one namespace share its limits
/// # timeout_ms = 50                     # how long a call waits for the server
/// # cluster = ["redis://10.0.0.2"]      # more nodes of a cluster, beside url
/// # sentinels = ["redis://10.0.0.3:26379"]  # with the name of the master; url is for user and database then
/// # master = "mymaster"
/// # ca_file = "ca.pem"                  # for TLS: the authority that signed the server's certificate
/// ```
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSpec {
    url: Option<Spanned<String>>,
    url_env: Option<Spanned<String>>,
    namespace: Option<Spanned<String>>,
    timeout_ms: Option<Spanned<u64>>,
    #[serde(default)]
    cluster: Vec<Spanned<String>>,
    #[serde(default)]
    sentinels: Vec<Spanned<String>>,
    master: Option<Spanned<String>>,
    ca_file: Option<Spanned<String>>,
}

impl fmt::Debug for RedisSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the addresses: passwords may be in them.
        f.debug_struct("RedisSpec")
            .field("namespace", &self.namespace)
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}

/// Makes an error about a field.
type Told<'a> = dyn Fn(Range<usize>, &str, &dyn fmt::Display) -> FileError + 'a;

impl RedisSpec {
    /// The backend that it says. Connects to nothing yet; where a `former` one is the same, it goes on, with
    /// its connection.
    ///
    /// # Errors
    /// What is wrong in it first, with line and field.
    pub fn backend(
        &self,
        source: &Source<'_>,
        former: Option<&RedisBackend>,
    ) -> Result<RedisBackend, FileError> {
        let error = |span: Range<usize>, field: &str, message: &dyn fmt::Display| {
            source.error(span, &format!("redis.{field}"), &message.to_string())
        };
        let (url, at) = self.url(&error)?;
        let namespace = match &self.namespace {
            None => Namespace::new(RedisBackend::DEFAULT_NAMESPACE),
            Some(name) => Namespace::new(name.get_ref()),
        };
        let namespace = namespace.map_err(|wrong| {
            let span = self.namespace.as_ref().map_or(0..0, Spanned::span);
            error(span, "namespace", &wrong)
        })?;
        let mut config = ServerConfig::new(self.topology(url, &error)?);
        if let Some(timeout_ms) = &self.timeout_ms {
            if !(1..=60_000).contains(timeout_ms.get_ref()) {
                let message = "a time-out of so many milliseconds does not do; give 1 to 60000";
                return Err(error(timeout_ms.span(), "timeout_ms", &message));
            }
            config = config.with_timeout(Duration::from_millis(*timeout_ms.get_ref()));
        }
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path.get_ref()).map_err(|reason| {
                let message = format!("cannot read {}: {reason}", path.get_ref());
                error(path.span(), "ca_file", &message)
            })?;
            config = config.with_ca(&pem);
        }
        let same = former.filter(|former| former.server.config() == &config);
        let server = match same {
            Some(former) => former.server.clone(),
            None => Arc::new(Server::new(&config).map_err(|wrong| error(at, "url", &wrong))?),
        };
        let shares = match former {
            Some(former) if former.namespace == namespace => former.shares.clone(),
            _ => Shares::default(),
        };
        Ok(RedisBackend { server, namespace, shares })
    }

    fn url(&self, error: &Told<'_>) -> Result<(String, Range<usize>), FileError> {
        match (&self.url, &self.url_env) {
            (Some(url), None) => Ok((url.get_ref().clone(), url.span())),
            (None, Some(name)) => match std::env::var(name.get_ref()) {
                Ok(url) => Ok((url, name.span())),
                Err(_) => {
                    let message = format!(
                        "the environment variable `{}` is not set; set it to the server's address",
                        name.get_ref()
                    );
                    Err(error(name.span(), "url_env", &message))
                }
            },
            (Some(url), Some(_)) => {
                Err(error(url.span(), "url", &"give either `url` or `url_env`, not both"))
            }
            // With sentinels, it says only who we are.
            (None, None) if !self.sentinels.is_empty() => {
                Ok(("redis://localhost".to_owned(), self.sentinels[0].span()))
            }
            (None, None) => Err(error(
                0..0,
                "url",
                &"is missing; say where the server is, as in `redis://127.0.0.1:6379`",
            )),
        }
    }

    fn topology(&self, url: String, error: &Told<'_>) -> Result<Topology, FileError> {
        let texts = |list: &[Spanned<String>]| -> Vec<String> {
            list.iter().map(|text| text.get_ref().clone()).collect()
        };
        match (self.sentinels.first(), &self.master, self.cluster.first()) {
            (None, None, None) => Ok(Topology::Single { url }),
            (None, None, Some(_)) => {
                let urls = std::iter::once(url).chain(texts(&self.cluster)).collect();
                Ok(Topology::Cluster { urls })
            }
            (Some(_), Some(master), None) => Ok(Topology::Sentinel {
                sentinels: texts(&self.sentinels),
                master: master.get_ref().clone(),
                url,
            }),
            (Some(_), _, Some(node)) => Err(error(
                node.span(),
                "cluster",
                &"servers are a cluster or have sentinels, not both",
            )),
            (Some(sentinel), None, _) => Err(error(
                sentinel.span(),
                "sentinels",
                &"need `master`: what they call the servers that they watch",
            )),
            (None, Some(master), _) => {
                Err(error(master.span(), "master", &"needs `sentinels`: their addresses"))
            }
        }
    }
}

/// A server for the rules of policies, and the namespace that they are in.
///
/// It is kept when a policy is loaded anew, with its connection, and what this process has admitted by itself
/// while the server did not answer: a limit that is the same goes on with its share.
#[derive(Debug, Clone)]
pub struct RedisBackend {
    server: Arc<Server>,
    namespace: Namespace,
    shares: Shares,
}

impl RedisBackend {
    /// The namespace, unless said otherwise.
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    /// Rules on this server, in this namespace.
    #[must_use]
    pub fn new(server: Arc<Server>, namespace: Namespace) -> Self {
        Self { server, namespace, shares: Shares::default() }
    }

    /// The namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The server, with counts for metrics.
    #[must_use]
    pub const fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The engine of these rules, as the type that it is.
    ///
    /// # Errors
    /// When one of them is none that it can keep.
    pub fn redis_engine(&self, rules: &[&Rule]) -> Result<RedisEngine, String> {
        RedisEngine::new(&self.server, &self.namespace, rules, &self.shares)
    }
}

impl Backend for RedisBackend {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn check(&self, rule: &Rule) -> Result<(), String> {
        if rule.limit().is_concurrency() {
            return Err(
                "concurrent calls are counted by each process for itself, not on a server; \
                        say `backend = \"local\"`, and give each process its part"
                    .to_owned(),
            );
        }
        limit_of(&self.namespace, rule).map(drop).map_err(|error| error.to_string())
    }

    fn engine(&self, rules: &[&Rule]) -> Result<Arc<dyn Engine>, String> {
        Ok(Arc::new(self.redis_engine(rules)?))
    }
}
