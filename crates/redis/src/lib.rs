//! Tidegate on Redis or Valkey: exact limits for many machines, without a round trip per call.
//!
//! ```text
//! a call to an API -> Policy (of `tidegate`): RedisEngine -> RemoteLimiter: leases, what happens without
//!                                                        the server
//! layers of a call -> Server: one script, one round trip, with calls of the same time
//!                       -> Answer: a Decision for each layer
//!                       Spec: a limit in numbers that scripts count in
//!                       Link: one multiplexed connection, or one to each node of a cluster;
//!                       Breaker: whether to use it
//! ```
//!
//! - [`policy_from_toml`]: a [`Policy`](tidegate::policy::Policy) whose rules machines share, by its file.
//! - [`RemoteLimiter`]: limits by their names, of which hot keys are leased.
//! - [`Server`] decides on all [`Layer`]s of a call in one step: all or nothing, on the server's clock.
//! - [`RemoteLimit`] is a [`Limit`](tidegate::Limit) by a name; any of the four algorithms.
//! - [`RemoteReservation`]: reserve an estimate, settle what was really used, exactly once.
//!
//! # Guarantees
//! - **The same decisions.** A script decides as the core does, to the microsecond, and the token bucket
//!   without any rounding of the rate. Both are checked against the same models.
//! - **All or nothing, in one round trip.** A call that one layer denies is charged by none.
//! - **No clock but the server's.** Clocks of nodes may be wrong by any amount.
//! - **What is sent twice counts once where it gives something back**: settling takes a hold away, and who
//!   does not find it books nothing. A decision whose answer is lost may have been charged, once: that errs
//!   toward denial. What was reserved goes back when the answer comes late (up to ten minutes), and stays
//!   charged as what is used when none comes (see [`Server::reserve`]).
//! - **What a server forgets is spent again.** A server that lost its data admits each limit anew: once
//!   more for each loss, and not more than that. A replica that takes over has forgotten what was written
//!   after its last word from its master, so at most that much is admitted above the limit.
//! - Where the server's clock steps forward, windows turn sooner by the step. Keep servers on one time.
//!
//! # Servers
//! Redis from 6.2 on and Valkey, alone, with sentinels, or as a cluster; with TLS (`rediss://`), RESP3
//! (`?protocol=resp3`) and an ACL user (`redis://user:password@host`), who needs the commands `EVALSHA`,
//! `EVAL`, `TIME`, `GET`, `MGET`, `SET`, `GETRANGE`, `SETRANGE`, `PEXPIREAT`, `EXISTS` and `DEL` on keys
//! `{tidegate:*`, and in a cluster `CLUSTER|SLOTS` and `ASKING`. Don't let it evict keys: set
//! `maxmemory-policy noeviction`.

#![forbid(unsafe_code)]

mod config;
mod namespace;
mod spec;

mod backend;
mod engine;
mod policy;

mod answer;
mod limiter;
mod reservation;
mod server;

mod breaker;
mod dice;
mod link;
mod script;
#[cfg(feature = "simulation")]
mod simulation;
mod tally;

pub use answer::Answer;
pub use backend::{RedisBackend, RedisSpec};
pub use breaker::BreakerRules;
pub use config::{ServerConfig, Topology};
pub use engine::{RedisEngine, RedisTally};
pub use limiter::{
    Ask, LeaseClock, LeaseError, LeaseRules, LimitId, LimiterHold, LimiterTally, RemoteLimiter,
};
pub use namespace::{NameError, Namespace, RemoteKey, RemoteLimit};
pub use policy::{policy_from_source, policy_from_toml, policy_on};
pub use reservation::{RemoteReservation, Settlement};
#[cfg(feature = "simulation")]
pub use script::Operation;
pub use server::{Layer, Server, ServerError};
#[cfg(feature = "simulation")]
pub use simulation::{Running, SimulatedServer};
pub use spec::SpecError;
pub use tally::ServerTally;
pub use tidegate::policy::{DecidedBy, WhenDown};
