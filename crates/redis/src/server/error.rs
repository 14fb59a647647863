//! [`ServerError`]: why there is no answer.

use std::fmt;

use redis::RedisError;

/// Why there is no answer. It is not a denial: what happens then is the caller's choice.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The server did not answer in time.
    Timeout,
    /// The server is left alone for a while, since it has been failing.
    GivenUp,
    /// The connection failed, or the server refused the command.
    Redis(RedisError),
    /// An address is none.
    Config(RedisError),
    /// The server answered something that no script of ours does.
    Reply,
    /// A call without layers.
    NoLayers,
    /// A call with more than [`Server::MAX_LAYERS`](crate::Server::MAX_LAYERS).
    TooManyLayers {
        /// How many.
        layers: usize,
    },
    /// Layers of two namespaces, which may lie on two servers.
    TwoNamespaces,
    /// Two layers of a call have one key.
    TwoOfOneKey {
        /// The limit's name.
        limit: String,
    },
}

impl ServerError {
    pub(crate) fn config(error: RedisError) -> Self {
        Self::Config(error)
    }

    /// Whether it is the server that does not answer; otherwise the call makes no sense.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Timeout | Self::GivenUp | Self::Redis(_) | Self::Reply)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the server did not answer in time"),
            Self::GivenUp => f.write_str(
                "the server is not asked for a while, since it has not answered several times",
            ),
            Self::Redis(error) => write!(f, "the server failed: {error}"),
            Self::Config(error) => write!(
                f,
                "the address is none ({error}); write it as in `redis://user:password@127.0.0.1:6379/0`"
            ),
            Self::Reply => f.write_str(
                "the server's answer makes no sense; is it Redis 6.2 or later, or Valkey?",
            ),
            Self::NoLayers => {
                f.write_str("a call without layers limits nothing; give at least one")
            }
            Self::TooManyLayers { layers } => {
                write!(
                    f,
                    "{layers} layers are too many; give at most {}",
                    crate::Server::MAX_LAYERS
                )
            }
            Self::TwoNamespaces => f.write_str(
                "layers of two namespaces cannot be decided in one step; make their limits in one",
            ),
            Self::TwoOfOneKey { limit } => {
                write!(f, "two layers have the same key of `{limit}`; add up their costs in one")
            }
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Redis(error) | Self::Config(error) => Some(error),
            _ => None,
        }
    }
}
