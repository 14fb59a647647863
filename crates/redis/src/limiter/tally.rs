//! [`LimiterTally`]: how often things happened, for metrics.

use crate::tally::tally;

tally! {
    /// How calls were decided, and what became of leases. For metrics: the counts are read one after the
    /// other, while they go on. What a lease decides on the spot is not counted one by one: it is what was
    /// leased less what was given back.
    LimiterTally, Event:
    /// Leases that were taken.
    leases,
    /// Units that were leased.
    leased_units,
    /// Units that were given back unspent.
    returned_units,
    /// Units that could not be given back, and stay charged.
    lost_units,
    /// Calls that were decided by the server.
    by_server,
    /// Calls that were denied from memory.
    denied_here,
    /// Calls that were decided without the server, since it did not answer.
    without_server,
}
