//! What clients may take their time for, and how they may frame what they send.

mod arriving;
mod framing;
mod io;
mod spec;
mod taking;

use std::time::Duration;

pub(crate) use arriving::{Arriving, BodyError};
pub(crate) use framing::odd_framing;
pub(crate) use io::{ClientIo, Spoken};
pub(crate) use spec::ClientSpec;
pub(crate) use taking::{OpenCalls, Taking};

/// How long clients may take: the section `[client]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// To send a request's head, the first one as well as the next.
    pub(crate) head: Duration,
    /// To send a body: that of an LLM call as a whole; of others, beyond the time that it takes at
    /// [`Arriving::SLOWEST`].
    pub(crate) body: Duration,
    /// To take more of an answer, over HTTP/1.1 of the connection, over HTTP/2 of each.
    pub(crate) take: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            take: Duration::from_secs(60),
        }
    }
}
